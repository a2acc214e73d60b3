"""What stands between the shards and a network that wants batches: shards fetched ahead of use, and a clock.

The clock says how long the network waited for batches, and what the threads that made them spent their time on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from boneseg.errors import BonesegError

log = logging.getLogger(__name__)

T = TypeVar("T")
FETCHERS = 4
"""Threads that fetch shards ahead of use; they wait for the store most of the time."""
FETCH, READ, AUGMENT = "fetch", "read", "augment"
"""What making a batch takes: bringing shards from the bucket, cutting and resampling slices, augmenting them."""


@dataclass
class Clock:
    """Where the time of one pass over batches went.

    Attributes:
        now: the time in seconds.
        images: how many came.
        waited: seconds that whoever asked for batches waited for them.
        passed: seconds from the first request to the end of the last step.
        spent: seconds of the threads that made the batches, by what they did; ``AUGMENT`` holds ``READ`` and
            ``READ`` holds ``FETCH``.
    """

    now: Callable[[], float] = time.perf_counter
    images: int = 0
    waited: float = 0.0
    passed: float = 0.0
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys((FETCH, READ, AUGMENT), 0.0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """Count the time of the block, in any thread, as spent so."""
        started = self.now()
        try:
            yield
        finally:
            taken = self.now() - started
            with self._lock:
                self.spent[kind] += taken

    def timed(self, batches: Iterator[T], images: Sequence[int], busy: Callable[[], bool]) -> Iterator[T]:
        """Yield batches and take the time that the caller waits for them.

        Args:
            batches: the batches.
            images: how many each of them has.
            busy: whether, now that a batch has come, the device still computes what it was given before: then it has
                not waited, however long its process did.
        """
        started = asked = self.now()
        for batch, count in zip(batches, images, strict=False):
            came = self.now()
            if not busy():
                self.waited += came - asked
            self.images += count
            yield batch
            asked = self.now()
            self.passed = asked - started

    @property
    def share(self) -> float:
        """Share of the time that went into waiting."""
        return self.waited / self.passed if self.passed > 0 else 0.0

    @property
    def slowest(self) -> str:
        """What took most of the time of the threads that made batches."""
        own = {
            FETCH: self.spent[FETCH],
            READ: self.spent[READ] - self.spent[FETCH],
            AUGMENT: self.spent[AUGMENT] - self.spent[READ],
        }
        return max(own, key=lambda kind: own[kind])


def fetched_ahead(
    batches: Iterator[T], wanted: Sequence[Sequence[int]], steps_ahead: int, fetch: Callable[[int], None]
) -> Iterator[T]:
    """Yield batches while threads bring what the next ones need into the cache.

    Args:
        batches: one a step.
        wanted: the numbers of the shards of each step.
        steps_ahead: how many steps the threads may be ahead of the batch that was asked for last.
        fetch: brings a shard into the cache. Where it fails the threads end: who opens the shard says why.
    """
    ahead = _Ahead(wanted, steps_ahead, fetch)
    for _ in range(FETCHERS):
        # Nobody waits for them: what they are fetching at the end may be hours away where the store is.
        threading.Thread(target=ahead.work, name="shards", daemon=True).start()
    try:
        for step, batch in enumerate(batches):
            ahead.reached(step + 1)
            yield batch
    finally:
        ahead.stop()


class _Ahead:
    """The next shards to fetch, handed to threads in the order of their use."""

    def __init__(self, wanted: Sequence[Sequence[int]], steps_ahead: int, fetch: Callable[[int], None]) -> None:
        self._fetch = fetch
        self._steps_ahead = steps_ahead
        self._uses = [(step, shard) for step, shards in enumerate(wanted) for shard in dict.fromkeys(shards)]
        self._next = self._step = 0
        self._last: dict[int, int] = {}  # shard -> step for which it was fetched
        self._changed = threading.Condition()
        self._stopped = False

    def reached(self, step: int) -> None:
        """Note which step's batch is asked for."""
        with self._changed:
            self._step = step
            self._changed.notify_all()

    def stop(self) -> None:
        """End the threads, each when what it fetches has come."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def work(self) -> None:
        """Fetch what comes next, until all is fetched or ``stop`` is called."""
        while (shard := self._take()) is not None:
            try:
                self._fetch(shard)
            except BonesegError as error:
                log.debug("nothing is fetched ahead of use any more: %s", error)
                self.stop()

    def _take(self) -> int | None:
        """Return the next shard to fetch, once it is near enough; none at the end."""
        with self._changed:
            while not self._stopped and self._next < len(self._uses):
                step, shard = self._uses[self._next]
                if step > self._step + self._steps_ahead:
                    self._changed.wait()
                    continue
                self._next += 1
                before = self._last.get(shard)
                self._last[shard] = step
                if before is None or before < self._step:  # else it was fetched for a batch that is still to come
                    return shard
            return None
