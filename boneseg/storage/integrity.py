"""Whether an object of the bucket still is what was written."""

from __future__ import annotations

import hashlib
from pathlib import Path

from boneseg.storage.catalogue import ObjectRef
from boneseg.storage.client import ObjectStore
from boneseg.storage.hashing import sha256_file
from boneseg.storage.scratch import scratch_folder


def written(store: ObjectStore, key: str, path: Path) -> ObjectRef:
    """Return what tells, without reading it, whether an object is still what a file held when it was uploaded."""
    item = store.stat(key)
    return ObjectRef(key=key, size=path.stat().st_size, etag=item.etag if item else "", sha256=sha256_file(path))


def is_same(store: ObjectStore, key: str, path: Path) -> bool:
    """Say whether an object is surely what a file holds, by its ETag; one that tells nothing counts as no."""
    item = store.stat(key)
    return item is not None and item.size == path.stat().st_size and fits_etag(item.etag, path) is True


def fits_etag(etag: str, path: Path) -> bool | None:
    """Say whether a file is what an ETag says; none where that cannot be an MD5 (parts, server-side encryption)."""
    if len(etag) != 32 or "-" in etag:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == etag


def is_intact(store: ObjectStore, ref: ObjectRef, scratch: Path) -> bool:
    """Say whether an object is there as it was written; one whose ETag is another is read to be sure.

    Args:
        store: the bucket.
        ref: the object as it was written.
        scratch: a folder of this machine for what is read; made when needed.
    """
    item = store.stat(ref.key)
    if item is None or item.size != ref.size:
        return False
    return not ref.etag or item.etag == ref.etag or not differs(store, ref, scratch)


def differs(store: ObjectStore, ref: ObjectRef, scratch: Path) -> bool:
    """Read an object and say whether its content is another; see ``is_intact``."""
    with scratch_folder(scratch, "object-") as folder:
        path = folder / "object"
        store.download(ref.key, path)
        return sha256_file(path) != ref.sha256
