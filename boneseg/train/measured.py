"""How fast an epoch trained, whether it waited for data, and what memory it took."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from boneseg.dataset.feed import AUGMENT, FETCH
from boneseg.dataset.slices import TrainingBatches, loader_threads
from boneseg.machine import cpu_share, resident_bytes
from boneseg.models.card import EpochRecord
from boneseg.settings.schema import TrainSettings
from boneseg.train.process_group import ProcessGroup

MUCH_WAITING = 0.05
"""Share of waiting from which on something should be done about it."""
LEAST_SECONDS = 1.0
"""Of waiting in an epoch, below which its share says nothing: the first batch of any epoch is waited for."""


@dataclass(frozen=True)
class Measured:
    """What all processes of a group measured in one epoch; fields as in ``EpochRecord``."""

    images_per_second: float
    waiting: float
    waiting_hint: str
    memory_bytes: int | None
    gpu_memory_bytes: int | None

    def added_to(self, record: EpochRecord) -> EpochRecord:
        """Return the record of the epoch with this in it."""
        return record.model_copy(update=vars(self))


def measure(batches: TrainingBatches, device: torch.device, group: ProcessGroup) -> Measured:
    """Return what the last pass over training batches measured, the same in every process."""
    clock = batches.slices.clock
    much = clock.share >= MUCH_WAITING and clock.waited >= LEAST_SECONDS
    hint = _hint(clock.slowest, batches.settings, batches.slices.fits_cache) if much else ""
    on_gpu = device.type == "cuda"
    gpu = torch.cuda.max_memory_allocated(device) if on_gpu else None
    everyone = group.all_gather((clock.images, clock.passed, clock.share, hint, resident_bytes(), gpu))
    images, passed, shares, hints, memory, gpus = zip(*everyone, strict=True)
    slowest = shares.index(max(shares))
    return Measured(
        images_per_second=sum(images) / max(passed) if max(passed) else 0.0,
        waiting=shares[slowest],
        waiting_hint=hints[slowest],
        memory_bytes=_most(memory),
        gpu_memory_bytes=_most(gpus),
    )


def _most(values: tuple[int | None, ...]) -> int | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None


def _hint(slowest: str, settings: TrainSettings, fits_cache: bool) -> str:
    """Name the setting that helps where making batches is too slow for the network."""
    if slowest == FETCH:
        if fits_cache:
            return "series came from the bucket; later epochs find them in the cache"
        return "the series do not all fit into the cache of this machine: set BONESEG_CACHE_GB higher"
    threads, own = loader_threads(settings), cpu_share()
    if threads < own:
        return f"set train.loader_threads higher (now {threads}, this process has {own} CPUs)"
    if slowest == AUGMENT and settings.augmentation in ("ct", "paper"):
        return (
            f"give each worker more CPUs (now {own}), or set train.augmentation to basic (now {settings.augmentation})"
        )
    return f"give each worker more CPUs (now {own})"
