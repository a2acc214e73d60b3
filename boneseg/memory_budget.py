"""How much memory reading may take: a file says what it will unpack to, and gets that much or is refused by name.

Small files can claim to be huge (deflated DICOM, gzipped NIfTI, far-off frames of a SEG). So nothing is unpacked
before its claim is granted, and the many readers of a pull share one budget:

    with claim(path.name, rows * columns * 4):
        ...  # unpack and use; what leaves the block is no longer counted

A claim is what the reading takes at its peak, not only its result. Claims are served in the order in which they come.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from boneseg.errors import SeriesError, SettingsError

READ_VARIABLE = "BONESEG_READ_MB"
"""Environment variable: megabytes (2**20 bytes) that all readers of a process may take together."""
READ_MB = 512
"""Without the variable: a volume of 512 x 512 x 1000 as int16, and a pull stays below 1 GB."""
VOLUME_VARIABLE = "BONESEG_VOLUME_MB"
"""Environment variable: megabytes of one volume of HU (int16) or classes that a step works on."""
VOLUME_MB = 4096
_MB = 1 << 20


class _Purse:
    """Bytes that threads share: who comes first is served first, so that a large claim is not starved by small ones."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._taken = 0
        self._own = threading.local()

    @contextmanager
    def hold(self, size: int, limit: int) -> Iterator[None]:
        held = getattr(self._own, "held", 0)
        with self._changed:
            if not held:  # a thread that waited for itself would wait for ever
                ticket = object()
                self._queue.append(ticket)
                try:
                    self._changed.wait_for(lambda: self._queue[0] is ticket and self._taken + size <= limit)
                finally:
                    self._queue.remove(ticket)
                    self._changed.notify_all()
            self._taken += size
        self._own.held = held + size
        try:
            yield
        finally:
            self._own.held = held
            with self._changed:
                self._taken -= size
                self._changed.notify_all()

    def held(self) -> int:
        """Return how many bytes the calling thread holds."""
        return int(getattr(self._own, "held", 0))


_purse = _Purse()


@contextmanager
def claim(what: str, size: int) -> Iterator[None]:
    """Take a share of the memory for reading, for as long as the block lasts; waits until other readers leave enough.

    A claim within a claim of the same thread adds to it and does not wait.

    Args:
        what: the file or series, for the message.
        size: bytes that reading takes at its peak, by what the file says of itself.

    Raises:
        SeriesError: more than the whole budget; says how to raise it.
        SettingsError: the environment variable is no number.
    """
    check_read(what, size)
    with _purse.hold(size, _limit(READ_VARIABLE, READ_MB)):
        yield


def check_read(what: str, size: int) -> None:
    """Refuse what ``claim`` would refuse, without taking it: while the size of something packed is being measured.

    Raises:
        SeriesError: more than the whole budget.
        SettingsError: the environment variable is no number.
    """
    _refuse_above(what, _purse.held() + size, _limit(READ_VARIABLE, READ_MB), READ_VARIABLE)


def check_volume(what: str, size: int) -> None:
    """Refuse a volume that no step could work on, before it is made.

    Args:
        what: the file or series, for the message.
        size: bytes of the voxels.

    Raises:
        SeriesError: above the limit; says how to raise it.
        SettingsError: the environment variable is no number.
    """
    _refuse_above(what, size, _limit(VOLUME_VARIABLE, VOLUME_MB), VOLUME_VARIABLE)


def _refuse_above(what: str, size: int, limit: int, variable: str) -> None:
    if size > limit:
        needed = -(-size // _MB)
        raise SeriesError(
            f"{what}: would take {needed} MB of memory or more, {limit // _MB} MB are allowed; if the file is not "
            f"damaged, set {variable} higher"
        )


def _limit(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default * _MB
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise SettingsError(f"{variable} is {text!r}; give a whole number of megabytes, 1 or more")
    return int(text) * _MB
