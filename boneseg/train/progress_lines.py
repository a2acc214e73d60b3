"""What a person reads of a training run: one line an epoch, and a warning where it waits for data."""

from __future__ import annotations

import logging

from boneseg.models.card import EpochRecord
from boneseg.progress import in_words

log = logging.getLogger(__name__)

_GB = 2**30
_RECENT = 5
"""Epochs from whose seconds the time to go is told."""


class EpochLines:
    """Writes the log of one run.

    Args:
        epochs: how many the run has at most.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._seconds: list[float] = []
        self._hint = ""

    def __call__(self, record: EpochRecord) -> None:
        """Write one line on an epoch."""
        self._seconds.append(record.seconds)
        log.info(
            "epoch %d of %d: loss %.4f, validation loss %.4f, mean IoU %.4f, bone Dice %.4f (%s)",
            record.epoch,
            self.epochs,
            record.train_loss,
            record.validation_loss,
            record.validation_mean_iou,
            record.bone_dice,
            ", ".join(self._cost(record)),
        )
        if record.waiting_hint and record.waiting_hint != self._hint:
            log.warning(
                "epoch %d: %.0f %% of the time of training steps went into waiting for data: %s",
                record.epoch,
                100 * (record.waiting or 0),
                record.waiting_hint,
            )
        self._hint = record.waiting_hint

    def _cost(self, record: EpochRecord) -> list[str]:
        cost = [f"{record.seconds:.0f} s"]
        if record.images_per_second is not None:
            cost.append(f"{record.images_per_second:.3g} images/s")
        if record.waiting is not None:
            cost.append(f"{record.waiting:.0%} waiting for data")
        if record.memory_bytes is not None:
            cost.append(f"{record.memory_bytes / _GB:.1f} GB memory")
        if record.gpu_memory_bytes is not None:
            cost.append(f"{record.gpu_memory_bytes / _GB:.1f} GB of the GPU's")
        recent = self._seconds[-_RECENT:]
        if record.epoch < self.epochs:
            cost.append(f"{in_words((self.epochs - record.epoch) * sum(recent) / len(recent))} to go")
        return cost
