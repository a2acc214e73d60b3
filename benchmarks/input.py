"""Speed of what feeds a network: ``python -m benchmarks.input``.

Images a second of the default crop that training gets from shards in the local cache with no network behind it, on one
core and on two, for each augmentation; beside it a torch ``DataLoader`` with that many worker processes that makes the
same crops, slice by slice, and sends them to this process. A ratio above 1 = ours is faster.

Each number is the median of some rounds, ours and the DataLoader's in turns. This process is pinned to the cores;
the machine must be idle for times by the clock to say something.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from boneseg.dataset.shards import save_shard
from boneseg.dataset.slices import Mask, Plane, SliceDataset, TrainingBatches
from boneseg.phantom.series import make_phantom
from boneseg.settings.schema import PreprocessSettings, TrainSettings
from boneseg.storage import embedded
from boneseg.storage.catalogue import FileKind, GeometryRecord, SeriesRow
from boneseg.storage.client import ObjectStore
from boneseg.storage.workspace import Workspace

AUGMENTATIONS = ("none", "ct", "paper")
SERIES, SLICES, SIZE, PIXEL_MM = 3, 48, 512, 0.9


@dataclass
class Crops(TorchDataset[tuple[Plane, Mask]]):
    """The crops of one epoch, one by one, as a DataLoader wants them."""

    batches: TrainingBatches
    epoch: int

    def __post_init__(self) -> None:
        self.plan, self.near_bone = self.batches._plan(self.epoch)

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> tuple[Plane, Mask]:
        return self.batches.crop(self.epoch, index, int(self.plan[index]), bool(self.near_bone[index]))


def put_series(workspace: Workspace) -> SliceDataset:
    records = []
    for number in range(SERIES):
        phantom = make_phantom(number, SLICES, SIZE, (3.0, PIXEL_MM, PIXEL_MM))
        name = f"phantom-{number}"
        row = SeriesRow(
            series=name,
            source=name,
            kind=FileKind.NIFTI,
            objects=(),
            patient=name,
            study=name,
            modality="CT",
            geometry=GeometryRecord.of(phantom.geometry),
            hu_range=(int(phantom.hu.min()), int(phantom.hu.max())),
            label=None,
        )
        records.append(save_shard(workspace, name, row, phantom.hu, phantom.label, phantom.geometry))
    return SliceDataset(workspace, records, PreprocessSettings())


def ours(slices: SliceDataset, settings: TrainSettings) -> Iterator[torch.Tensor]:
    """Yield images of batches as the training loop gets them."""
    for batch in TrainingBatches(slices, settings).epoch(1):
        yield batch.image


def theirs(slices: SliceDataset, settings: TrainSettings, processes: int) -> Iterator[torch.Tensor]:
    crops = Crops(TrainingBatches(slices, settings), 1)
    loader = DataLoader(crops, settings.batch_size, num_workers=processes, multiprocessing_context="fork")
    for image, _ in loader:
        yield image


def images_per_second(batches: Callable[[], Iterator[torch.Tensor]]) -> float:
    """Return images a second from the first batch to the last: how long processes take to start plays no part."""
    images, started = 0, 0.0
    for image in batches():
        if started:
            images += len(image)
        else:
            started = time.perf_counter()
    return images / (time.perf_counter() - started)


def measure(slices: SliceDataset, augmentation: str, cores: int, steps: int, rounds: int) -> tuple[float, float]:
    """Return images a second, ours and the DataLoader's."""
    settings = TrainSettings(augmentation=augmentation, steps_per_epoch=steps, loader_threads=cores)  # type: ignore[arg-type]
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    pairs = [
        (
            images_per_second(lambda: ours(slices, settings)),
            images_per_second(lambda: theirs(slices, settings, cores)),
        )
        for _ in range(rounds)
    ]
    return median(own for own, _ in pairs), median(other for _, other in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="batches of 8 a round")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    allowed = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        state = embedded.start(place)
        try:
            store = ObjectStore(state.endpoint, "input", embedded.credentials(place))
            store.ensure_bucket()
            slices = put_series(Workspace(store, place / "work"))
            for index in range(0, len(slices), SLICES):
                slices[index]  # hashed and mapped now, so that it is not part of the first round
        finally:
            embedded.stop(place)  # nothing is asked of it any more
        print(f"{'augmentation':14}{'cores':>6}{'images/s':>10}{'DataLoader':>12}{'ratio':>8}")
        for augmentation in AUGMENTATIONS:
            for cores in (1, 2):
                if cores > len(allowed):
                    continue
                os.sched_setaffinity(0, allowed)
                own, other = measure(slices, augmentation, cores, chosen.steps, chosen.rounds)
                print(f"{augmentation:14}{cores:6d}{own:10.0f}{other:12.0f}{own / other:8.2f}", flush=True)


if __name__ == "__main__":
    main()
