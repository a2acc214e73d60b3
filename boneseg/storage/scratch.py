"""Folders for one use that only this user may enter. What a killed process left of them goes with the next one made."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from boneseg.storage.permissions import FILE_MODE

IN_USE = ".in-use"
"""A file in each of them, locked for as long as its process lives: locks go with a process however that ends."""
_FRESH_SECONDS = 3600.0


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder for one use, and remove those of this prefix that killed processes left.

    Args:
        parent: where; made when missing.
        prefix: of its name.

    Raises:
        OSError: it cannot be made there.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_left(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        # Locked before it has its name: whoever finds the name and gets the lock knows that nobody is here any more.
        fresh = folder / f"{IN_USE}.new"
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "w") as lock:
            with suppress(OSError):  # a file system without locks: nobody can get it there, so nobody removes this
                fcntl.flock(lock, fcntl.LOCK_EX)
            fresh.rename(folder / IN_USE)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left(parent: Path, prefix: str) -> None:
    """Remove this user's scratch folders of a prefix that are in nobody's use."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            if (folder / IN_USE).exists():
                _remove_if_free(folder)
            elif time.time() - found.st_mtime > _FRESH_SECONDS:
                _remove_if_never_used(folder)


def _remove_if_free(folder: Path) -> None:
    with (folder / IN_USE).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_never_used(folder: Path) -> None:
    """Remove what a process left that was killed before it could lock its folder; any other folder has content."""
    (folder / f"{IN_USE}.new").unlink(missing_ok=True)
    folder.rmdir()
