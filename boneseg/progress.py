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
_MINUTE, _HOUR = 60, 3600


def track(
    items: Iterable[T], what: str, total: int | None = None, unit: str = "series", images: int | None = None
) -> Iterator[T]:
    """Yield ``items`` while showing how far the work is, and how long the rest will take.

    Args:
        items: what is worked on.
        what: one word for the work, for example ``"prepare"``.
        total: how many items; taken from ``len(items)`` where it has one.
        unit: what one item is.
        images: how many images an item has, where their number a second is of interest.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from _bar(items, what, total, unit, images)
        return
    started = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or done == total:
            last = now
            told = [f"{done}{f' of {total}' if total is not None else ''} {unit}"]
            if images is not None and now > started:
                told.append(f"{done * images / (now - started):.3g} images/s")
            if total is not None and done < total:
                told.append(f"{in_words((now - started) / done * (total - done))} to go")
            log.info("%s: %s", what, ", ".join(told))


def _bar(items: Iterable[T], what: str, total: int | None, unit: str, images: int | None) -> Iterator[T]:
    with tqdm(items, desc=what, total=total, unit=f" {unit}", leave=False, dynamic_ncols=True) as bar:
        for item in bar:
            yield item
            rate = bar.format_dict["rate"]
            if images is not None and rate:
                bar.set_postfix_str(f"{rate * images:.3g} images/s", refresh=False)


def in_words(seconds: float) -> str:
    """Return how long something takes, as a person says it: ``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 1.5 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 1.5 * _HOUR else f"{seconds / _HOUR:.1f} h"
