"""The object store: an S3 bucket behind the few verbs that boneseg needs."""

from __future__ import annotations

import hashlib
import io
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import S3Error

from boneseg.atomic_write import atomic_write
from boneseg.errors import StoreError
from boneseg.redaction import redacted
from boneseg.storage import faults, retry
from boneseg.storage.ca_certificates import trusted
from boneseg.storage.credentials import Credentials, CredentialsAwayError, as_variables, given, look_up, to_hand_on
from boneseg.storage.download import Download, etag_in
from boneseg.storage.faults import LostRaceError, ObjectMissingError
from boneseg.storage.retry import StoreAwayError

__all__ = ["Credentials", "ObjectInfo", "ObjectMissingError", "ObjectStore", "etag_of"]

CONNECT_SECONDS, READ_SECONDS, RETRIES = 5.0, 60.0, 3
PART_BYTES = 16 * 2**20
"""Files above this size are sent in parts of it."""
UPDATE_ATTEMPTS = 30
_WRITER = "boneseg-write"
"""Metadata by which a writer knows its own conditional write again."""

Answer = TypeVar("Answer")

# It logs each retry with the path, in which folder names of patients may stand.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


@dataclass(frozen=True)
class ObjectInfo:
    """An object as a listing shows it."""

    key: str
    size: int
    etag: str


class ObjectStore:
    """One bucket of an S3 endpoint.

    Every method raises StoreError, with the endpoint or key and the fix, where the store refuses the credentials, does
    not have the object (ObjectMissingError) or does not answer. A store that answered before and is away is waited for,
    see ``patience``.

    Args:
        endpoint: URL.
        bucket: name.
        credentials: none = looked up in the surroundings, in each process anew.
        region: of the bucket.
        disk: folder where a store on this machine keeps its data; a failing store whose disk is full says so.
    """

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        credentials: Credentials | None = None,
        region: str = "us-east-1",
        disk: Path | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.bucket = bucket
        self._region = region
        self._disk = disk
        self._given = credentials
        self._source = look_up() if credentials is None else given(credentials)
        # One try more to connect, so that a wrong endpoint is told in seconds.
        self._client = self._connect(
            urllib3.Retry(RETRIES, connect=1, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504], **_AS_ANSWER)
        )
        # A conditional write that is sent again unseen meets itself.
        self._client_once = self._connect(urllib3.Retry(total=1, connect=1, read=0, status=0, other=0, redirect=0))

    def _connect(self, retries: urllib3.Retry) -> Minio:
        parts = urlsplit(self.endpoint)
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        secured: dict[str, Any] = {"ssl_context": trusted()} if parts.scheme == "https" else {}
        try:
            if not parts.hostname or any(mark.isspace() for mark in parts.netloc):
                raise ValueError("it names no host")
            return Minio(
                parts.netloc,
                credentials=self._source.provider,
                secure=parts.scheme == "https",
                region=self._region,
                http_client=urllib3.PoolManager(timeout=timeout, maxsize=64, retries=retries, **secured),
            )
        except ValueError as error:
            raise StoreError(
                f"{redacted(self.endpoint)} is no address of an S3 store ({redacted(str(error))}); give it as "
                "https://host:port, without user, password or path"
            ) from None

    def __reduce__(self) -> tuple[Callable[..., ObjectStore], tuple[object, ...]]:
        # Connections do not cross a process border; the settings do, and whether the store ever answered.
        known = retry.answered(self.endpoint)
        return _remade, (self.endpoint, self.bucket, self._given, self._region, self._disk, known)

    @property
    def credentials(self) -> Credentials:
        """The credentials that hold now, for a child process that needs them in its environment."""
        return self._source.now()

    def environment(self) -> dict[str, str]:
        """Return the variables by which S3 clients of other processes, also on other machines, reach this store."""
        access = to_hand_on() if self._given is None else as_variables(self._given)
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": self._region, **access}

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
        if self._has_bucket():
            return

        def make() -> None:
            try:
                self._client.make_bucket(self.bucket)
            except S3Error as error:  # another process was faster
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise

        self._try(self.bucket, make)
        if not self._has_bucket():
            raise StoreError(f"bucket {self.bucket} of {self.endpoint} belongs to somebody else; set store.bucket")

    def require_bucket(self) -> None:
        """Raise StoreError, with the name and the fix, if the bucket is not there."""
        if not self._has_bucket():
            raise faults.no_bucket(self.endpoint, self.bucket)

    def _has_bucket(self) -> bool:
        def look() -> None:
            # A listing, not a HEAD, whose answer has no room for a reason.
            next(iter(self._client.list_objects(self.bucket, prefix="state/")), None)

        try:
            self._try(self.bucket, look)
        except faults.BucketMissingError:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield all objects below a prefix, folders' own markers left out, in order of their keys."""
        last: str | None = None
        pages: Iterator[Any] | None = None

        def more() -> Any:
            nonlocal pages
            if pages is None:
                found = self._client.list_objects(self.bucket, prefix=prefix, recursive=True, start_after=last)
                pages = iter(found)
            try:
                return next(pages, None)
            except BaseException:
                pages = None  # a listing that broke off goes on after the last key it gave
                raise

        while (item := self._try(prefix, more)) is not None:
            last = item.object_name
            if not item.is_dir and last is not None:
                yield ObjectInfo(last, item.size or 0, (item.etag or "").strip('"'))

    def stat(self, key: str) -> ObjectInfo | None:
        """Return what a listing would show of one object; none where it does not exist."""
        try:
            item = self._try(key, lambda: self._client.stat_object(self.bucket, key))
        except ObjectMissingError:
            return None
        return ObjectInfo(key, item.size or 0, (item.etag or "").strip('"'))

    def exists(self, key: str) -> bool:
        """Say whether an object is there."""
        return self.stat(key) is not None

    def read(self, key: str) -> bytes:
        """Return a small object whole."""
        return self._read(key)[0]

    def read_if_there(self, key: str) -> bytes | None:
        """Return a small object whole; none where it does not exist."""
        return self.read_versioned(key)[0]

    def read_versioned(self, key: str) -> tuple[bytes | None, str | None]:
        """Return a small object and the ETag that ``write_if`` wants; none and none where it does not exist."""
        try:
            return self._read(key)
        except ObjectMissingError:
            return None, None

    def _read(self, key: str) -> tuple[bytes, str]:
        def read() -> tuple[bytes, str]:
            with closing(self._client.get_object(self.bucket, key)) as response:
                data = response.read()
                response.release_conn()
                return data, etag_in(response)

        return self._try(key, read)

    def write(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> str:
        """Store bytes and return their URI. S3 shows an object whole or not at all."""
        self._try(
            key,
            lambda: self._client.put_object(self.bucket, key, io.BytesIO(data), len(data), content_type=content_type),
        )
        return self.uri(key)

    def write_if(self, key: str, data: bytes, etag: str | None, content_type: str = "application/octet-stream") -> bool:
        """Store bytes only if the object is still what it was: S3's conditional write.

        A write whose answer was lost is not repeated blindly: the object tells whether it was this one.

        Args:
            key: of the object.
            data: its new content.
            etag: of the content it must have now; none = it must not exist.
            content_type: of the content.

        Returns:
            Whether it was written; False where somebody else was faster.
        """
        condition = {"If-None-Match": "*"} if etag is None else {"If-Match": f'"{etag}"'}
        writer, unsure = uuid.uuid4().hex, False
        headers = condition | {"Content-Type": content_type, f"x-amz-meta-{_WRITER}": writer}

        def put() -> bool:
            nonlocal unsure
            if unsure and self._writer(key) == writer:
                return True
            unsure = True
            self._client_once._put_object(self.bucket, key, data, dict(headers))
            return True

        try:
            return self._try(key, put)
        except LostRaceError:
            return False
        except ObjectMissingError:  # the store's answer where what was to be replaced is gone
            return False

    def _writer(self, key: str) -> str | None:
        try:
            found = self._client.stat_object(self.bucket, key)
        except S3Error as error:
            if error.code in faults.ABSENT:
                return None
            raise
        return {name.lower(): str(value) for name, value in (found.metadata or {}).items()}.get(f"x-amz-meta-{_WRITER}")

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
        try:
            self._try(
                key,
                lambda: self._client.fput_object(
                    self.bucket, key, str(path), content_type=content_type, part_size=PART_BYTES
                ),
            )
        except OSError as error:
            raise StoreError(
                f"{path}: cannot be read, or changed while it was sent ({error.strerror or error})"
            ) from error
        return self.uri(key)

    def download(self, key: str, path: Path) -> ObjectInfo:
        """Fetch an object to a file, readable by this user only; the file appears whole or not at all.

        Where the connection breaks off, the rest is fetched, of the same version of the object.

        Returns:
            What was fetched: its size, and the ETag of just this content.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, private=True) as partial, partial.open("wb") as file:
                fetched = Download(self._client, self.bucket, key, file)
                self._try(key, fetched.go_on)
                return ObjectInfo(key, file.tell(), fetched.etag)
        except OSError as error:
            raise StoreError(f"{path}: cannot write the download ({error.strerror}); free some space there") from error

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        self._try(key, lambda: self._client.remove_object(self.bucket, key))

    def _try(self, name: str, request: Callable[[], Answer]) -> Answer:
        """Make a request until it is answered, or the patience with a store that is away is at its end."""
        _check_key(name)
        waiting: retry.Patience | None = None
        while True:
            try:
                answer = request()
            except faults.HANDLED as error:
                told = faults.explain(error, self.endpoint, self.bucket, name, self._disk)
                if not isinstance(told, StoreAwayError):
                    raise told from error
                told.__cause__ = error
            except CredentialsAwayError as error:
                told = StoreAwayError(str(error))
            else:
                retry.note_answer(self.endpoint)
                return answer
            waiting = waiting or retry.Patience(self.endpoint)
            waiting.wait(told)


def etag_of(path: Path) -> str:
    """Return the ETag that ``upload`` gives a file: its MD5, or that of its parts' MD5s and their number."""

    def md5(data: bytes = b"") -> hashlib._Hash:
        return hashlib.md5(data, usedforsecurity=False)

    with path.open("rb") as file:
        parts = [md5(part) for part in iter(lambda: file.read(PART_BYTES), b"")] or [md5()]
    if len(parts) == 1:
        return parts[0].hexdigest()
    return f"{md5(b''.join(part.digest() for part in parts)).hexdigest()}-{len(parts)}"


_AS_ANSWER: dict[str, Any] = {"raise_on_status": False}  # the last answer says why it failed


def _remade(
    endpoint: str, bucket: str, credentials: Credentials | None, region: str, disk: Path | None, known: bool
) -> ObjectStore:
    if known:
        retry.note_answer(endpoint)
    return ObjectStore(endpoint, bucket, credentials, region, disk)


def _check_key(key: str) -> None:
    """Refuse keys that mean another one on the way: clients and servers take the steps in them."""
    if any(part in (".", "..") for part in key.split("/")):
        raise StoreError(f"the key {key!r} has '.' or '..' between slashes: give the object another name")
