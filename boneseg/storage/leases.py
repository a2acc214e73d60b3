"""Files that several processes of a machine share: who uses one holds a lock, for as long as it lives at most.

The locks are the kernel's (``flock``), so that one killed at any point holds nothing any more.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from boneseg.storage.permissions import FILE_MODE, make_private


def leased(path: Path) -> BinaryIO | None:
    """Open a file so that ``remove_unused`` leaves it; none where there is no such file.

    The lease lasts as long as the file is open, or mapped, or open under another number: a map alone keeps it.
    """
    while True:
        try:
            file = os.fdopen(_opened(path), "rb")
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # it was removed, or replaced, between the two calls


def remove_unused(path: Path) -> bool:
    """Remove a file unless somebody has leased it; say whether it is gone."""
    try:
        with path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # else somebody has put another one there
                path.unlink()
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Let one thread of all processes of this machine into the block; the others wait.

    Args:
        lock: a file for the lock, made when needed and never removed.
    """
    make_private(lock.parent)
    number = os.open(lock, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Not by closing alone: a process forked meanwhile would hold the lock for as long as it lives.
            fcntl.flock(number, fcntl.LOCK_UN)
    finally:
        os.close(number)


def _opened(path: Path) -> int:
    """Open a file so that reading it leaves its access time alone: the cache keeps there when it was used last."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOATIME)
    except PermissionError:  # another user's
        return os.open(path, os.O_RDONLY)
