"""Who hears of a training run while it runs, beside the one who started it: none of them can stop or harm it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from boneseg.models.card import EpochRecord
from boneseg.train.task import Report, Task

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Hears of one training run after the other. It returns at once: what takes long it does in a thread of its own."""

    def begin(self, task: Task) -> None:
        """Hear that a run starts, or goes on."""

    def epoch(self, record: EpochRecord) -> None:
        """Hear of an epoch; of those before an interruption too, first and in order."""

    def end(self, finished: bool) -> None:
        """Hear that the run is over, whether it came to its end or was stopped."""


@contextmanager
def heard_by(listeners: Sequence[Listener], task: Task, report: Report) -> Iterator[Report]:
    """Yield a report that goes to listeners too; one of them that fails is named in the log and asked no more."""
    asked = list(listeners)

    def tell(what: Callable[[Listener], None]) -> None:
        for listener in tuple(asked):
            try:
                what(listener)
            except Exception as error:  # whatever it is, it is not the training that fails
                asked.remove(listener)
                log.warning("%s hears no more of run %s (%s)", type(listener).__name__, task.run, error)

    def heard(record: EpochRecord) -> None:
        report(record)
        tell(lambda listener: listener.epoch(record))

    tell(lambda listener: listener.begin(task))
    finished = False
    try:
        yield heard
        finished = True
    finally:
        tell(lambda listener: listener.end(finished))
