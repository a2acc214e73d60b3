"""How a step's batch is divided: among processes, and within each into what it computes at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from boneseg.dataset.slices import Batch, shares
from boneseg.settings.schema import TrainSettings
from boneseg.train.one_batch import Rows
from boneseg.train.process_group import ProcessGroup


@dataclass(frozen=True)
class Piece:
    """What one process computes at once."""

    batch: Batch
    rows: Rows
    """Where it stands among what all processes compute at once."""


def most_at_once(settings: TrainSettings, workers: int) -> int:
    """Return the most slices that one of so many processes computes at once."""
    return math.ceil(math.ceil(settings.batch_size / workers) / rounds(settings, workers))


def rounds(settings: TrainSettings, workers: int) -> int:
    """Return in how many pieces each of so many processes computes its share of a batch."""
    share = math.ceil(settings.batch_size / workers)
    return math.ceil(share / (settings.micro_batch or share))


def fewest_together(settings: TrainSettings) -> int:
    """Return the fewest slices that all workers compute at once, and that batch normalisation sees."""
    found = settings.batch_size
    for workers in {min(most, settings.batch_size) for most in settings.workers_range}:
        count = rounds(settings, workers)
        parts = [shares(len(share), count) for share in shares(settings.batch_size, workers)]
        found = min(found, *(sum(len(part[number]) for part in parts) for number in range(count)))
    return found


def pieces(batch: Batch, settings: TrainSettings, group: ProcessGroup) -> Iterator[Piece]:
    """Divide a process's share of a batch; all processes get the same number of pieces.

    Where one has fewer slices than others have pieces, it computes its last slice again, which then does not count.
    """
    count = rounds(settings, group.size)
    parts = [shares(len(share), count) for share in shares(settings.batch_size, group.size)]
    for number in range(count):
        sizes = [len(part[number]) for part in parts]
        own = parts[group.rank][number]
        chosen = slice(own.start, own.stop) if own else slice(len(batch.label) - 1, None)
        rows = Rows(sum(sizes[: group.rank]), len(own), sum(sizes))
        yield Piece(Batch(batch.image[chosen], batch.label[chosen]), rows)
