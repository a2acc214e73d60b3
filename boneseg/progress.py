"""Progress a person can follow: a bar on a terminal, lines in a log."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[T], what: str, total: int | None = None, unit: str = "series") -> Iterator[T]:
    """Yield ``items`` while showing how far the work is.

    Args:
        items: what is worked on.
        what: one word for the work, for example ``"prepare"``.
        total: how many items; taken from ``len(items)`` where it has one.
        unit: what one item is.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, total=total, unit=f" {unit}", leave=False, dynamic_ncols=True)
        return
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES or done == total:
            last = time.monotonic()
            log.info("%s: %d%s %s", what, done, f" of {total}" if total is not None else "", unit)
