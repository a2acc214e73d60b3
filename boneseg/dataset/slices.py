"""Slices for a network: random crops near bone to train on, whole slices to validate on.

Nothing is loaded before it is used: shards are memory-mapped, batches are made one after the other by threads.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset

from boneseg.augment.base import Augmentation
from boneseg.augment.build import build_augmentation
from boneseg.dataset.feed import AUGMENT, FETCH, READ, Clock, fetched_ahead
from boneseg.dataset.manifest import ShardRecord
from boneseg.dataset.open_shards import OpenShards
from boneseg.dataset.preprocess import context, labels_to_network, resample
from boneseg.dataset.shards import Shard, fetch_shard
from boneseg.errors import DataError
from boneseg.geometry import Scalar
from boneseg.hu import AIR_HU, normalise
from boneseg.machine import cpu_share
from boneseg.scheme import Labelling
from boneseg.scheme.labelling import Table, take
from boneseg.settings.schema import PreprocessSettings, TrainSettings
from boneseg.storage.workspace import Workspace

LOADER_THREADS_MOST = 16
"""Of ``loader_threads: auto``."""
CPUS_A_LOADER_THREAD = 4
"""Where the CPUs train themselves: one thread prepares batches for so many of them."""

T = TypeVar("T")
Plane = NDArray[np.float32]
Mask = NDArray[np.uint8]


class Batch(NamedTuple):
    """What a training step or a validation step sees."""

    image: torch.Tensor
    """(N, slices, H, W) float32 within 0..1; the middle one is the slice that is labelled."""
    label: torch.Tensor
    """(N, H, W) uint8 label values; a loss wants ``.long()``, best after moving to the device."""


class Planes(NamedTuple):
    """A slice and its neighbours on the network's grid, not yet normalised."""

    hu: Plane
    """(slices, h, w) in HU."""
    label: Mask
    """(h, w), of the middle slice."""
    pixel_mm: float
    """Side of a pixel; the geometric mean where pixels are not square."""


class SliceDataset(TorchDataset[tuple[Plane, Mask]]):
    """All slices of some shards, as the network sees them: normalised, resampled if the settings say so.

    Args:
        workspace: where the shards are.
        records: the shards.
        preprocess: window and spacing.
        labelling: the values of the labels that come out; it has all sets of the shards.
    """

    def __init__(
        self,
        workspace: Workspace,
        records: Sequence[ShardRecord],
        preprocess: PreprocessSettings,
        labelling: Labelling | None = None,
    ) -> None:
        if not records:
            raise DataError("this split has no series; add patients, or change prepare.splits")
        self.records = tuple(records)
        self.preprocess = preprocess
        self.labelling = labelling or Labelling()
        self._tables = [self._table(record) for record in self.records]
        self._workspace = workspace
        self._shards = OpenShards(workspace, self.records)
        self.clock = Clock()
        """Where the time of the last pass over batches of these slices went."""
        counts = np.array([len(record.class_counts) for record in self.records])
        self.shard_of = np.repeat(np.arange(len(counts)), counts)
        self.slice_of = np.concatenate([np.arange(count) for count in counts])
        self.bone_pixels = self._pixels(self.labelling.bony)
        self.told_pixels = self._pixels(np.array(self.labelling.scheme.bones))

    def __len__(self) -> int:
        return len(self.shard_of)

    def __getitem__(self, index: int) -> tuple[Plane, Mask]:
        """Return a slice with its neighbours, (slices, h, w) within 0..1, and its label (h, w)."""
        planes = self.planes(index)
        return normalise(planes.hu, self.preprocess.window), planes.label

    def planes(self, index: int, slab_mm: float = 0.0) -> Planes:
        """Return a slice with its neighbours in HU.

        Args:
            index: which slice.
            slab_mm: each slice becomes the mean over this thickness, as if the scan had thick slices.
        """
        with self.clock.spending(READ):
            return self._planes(index, slab_mm)

    def feed(self, make: Callable[[int], Batch], slices: Sequence[NDArray[np.int64]], threads: int) -> Iterator[Batch]:
        """Yield a batch for each step, in order, made ahead by threads; its shards are fetched before.

        Args:
            make: makes the batch of a step.
            slices: which slices each step needs.
            threads: that make batches; 0 = the caller does.
        """
        clock = self.clock = Clock()

        def timed(step: int) -> Batch:
            with clock.spending(AUGMENT):
                return make(step)

        wanted = [self.shard_of[indices].tolist() for indices in slices]
        batches = ahead(timed, len(slices), threads)
        fetched = fetched_ahead(batches, wanted, self._shards.steps_ahead(wanted), self._fetch)
        return clock.timed(fetched, [len(shards) for shards in wanted], _gpu_is_busy)

    def _planes(self, index: int, slab_mm: float) -> Planes:
        shard = self._open(int(self.shard_of[index]))
        position = int(self.slice_of[index])
        spacing = shard.record.geometry.geometry().spacing
        centres = context(position, len(shard.image), spacing[0], self.preprocess)
        beside = max(0, round((slab_mm / spacing[0] - 1) / 2))
        slabs = (shard.image[max(0, centre - beside) : centre + beside + 1] for centre in centres)
        hu = np.stack([slab[0] if len(slab) == 1 else slab.mean(axis=0, dtype=np.float32) for slab in slabs])
        label = labels_to_network(shard.label[position : position + 1], spacing[1:], self.preprocess)[0]
        table = self._tables[int(self.shard_of[index])]
        if table is not None:
            label = take(table, label)
        area = spacing[1] * hu.shape[1] * spacing[2] * hu.shape[2] / label.size
        return Planes(resample(hu, spacing[1:], self.preprocess), np.asarray(label), math.sqrt(area))

    def __reduce__(self) -> tuple[type[SliceDataset], tuple[object, ...]]:
        # Open files do not cross a process border.
        return SliceDataset, (self._workspace, self.records, self.preprocess, self.labelling)

    @property
    def fits_cache(self) -> bool:
        """Whether the cache of this machine holds all of these series at once."""
        return self._shards.fit_cache

    def _table(self, record: ShardRecord) -> Table | None:
        """Return the table from a shard's own values to ours, where they differ."""
        own = Labelling(self.labelling.scheme, record.sets)
        return None if own.sets == self.labelling.sets[: len(own.sets)] else own.table_to(self.labelling)

    def _pixels(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return how many pixels of every slice have one of some values."""
        counts = [np.array(record.counts_in(self.labelling), dtype=np.int64) for record in self.records]
        return np.concatenate([each[:, values].sum(axis=1) for each in counts])

    def _open(self, number: int) -> Shard:
        if number in self._shards:
            return self._shards.get(number)
        with self.clock.spending(FETCH):
            return self._shards.get(number)

    def _fetch(self, number: int) -> None:
        if number not in self._shards:
            fetch_shard(self._workspace, self.records[number])


class TrainingBatches:
    """Batches of random crops; iterating over ``epoch(n)`` gives one epoch.

    What crop ``i`` of an epoch looks like depends on seed, epoch and ``i`` alone, and so does the step that it belongs
    to: not on threads, nor on how many workers share a step's batch, of which each gets a part without gaps.

    Args:
        slices: training slices.
        settings: crop, batch size, share of bone, augmentation, seed, threads.
        rank: number of this worker.
        world: how many workers share a batch; at most ``batch_size``.
    """

    def __init__(self, slices: SliceDataset, settings: TrainSettings, rank: int = 0, world: int = 1) -> None:
        self.slices = slices
        self.settings = settings
        self.rank = rank
        self.world = world
        self._is_bone = np.isin(np.arange(slices.labelling.size), slices.labelling.bony)
        self._bony = np.flatnonzero(slices.bone_pixels)
        self._told = np.flatnonzero(slices.told_pixels)
        self._local = threading.local()

    @property
    def steps(self) -> int:
        """Batches an epoch, the same for every worker."""
        return self.settings.steps_per_epoch or math.ceil(len(self.slices) / self.settings.batch_size)

    def __len__(self) -> int:
        return self.steps

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """Yield this worker's part of the batches from step ``first`` on, made ahead by ``loader_threads`` threads."""
        plan, near_bone = self._plan(number)
        size = self.settings.batch_size
        own = shares(size, self.world)[self.rank]

        def chosen(number_ahead: int) -> range:
            start = (first + number_ahead) * size
            return range(start + own.start, start + own.stop)

        def make(number_ahead: int) -> Batch:
            crops = chosen(number_ahead)
            return collate([self.crop(number, index, int(plan[index]), bool(near_bone[index])) for index in crops])

        slices = [plan[chosen(number_ahead)] for number_ahead in range(self.steps - first)]
        return self.slices.feed(make, slices, loader_threads(self.settings))

    def crop(self, epoch: int, index: int, slice_index: int, near_bone: bool) -> tuple[Plane, Mask]:
        """Cut and augment one crop.

        Args:
            epoch: number of the epoch.
            index: number of the crop in it.
            slice_index: from which slice.
            near_bone: whether to centre it near a bone pixel.

        Returns:
            Image (slices, crop, crop) and label (crop, crop).
        """
        augmentation = self._augmentation()
        rng = np.random.default_rng((self.settings.seed, epoch, index))
        hu, label, pixel_mm = self.slices.planes(slice_index, augmentation.slab_mm(rng))
        centre = self._centre(label, near_bone, rng)
        corner = (centre[0] - augmentation.window // 2, centre[1] - augmentation.window // 2)
        size = (augmentation.window, augmentation.window)
        return augmentation(cut(hu, corner, size, AIR_HU), cut(label, corner, size), pixel_mm, int(rng.integers(2**31)))

    def _plan(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Choose a slice for each crop of an epoch.

        ``bone_share`` of the crops show slices with bone, the others any slice; each of the two kinds is gone through
        from end to end, in random order, before a slice comes again. Where bones are told apart in too few of the
        slices with bone, ``told_share`` of those crops show them first: what the others hold cannot be placed before
        the network knows bone from bone.
        """
        rng = np.random.default_rng((self.settings.seed, epoch))
        total = self.steps * self.settings.batch_size
        bone = round(total * self.settings.bone_share) if len(self._bony) else 0
        told = 0
        if 0 < len(self._told) < self.settings.told_share * len(self._bony):
            told = round(bone * self.settings.told_share)
        parts = [(self._told, told), (np.setdiff1d(self._bony, self._told) if told else self._bony, bone - told)]
        parts.append((np.arange(len(self.slices)), total - bone))
        chosen = np.concatenate([_repeat_shuffled(slices, count, rng) for slices, count in parts])
        order = rng.permutation(total)
        return chosen[order], order < bone

    def _centre(self, label: Mask, near_bone: bool, rng: np.random.Generator) -> tuple[int, int]:
        crop = self.settings.crop
        if near_bone:
            rows, columns = np.nonzero(self._is_bone[label])
            if len(rows):
                pick = int(rng.integers(len(rows)))
                jitter = rng.integers(-crop // 4, crop // 4 + 1, size=2)
                return _inside(int(rows[pick] + jitter[0]), int(columns[pick] + jitter[1]), label.shape, crop)
        return _inside(int(rng.integers(label.shape[0])), int(rng.integers(label.shape[1])), label.shape, crop)

    def _augmentation(self) -> Augmentation:
        # Augmentation holds random state, so each thread has its own.
        if not hasattr(self._local, "augmentation"):
            self._local.augmentation = build_augmentation(
                self.settings.augmentation, self.settings.crop, self.slices.preprocess, self.slices.labelling
            )
        augmentation: Augmentation = self._local.augmentation
        return augmentation


class ValidationBatches:
    """Batches of whole slices, not padded, so that a pixel counts only where there is one; a batch is of one series.

    Args:
        slices: validation slices.
        batch_size: slices a batch; the last one of a series may be smaller.
        threads: that prepare batches ahead.
        limit: most slices to use, spread evenly over all; none = all.
        rank: number of this worker.
        world: how many workers share the slices.
        at_once: most slices of a batch that a worker computes at once; none = all.
    """

    def __init__(
        self,
        slices: SliceDataset,
        batch_size: int,
        threads: int = 1,
        limit: int | None = None,
        rank: int = 0,
        world: int = 1,
        at_once: int | None = None,
    ) -> None:
        self.slices = slices
        self.threads = threads
        self.at_once = at_once or batch_size
        used = np.arange(len(slices))
        if limit is not None and limit < len(used):
            used = np.linspace(0, len(used) - 1, limit).round().astype(int)
        by_series = [used[slices.shard_of[used] == shard] for shard in range(len(slices.records))]
        batches = [part[i : i + batch_size] for part in by_series for i in range(0, len(part), batch_size)]
        self._batches = batches[rank::world]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return self.slices.feed(self._make, self._batches, self.threads)

    def _make(self, step: int) -> Batch:
        return collate([self.slices[int(index)] for index in self._batches[step]])


def shares(count: int, parts: int) -> list[range]:
    """Divide ``count`` things, in order, among so many that the first ones have at most one more than the last."""
    ends = [part * (count // parts) + min(part, count % parts) for part in range(parts + 1)]
    return [range(start, end) for start, end in pairwise(ends)]


def loader_threads(settings: TrainSettings) -> int:
    """Return how many threads prepare batches ahead: as the settings say, or as many as this process's CPUs suggest.

    Beside a GPU all CPUs but one, which launches its work; where the CPUs train themselves, few.
    """
    if settings.loader_threads != "auto":
        return settings.loader_threads
    beside_gpu = settings.device != "cpu" and torch.cuda.is_available()
    wanted = cpu_share() - 1 if beside_gpu else cpu_share() // CPUS_A_LOADER_THREAD
    return min(max(1, wanted), LOADER_THREADS_MOST)


def _gpu_is_busy() -> bool:
    """Say whether the GPU has not yet computed all that this thread gave it."""
    return torch.cuda.is_available() and not torch.cuda.current_stream().query()


def collate(samples: Sequence[tuple[Plane, Mask]]) -> Batch:
    """Stack samples of one size."""
    image = np.stack([image for image, _ in samples])
    label = np.stack([label for _, label in samples])
    return Batch(torch.from_numpy(image), torch.from_numpy(label))


def cut(planes: NDArray[Scalar], corner: tuple[int, int], size: tuple[int, int], outside: float = 0) -> NDArray[Scalar]:
    """Cut a rectangle out of the last two axes; where it reaches over the edge it holds ``outside``."""
    top, left = corner
    bottom, right = top + size[0], left + size[1]
    inner = planes[..., max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inner.shape[-2:] == size:
        return inner
    out = np.full((*planes.shape[:-2], *size), outside, dtype=planes.dtype)
    row, column = max(-top, 0), max(-left, 0)
    out[..., row : row + inner.shape[-2], column : column + inner.shape[-1]] = inner
    return out


def ahead(make: Callable[[int], T], count: int, threads: int) -> Iterator[T]:
    """Yield ``make(0)`` to ``make(count - 1)`` in order, made by threads while the caller computes.

    Threads suffice: numpy, OpenCV and the page cache work without the interpreter's lock. At most ``threads + 1``
    batches wait at a time.
    """
    if threads == 0:
        yield from (make(step) for step in range(count))
        return
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        try:
            for step in range(count):
                waiting.append(pool.submit(make, step))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _repeat_shuffled(values: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    rounds = [rng.permutation(values) for _ in range(math.ceil(count / max(len(values), 1)))]
    return np.concatenate(rounds)[:count] if rounds else np.empty(0, dtype=np.int64)


def _inside(row: int, column: int, shape: tuple[int, ...], crop: int) -> tuple[int, int]:
    """Move a crop's centre so that the crop lies within the slice; a slice smaller than the crop is centred."""
    result = []
    for value, size in ((row, shape[0]), (column, shape[1])):
        low, high = crop // 2, size - crop // 2
        result.append(size // 2 if low > high else min(max(value, low), high))
    return result[0], result[1]
