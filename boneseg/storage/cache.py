"""A bounded local cache of what the bucket holds, shared by threads and processes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from boneseg.errors import SettingsError, StoreError
from boneseg.storage.catalogue import ObjectRef
from boneseg.storage.client import ObjectInfo, ObjectMissingError, ObjectStore
from boneseg.storage.hashing import sha256_file
from boneseg.storage.integrity import fits_etag
from boneseg.storage.leases import leased, one_at_a_time, remove_unused
from boneseg.storage.permissions import FILE_MODE, make_private

LIMIT_VARIABLE = "BONESEG_CACHE_GB"
DISK_SHARE = 4
"""Without the variable the cache may take one part in so many of its disk."""
SPARE_SHARE, SPARE_BYTES = 100, 2**30
"""What the cache leaves free for others, such as the checkpoints of a training: one part in so many, at most this."""
IN_USE_SECONDS = 60.0
"""A file that was fetched within this time is not evicted: its user may not have opened it yet."""
FETCHES = 3
"""How often an object is fetched whose content does not fit its ETag."""
_STALE_SECONDS = 86400.0
_SLACK = 0.05

_FULL = (errno.ENOSPC, errno.EDQUOT)

Made = TypeVar("Made")

_added: dict[Path, int] = {}
_added_lock = threading.Lock()
_contents: dict[tuple[Path, int, int], str] = {}
_CONTENTS_KNOWN = 65536


class CacheFullError(StoreError):
    """The disk has no room for an object, and nothing can be evicted for it."""


class Cache:
    """Files by content hash (``objects/``).

    When the cache holds more than its limit, the files that were used longest ago go first. Who opens a file here
    keeps it for as long as it is open or mapped, in all processes of this machine; a path stays good for a minute after
    it was fetched. So the limit may be passed by what is open, by what is fetched in a minute, and by 5 % a process.

    Several threads and processes that want the same object fetch it once.

    Args:
        folder: where; made when needed. On a disk of this machine: several machines never share a cache.
        store: where files come from.
        limit_bytes: none = ``BONESEG_CACHE_GB`` gigabytes, else a quarter of the disk.

    Raises:
        SettingsError: ``BONESEG_CACHE_GB`` is not a number above 0.
    """

    def __init__(self, folder: Path, store: ObjectStore, limit_bytes: int | None = None) -> None:
        self.folder = folder
        self.store = store
        self.limit_bytes = _limit(folder) if limit_bytes is None else limit_bytes

    def fetch(self, ref: ObjectRef) -> Path:
        """Return a local file with the content of an object.

        A cached file is hashed the first time a process uses it; one that was damaged is fetched again. On a full disk
        others make room for it.

        Raises:
            CacheFullError: the disk is full of what is in use, or of other things.
            StoreError: the object is gone from the bucket, or is not what it was when it was listed.
        """
        path = self._by_content(ref.sha256)
        if _content(path) != ref.sha256:
            with self._told(), one_at_a_time(self.folder / "locks" / ref.sha256[:3]):
                if _content(path) != ref.sha256:  # nobody else fetched it meanwhile
                    self._with_room(ref.size, partial(self._download, ref, path))
        _touch(path)
        return path

    def open(self, ref: ObjectRef) -> BinaryIO:
        """Open an object's local file, for reading; it is not evicted while it is open, or a map of it is.

        Raises:
            CacheFullError: the disk is full of what is in use, or of other things.
            StoreError: the object is gone from the bucket, or is not what it was when it was listed.
        """
        while True:
            path = self.fetch(ref)
            file = leased(path)
            if file is not None:
                _touch(path, IN_USE_SECONDS)  # the lease protects it, so it needs no minute of grace afterwards
                return file

    def open_in_memory(self, ref: ObjectRef) -> BinaryIO:
        """Do what ``open`` does where the disk has no room: the content is in memory until the file is closed.

        Raises:
            StoreError: the object is gone from the bucket, or is not what it was when it was listed.
        """
        data = self.store.read(ref.key)
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise StoreError(_changed(self.store.uri(ref.key)))
        file = os.fdopen(os.memfd_create(ref.sha256[:16]), "w+b")
        file.write(data)
        file.flush()
        file.seek(0)
        return file

    def _download(self, ref: ObjectRef, path: Path) -> None:
        """Fetch an object whose place nobody else fills at this time."""
        for torn in (self.folder / "partial").glob(f"*{ref.sha256}"):
            torn.unlink(missing_ok=True)  # its process was killed
        with self._partial(ref.sha256) as file:
            try:
                self.store.download(ref.key, file)
            except ObjectMissingError as error:
                again = f"{self.store.uri(ref.key)} was deleted since it was listed; run 'boneseg pull' again"
                raise ObjectMissingError(again) from error
            if sha256_file(file) != ref.sha256:
                raise StoreError(_changed(self.store.uri(ref.key)))
            self._keep(file, path)

    def fetch_new(self, item: ObjectInfo) -> tuple[Path, ObjectRef]:
        """Fetch an object of which only the listing is known, and say what its content hash is.

        Size and ETag in the answer are those of the very content that was hashed: of a later version than the
        listing's, where the object changed meanwhile.

        Raises:
            ObjectMissingError: the object is gone.
            StoreError: it arrives damaged, or changes all the time.
        """
        return self._with_room(item.size, partial(self._fetch_new, item))

    def _fetch_new(self, item: ObjectInfo) -> tuple[Path, ObjectRef]:
        with self._partial() as file:
            fetched, sha256 = self._download_verified(item.key, file)
            path = self._by_content(sha256)
            self._keep(file, path)
        return path, ObjectRef(key=item.key, size=fetched.size, etag=fetched.etag, sha256=sha256)

    def put(self, key: str, write: Callable[[Path], None]) -> ObjectRef:
        """Make an object and keep it here too, so that who made it need not fetch it.

        Args:
            key: of the object.
            write: writes the content to the path it is given.

        Raises:
            StoreError: the store does not answer, or the disk is full.
        """
        return self._with_room(SPARE_BYTES, partial(self._put, key, write))

    def _put(self, key: str, write: Callable[[Path], None]) -> ObjectRef:
        with self._partial() as file:
            write(file)
            self.store.upload(file, key)
            ref = ObjectRef(key=key, size=file.stat().st_size, etag="", sha256=sha256_file(file))
            self._keep(file, self._by_content(ref.sha256))
        return ref

    def _with_room(self, size: int, work: Callable[[], Made]) -> Made:
        """Do what writes some bytes to the cache; on a full disk again, after others have made room."""
        try:
            return work()
        except CacheFullError:
            if not self._evict(size):
                raise
        return work()

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
    def _partial(self, name: str | None = None) -> Iterator[Path]:
        """Yield a place for a file that is not whole yet; none = its name, the content's hash, is not known before."""
        path = self.folder / "partial" / (name or uuid.uuid4().hex)
        try:
            with self._told():
                make_private(self.folder)
                make_private(path.parent)
                yield path
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell of a fault of the disk in one sentence."""
        try:
            yield
        except OSError as error:
            kind = CacheFullError if error.errno in _FULL else StoreError
            raise kind(f"{self.folder}: cannot write to the cache ({_why(error)}); free some space") from error
        except StoreError as error:
            cause = error.__cause__
            if isinstance(error, CacheFullError) or not isinstance(cause, OSError) or cause.errno not in _FULL:
                raise
            raise CacheFullError(str(error)) from cause

    def _keep(self, file: Path, path: Path) -> None:
        """Give a whole file its place, whose name says what was just found to be in it."""
        size = file.stat().st_size
        make_private(path.parent)
        file.chmod(FILE_MODE)
        file.replace(path)
        _touch(path)
        _note_content(path, path.name)
        with _added_lock:
            due = self.folder not in _added or _added[self.folder] + size > self.limit_bytes * _SLACK
            due = due or _lacking(self.folder) > 0
            _added[self.folder] = 0 if due else _added[self.folder] + size
        if due:
            self._evict()

    def _evict(self, wanted: int = 0) -> bool:
        """Remove what was used longest ago until the cache is within its limit, and leftovers of killed runs.

        Args:
            wanted: bytes to free in any case.

        Returns:
            Whether anything was removed.
        """
        now = time.time()
        files, removed = [], False
        for path, stat in _files(self.folder):
            if path.parent.name == "partial":
                if now - stat.st_mtime > _STALE_SECONDS:
                    path.unlink(missing_ok=True)
                    removed = True
            elif path.parent.name != "locks":
                files.append((stat.st_atime, stat.st_size, path))
        over = sum(size for _, size, _ in files) - self.limit_bytes
        excess = max(over, wanted, _lacking(self.folder))
        for used, size, path in sorted(files):
            if excess <= 0 or now - used < IN_USE_SECONDS:
                break
            if remove_unused(path):
                excess -= size
                removed = True
        return removed


def _changed(uri: str) -> str:
    return f"{uri} changed since it was listed; run 'boneseg pull' again"


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
    """Return the hash of a file's content, measured once a process; none where there is no file."""
    try:
        known = _contents.get(_state(path))
        if known is None:
            known = sha256_file(path)
            _note_content(path, known)
    except FileNotFoundError:
        return None
    return known


def _note_content(path: Path, sha256: str) -> None:
    with suppress(FileNotFoundError):
        if len(_contents) >= _CONTENTS_KNOWN:
            _contents.clear()
        _contents[_state(path)] = sha256


def _state(path: Path) -> tuple[Path, int, int]:
    """Return what changes where a file's content does."""
    stat = path.stat()
    return path, stat.st_size, stat.st_mtime_ns


def _touch(path: Path, seconds_ago: float = 0) -> None:
    """Note the use of a file in its access time; the modification time still tells whether it was tampered with."""
    try:
        os.utime(path, ns=(time.time_ns() - int(seconds_ago * 1e9), path.stat().st_mtime_ns))
    except FileNotFoundError:  # evicted in this very moment; the caller's open says so
        return


def _limit(folder: Path) -> int:
    given = os.environ.get(LIMIT_VARIABLE)
    if given is None:
        return _disk(folder)[0] // DISK_SHARE
    try:
        limit = float(given)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise SettingsError(f"{LIMIT_VARIABLE}={given!r} must be a number of gigabytes above 0")
    return int(limit * 2**30)


def _lacking(folder: Path) -> int:
    """Return how many bytes the disk lacks of what the cache leaves free for others; below 0 where it has more."""
    size, free = _disk(folder)
    return min(size // SPARE_SHARE, SPARE_BYTES) - free


def _disk(folder: Path) -> tuple[int, int]:
    """Return the bytes of the disk on which a folder is or will be, and those that are free."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    usage = shutil.disk_usage(there)
    return usage.total, usage.free
