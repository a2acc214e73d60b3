"""A small dataset in a bucket, for what trains: round patients with round bones."""

from __future__ import annotations

import numpy as np

from boneseg.dataset.manifest import Dataset, DatasetEntry
from boneseg.dataset.shards import save_shard
from boneseg.geometry import axial
from boneseg.models.card import EpochRecord
from boneseg.settings.schema import Split
from boneseg.storage import layout
from boneseg.storage.catalogue import FileKind, GeometryRecord, SeriesRow
from boneseg.storage.workspace import Workspace


def put_dataset(workspace: Workspace, seed: int = 0, slices: int = 4, size: int = 96) -> str:
    """Store two training series and one validation series; return the dataset's URI."""
    rng = np.random.default_rng(seed)
    geometry = axial((slices, size, size), (3.0, 1.0, 1.0))
    entries = []
    for number, split in enumerate((Split.TRAIN, Split.TRAIN, Split.VALIDATION)):
        name = f"{seed}-{number}"
        hu, label = make_patient(rng, slices, size)
        row = SeriesRow(
            series=name,
            source=name,
            kind=FileKind.NIFTI,
            objects=(),
            patient=name,
            study=name,
            modality="CT",
            geometry=GeometryRecord.of(geometry),
            hu_range=(int(hu.min()), int(hu.max())),
            label=None,
        )
        shard = save_shard(workspace, name, row, hu, label, geometry)
        entries.append(DatasetEntry(split=split, shard=shard))
    dataset = Dataset.made_of("f", tuple(entries), ())
    return workspace.store.write(layout.dataset(dataset.dataset_hash), dataset.to_json())


def make_patient(
    rng: np.random.Generator, slices: int, size: int
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int16]], np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """Return HU and label of a body with a bone at a random place."""
    rows, columns = np.mgrid[:size, :size]
    body = np.hypot(rows - size / 2, columns - size / 2) < size * 0.4
    row, column = rng.uniform(size * 0.4, size * 0.6, 2)
    bone = np.hypot(rows - row, columns - column) < size * 0.15
    label = np.broadcast_to(body.astype(np.uint8) + (body & bone), (slices, size, size)).astype(np.uint8)
    hu = np.array([-1000, 40, 500])[label] + rng.normal(0, 30, label.shape)
    return hu.astype(np.int16), label


def without_time(record: EpochRecord) -> EpochRecord:
    """Return an epoch without what differs from one computer, and from one time, to another."""
    timed = dict.fromkeys(("images_per_second", "waiting", "memory_bytes", "gpu_memory_bytes"))
    return record.model_copy(update={"seconds": 0.0, "waiting_hint": "", **timed})
