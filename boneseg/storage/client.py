"""The object store: an S3 bucket behind the few verbs that boneseg needs (the only place that imports minio)."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from urllib3.exceptions import MaxRetryError, ResponseError

from boneseg.errors import StoreError

CONNECT_SECONDS, READ_SECONDS, RETRIES = 5.0, 60.0, 3
PART_BYTES = 16 * 2**20
"""Files above this size are sent in parts of it."""
STREAM_BYTES = 2**20
UPDATE_ATTEMPTS = 30
_ABSENT = ("NoSuchKey", "NoSuchObject")
_LOST_RACE = (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT)


@dataclass(frozen=True)
class Credentials:
    """Access to an S3 endpoint; the secret stays out of every repr and log."""

    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return "Credentials(...)"

    @staticmethod
    def from_environment() -> Credentials:
        """Read ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``.

        Raises:
            StoreError: one of the two is not set.
        """
        try:
            return Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
        except KeyError as error:
            raise StoreError(
                f"{error.args[0]} is not set: an S3 endpoint needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
                "in the environment"
            ) from None


@dataclass(frozen=True)
class ObjectInfo:
    """An object as a listing shows it."""

    key: str
    size: int
    etag: str


class ObjectStore:
    """One bucket of an S3 endpoint.

    Every method raises StoreError, with the endpoint or key and the fix, where the store does not answer, refuses
    the credentials or does not have the object.
    """

    def __init__(self, endpoint: str, bucket: str, credentials: Credentials, region: str = "us-east-1") -> None:
        self.endpoint = endpoint
        self.bucket = bucket
        self._region = region
        self._credentials = credentials
        self._pool = self._connections()
        self._client = self._connect()

    def _connections(self) -> urllib3.PoolManager:
        # It logs the address of every request and retry, and raw keys often are names of people.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        return urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            maxsize=64,
            # One try more to connect, so that a wrong endpoint is told in seconds.
            retries=urllib3.Retry(total=RETRIES, connect=1, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        )

    def _connect(self) -> Minio:
        parts = urlsplit(self.endpoint)
        return Minio(
            parts.netloc,
            access_key=self._credentials.access_key,
            secret_key=self._credentials.secret_key,
            secure=parts.scheme == "https",
            region=self._region,
            http_client=self._pool,
        )

    def __reduce__(self) -> tuple[type[ObjectStore], tuple[str, str, Credentials, str]]:
        # Connections do not cross a process border; the settings do.
        return ObjectStore, (self.endpoint, self.bucket, self._credentials, self._region)

    @property
    def credentials(self) -> Credentials:
        """The credentials, for a child process that needs them in its environment."""
        return self._credentials

    def uri(self, key: str) -> str:
        """Return ``s3://bucket/key``."""
        return f"s3://{self.bucket}/{key}"

    def key(self, uri: str) -> str:
        """Return the key of an ``s3://`` URI in this bucket."""
        prefix = f"s3://{self.bucket}/"
        if not uri.startswith(prefix):
            raise StoreError(f"{uri} is not in bucket {self.bucket}; set store.bucket to its bucket")
        return uri.removeprefix(prefix)

    def ensure_bucket(self) -> None:
        """Create the bucket if it is not there."""
        with self._translated(self.bucket):
            if not self._client.bucket_exists(self.bucket):
                self._client.make_bucket(self.bucket)

    def require_bucket(self) -> None:
        """Raise StoreError, with the name and the fix, if the bucket is not there."""
        with self._translated(self.bucket):
            there = self._client.bucket_exists(self.bucket)
        if not there:
            raise StoreError(_no_bucket(self.endpoint, self.bucket))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield all objects below a prefix, folders' own markers left out, in order of their keys."""
        with self._translated(prefix):
            for item in self._client.list_objects(self.bucket, prefix=prefix, recursive=True):
                if not item.is_dir and item.object_name is not None:
                    yield ObjectInfo(item.object_name, item.size or 0, (item.etag or "").strip('"'))

    def stat(self, key: str) -> ObjectInfo | None:
        """Return what a listing would show of one object; none where it does not exist."""
        try:
            with self._translated(key):
                item = self._client.stat_object(self.bucket, key)
        except StoreError as error:
            if _code(error.__cause__) in _ABSENT:
                return None
            raise
        return ObjectInfo(key, item.size or 0, (item.etag or "").strip('"'))

    def exists(self, key: str) -> bool:
        """Say whether an object is there."""
        return self.stat(key) is not None

    def read(self, key: str) -> bytes:
        """Return a small object whole."""
        with self._translated(key):
            response = self._client.get_object(self.bucket, key)
            try:
                return response.read()
            finally:
                response.close()
                response.release_conn()

    def read_if_there(self, key: str) -> bytes | None:
        """Return a small object whole; none where it does not exist."""
        try:
            return self.read(key)
        except StoreError as error:
            if _code(error.__cause__) in _ABSENT:
                return None
            raise

    def write(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> str:
        """Store bytes and return their URI. S3 shows an object whole or not at all."""
        with self._translated(key):
            self._client.put_object(self.bucket, key, io.BytesIO(data), len(data), content_type=content_type)
        return self.uri(key)

    def read_versioned(self, key: str) -> tuple[bytes | None, str | None]:
        """Return a small object and the ETag that ``write_if`` wants; none and none where it does not exist."""
        try:
            with self._translated(key):
                response = self._client.get_object(self.bucket, key)
                try:
                    return response.read(), str(response.headers.get("etag", "")).strip('"')
                finally:
                    response.close()
                    response.release_conn()
        except StoreError as error:
            if _code(error.__cause__) in _ABSENT:
                return None, None
            raise

    def write_if(self, key: str, data: bytes, etag: str | None, content_type: str = "application/octet-stream") -> bool:
        """Store bytes only if the object is still what it was: S3's conditional write.

        Args:
            key: of the object.
            data: its new content.
            etag: of the content it must have now; none = it must not exist.
            content_type: of the content.

        Returns:
            Whether it was written; False where somebody else was faster.
        """
        condition = {"If-None-Match": "*"} if etag is None else {"If-Match": f'"{etag}"'}
        with self._translated(key):
            url = self._client.get_presigned_url("PUT", self.bucket, key)
            response = self._pool.request("PUT", url, body=data, headers={**condition, "Content-Type": content_type})
        if response.status in _LOST_RACE:
            return False
        if response.status != HTTPStatus.OK:
            raise StoreError(f"{self.endpoint} answered {response.status} for {self.uri(key)} on a conditional write")
        return True

    def update(
        self, key: str, change: Callable[[bytes | None], bytes], content_type: str = "application/octet-stream"
    ) -> bytes:
        """Change an object that others may change at the same time: nobody's change is lost.

        Args:
            key: of the object.
            change: makes the new content of the present one (none where it does not exist); called again where
                somebody else was faster.
            content_type: of the content.

        Returns:
            The content that is there now.

        Raises:
            StoreError: others keep being faster.
        """
        for attempt in range(UPDATE_ATTEMPTS):
            present, etag = self.read_versioned(key)
            wanted = change(present)
            if wanted == present or self.write_if(key, wanted, etag, content_type):
                return wanted
            time.sleep(random.uniform(0, 0.05 * 2 ** min(attempt, 5)))
        raise StoreError(f"{self.uri(key)} is changed by others all the time; try again when they are done")

    def upload(self, path: Path, key: str, content_type: str = "application/octet-stream") -> str:
        """Store a file and return its URI."""
        with self._translated(key):
            self._client.fput_object(self.bucket, key, str(path), content_type=content_type, part_size=PART_BYTES)
        return self.uri(key)

    def download(self, key: str, path: Path) -> str:
        """Fetch an object to a file; the file appears whole or not at all.

        Returns:
            The ETag of the very version that was fetched.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with self._translated(key):
                etag = self._stream(key, partial)
            partial.replace(path)
        except OSError as error:
            raise StoreError(f"{path}: cannot write the download ({error.strerror}); free some space there") from error
        finally:
            partial.unlink(missing_ok=True)
        return etag

    def _stream(self, key: str, path: Path) -> str:
        response = self._client.get_object(self.bucket, key)
        try:
            with path.open("wb") as file:
                for data in response.stream(STREAM_BYTES):
                    file.write(data)
            return str(response.headers.get("etag", "")).strip('"')
        finally:
            response.close()
            response.release_conn()

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with self._translated(key):
            self._client.remove_object(self.bucket, key)

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            raise StoreError(_explain(error, self.endpoint, self.bucket, name)) from error
        except (urllib3.exceptions.HTTPError, MinioException) as error:
            if isinstance(error, MaxRetryError) and isinstance(error.reason, ResponseError):
                raise StoreError(
                    f"{self.endpoint} keeps failing on s3://{self.bucket}/{name} ({error.reason}): look at the store's "
                    "log; its disk may be full"
                ) from error
            raise StoreError(
                f"{self.endpoint} does not answer ({type(error).__name__}): check store.endpoint, or start the "
                "embedded store with 'boneseg store start'"
            ) from error


def etag_of(path: Path) -> str:
    """Return the ETag that ``upload`` gives a file: its MD5, or that of its parts' MD5s and their number."""

    def md5(data: bytes = b"") -> hashlib._Hash:
        return hashlib.md5(data, usedforsecurity=False)

    with path.open("rb") as file:
        parts = [md5(part) for part in iter(lambda: file.read(PART_BYTES), b"")] or [md5()]
    if len(parts) == 1:
        return parts[0].hexdigest()
    return f"{md5(b''.join(part.digest() for part in parts)).hexdigest()}-{len(parts)}"


def _code(error: BaseException | None) -> str:
    return str(error.code) if isinstance(error, S3Error) else ""


def _no_bucket(endpoint: str, bucket: str) -> str:
    return f"bucket {bucket} does not exist at {endpoint}; create it or set store.bucket"


def _explain(error: S3Error, endpoint: str, bucket: str, name: str) -> str:
    if error.code in _ABSENT:
        return f"s3://{bucket}/{name} is not there"
    if error.code == "NoSuchBucket":
        return _no_bucket(endpoint, bucket)
    if error.code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "Forbidden"):
        return (
            f"{endpoint} refuses the credentials for bucket {bucket} ({error.code}): check AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    return f"{endpoint} answered {error.code} for s3://{bucket}/{name}: {error.message}"
