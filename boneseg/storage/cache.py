"""A bounded local cache of what the bucket holds, shared by threads and processes."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from boneseg.errors import SettingsError, StoreError
from boneseg.storage.catalogue import ObjectRef
from boneseg.storage.client import ObjectInfo, ObjectMissingError, ObjectStore
from boneseg.storage.hashing import sha256_file
from boneseg.storage.integrity import fits_etag
from boneseg.storage.permissions import FILE_MODE, make_private

LIMIT_VARIABLE = "BONESEG_CACHE_GB"
DEFAULT_LIMIT_BYTES = 50 * 2**30
IN_USE_SECONDS = 60.0
"""A file that was fetched within this time is not evicted: its user may not have opened it yet."""
FETCHES = 3
"""How often an object is fetched whose content does not fit its ETag."""
_STALE_SECONDS = 86400.0
_SLACK = 0.05

_added: dict[Path, int] = {}
_added_lock = threading.Lock()


class Cache:
    """Files by content hash (``objects/``).

    When the cache holds more than its limit, the files that were fetched longest ago go first; those fetched within
    the last minute stay. So the limit may be passed by what is fetched in a minute, and by 5 % a process. A file that
    is open or memory-mapped when it is evicted stays readable to who opened it.

    Args:
        folder: where; made when needed.
        store: where files come from.
        limit_bytes: none = ``BONESEG_CACHE_GB`` gigabytes, else 50.

    Raises:
        SettingsError: ``BONESEG_CACHE_GB`` is not a number above 0.
    """

    def __init__(self, folder: Path, store: ObjectStore, limit_bytes: int | None = None) -> None:
        self.folder = folder
        self.store = store
        self.limit_bytes = _limit_from_environment() if limit_bytes is None else limit_bytes

    def fetch(self, ref: ObjectRef) -> Path:
        """Return a local file with the content of an object.

        A cached file is hashed the first time a process uses it; one that was damaged is fetched again.

        Raises:
            StoreError: the object is gone from the bucket, or is not what it was when it was listed.
        """
        path = self._by_content(ref.sha256)
        if _content(path) == ref.sha256:
            _touch(path)
            return path
        with self._partial() as partial:
            try:
                self.store.download(ref.key, partial)
            except ObjectMissingError as error:
                again = f"{self.store.uri(ref.key)} was deleted since it was listed; run 'boneseg pull' again"
                raise ObjectMissingError(again) from error
            if sha256_file(partial) != ref.sha256:
                raise StoreError(f"{self.store.uri(ref.key)} changed since it was listed; run 'boneseg pull' again")
            self._keep(partial, path)
        return path

    def fetch_new(self, item: ObjectInfo) -> tuple[Path, ObjectRef]:
        """Fetch an object of which only the listing is known, and say what its content hash is.

        Size and ETag in the answer are those of the very content that was hashed: of a later version than the
        listing's, where the object changed meanwhile.

        Raises:
            ObjectMissingError: the object is gone.
            StoreError: it arrives damaged, or changes all the time.
        """
        with self._partial() as partial:
            fetched, sha256 = self._download_verified(item.key, partial)
            path = self._by_content(sha256)
            self._keep(partial, path)
        return path, ObjectRef(key=item.key, size=fetched.size, etag=fetched.etag, sha256=sha256)

    def put(self, key: str, write: Callable[[Path], None]) -> ObjectRef:
        """Make an object and keep it here too, so that who made it need not fetch it.

        Args:
            key: of the object.
            write: writes the content to the path it is given.

        Raises:
            StoreError: the store does not answer, or the disk is full.
        """
        with self._partial() as partial:
            write(partial)
            self.store.upload(partial, key)
            ref = ObjectRef(key=key, size=partial.stat().st_size, etag="", sha256=sha256_file(partial))
            self._keep(partial, self._by_content(ref.sha256))
        return ref

    def _by_content(self, sha256: str) -> Path:
        return self.folder / "objects" / sha256[:2] / sha256

    def _download_verified(self, key: str, partial: Path) -> tuple[ObjectInfo, str]:
        """Download and return what came and its SHA-256, checked against the ETag where that is an MD5."""
        seen: tuple[str, str] | None = None
        for _ in range(FETCHES):
            fetched = self.store.download(key, partial)
            sha256 = sha256_file(partial)
            # An ETag that is no MD5 (server-side encryption) is believed when the same comes twice.
            if fits_etag(fetched.etag, partial) is not False or (fetched.etag, sha256) == seen:
                return fetched, sha256
            seen = fetched.etag, sha256
        raise StoreError(f"{self.store.uri(key)} changes while it is read; run 'boneseg pull' again")

    @contextmanager
    def _partial(self) -> Iterator[Path]:
        """Yield a place for a file whose name, its content's hash, is not known before it is whole."""
        path = self.folder / "partial" / uuid.uuid4().hex
        try:
            make_private(self.folder)
            make_private(path.parent)
            yield path
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot write to the cache ({_why(error)}); free some space") from error
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _keep(self, partial: Path, path: Path) -> None:
        size = partial.stat().st_size
        make_private(path.parent)
        partial.chmod(FILE_MODE)
        partial.replace(path)
        _touch(path)
        with _added_lock:
            due = self.folder not in _added or _added[self.folder] + size > self.limit_bytes * _SLACK
            _added[self.folder] = 0 if due else _added[self.folder] + size
        if due:
            self._evict()

    def _evict(self) -> None:
        """Remove what was fetched longest ago until the cache is within its limit, and leftovers of killed runs."""
        now = time.time()
        files = []
        for path, stat in _files(self.folder):
            if path.parent.name == "partial":
                if now - stat.st_mtime > _STALE_SECONDS:
                    path.unlink(missing_ok=True)
            else:
                files.append((stat.st_atime, stat.st_size, path))
        excess = sum(size for _, size, _ in files) - self.limit_bytes
        for used, size, path in sorted(files):
            if excess <= 0 or now - used < IN_USE_SECONDS:
                return
            path.unlink(missing_ok=True)
            excess -= size


def _why(error: OSError) -> str:
    return error.strerror or str(error)  # numpy has no error number for a disk that is full


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            try:
                yield path, path.stat()
            except FileNotFoundError:  # another process evicted it
                continue


def _content(path: Path) -> str | None:
    try:
        stat = path.stat()
        return _hash(path, stat.st_size, stat.st_mtime_ns)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=65536)
def _hash(path: Path, size: int, modified_ns: int) -> str:
    return sha256_file(path)


def _touch(path: Path) -> None:
    """Note the use of a file in its access time; the modification time still tells whether it was tampered with."""
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    except FileNotFoundError:  # evicted in this very moment; the caller's open says so
        return


def _limit_from_environment() -> int:
    given = os.environ.get(LIMIT_VARIABLE)
    if given is None:
        return DEFAULT_LIMIT_BYTES
    try:
        limit = float(given)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise SettingsError(f"{LIMIT_VARIABLE}={given!r} must be a number of gigabytes above 0")
    return int(limit * 2**30)
