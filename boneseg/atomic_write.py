"""Files that appear whole or not at all: the one way in which a file of this machine is written and renamed."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".partial-"
"""Of temporary names; the rest ends as the file's own name does, because libraries choose a format by it."""
_OWNER_ONLY = stat.S_IRUSR | stat.S_IWUSR


@contextmanager
def atomic_write(path: Path, private: bool = False, durable: bool = False, sole_writer: bool = False) -> Iterator[Path]:
    """Yield a temporary name in the same folder; what the block has written there gets the file's name at its end.

    Whoever reads the file meets the old content or the new one. Where the block raises, the old one stays.

    Args:
        path: the file.
        private: only its owner may read it, also while it is written, whatever the umask.
        durable: it survives a power failure right afterwards; for what nobody can make again. It waits for the disk.
        sole_writer: nobody writes this file at the same time. The temporary name is then always the same, so that what
            a killed process left there goes before new space is taken.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full.
    """
    partial = path.with_name(f"{PREFIX}{'' if sole_writer else f'{secrets.token_hex(8)}-'}{path.name}")
    partial.unlink(missing_ok=True)
    try:
        if private:
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY))
        yield partial
        if durable:
            _sync(partial)
        partial.replace(path)
        if durable:
            with suppress(OSError):  # some file systems cannot do so with a folder
                _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, data: bytes, private: bool = False, durable: bool = False) -> None:
    """Write a small file as ``atomic_write`` does."""
    with atomic_write(path, private, durable) as partial:
        partial.write_bytes(data)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
