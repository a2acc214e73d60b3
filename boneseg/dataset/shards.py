"""One prepared series in the bucket: ``image.npy``, ``label.npy`` and, written last, ``shard.json``."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boneseg.config import CLASSES
from boneseg.dataset.manifest import Dataset, ShardRecord
from boneseg.errors import DataError, StoreError
from boneseg.geometry import Geometry
from boneseg.storage import layout
from boneseg.storage.cache import Cache
from boneseg.storage.catalogue import GeometryRecord, ObjectRef, SeriesRow
from boneseg.storage.hashing import sha256_array, sha256_file
from boneseg.storage.workspace import Workspace

IMAGE_FILE, LABEL_FILE, RECORD_FILE = "image.npy", "label.npy", "shard.json"


@dataclass(frozen=True)
class Shard:
    """A prepared series, memory-mapped: nothing is read before it is used."""

    record: ShardRecord
    image: NDArray[np.int16]
    """HU as (slice, row, column), axial order."""
    label: NDArray[np.uint8]
    """Classes, same shape."""


def save_shard(
    workspace: Workspace,
    shard: str,
    row: SeriesRow,
    hu: NDArray[np.int16],
    label: NDArray[np.uint8],
    geometry: Geometry,
    outline_computed: bool = False,
    warnings: tuple[str, ...] = (),
) -> ShardRecord:
    """Put a prepared series into the bucket; it counts as there once ``shard.json`` is.

    Args:
        workspace: the bucket, and a folder with room for one series.
        shard: name of the shard.
        row: the series it was made from.
        hu: (slice, row, column) in axial order.
        label: classes, same shape.
        geometry: of both.
        outline_computed: whether the outline is ours.
        warnings: what is odd about the series.
    """
    workspace.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="shard-", dir=workspace.folder) as folder:
        image_ref = _upload(workspace, hu, Path(folder) / IMAGE_FILE, layout.shard(shard, IMAGE_FILE))
        label_ref = _upload(workspace, label, Path(folder) / LABEL_FILE, layout.shard(shard, LABEL_FILE))
    record = ShardRecord(
        shard=shard,
        series=row.series,
        source=row.source,
        patient=row.patient,
        study=row.study,
        geometry=GeometryRecord.of(geometry),
        hu_range=(int(hu.min()), int(hu.max())),
        class_counts=count_classes(label),
        outline_computed=outline_computed,
        pixel_hash=sha256_array(hu),
        image=image_ref,
        label=label_ref,
        warnings=warnings,
    )
    workspace.store.write(layout.shard(shard, RECORD_FILE), record.to_json(), "application/json")
    return record


def find_shard(workspace: Workspace, shard: str) -> ShardRecord | None:
    """Return the record of a shard that is whole in the bucket, else none."""
    text = workspace.store.read_if_there(layout.shard(shard, RECORD_FILE))
    return None if text is None else ShardRecord.model_validate_json(text)


def open_shard(workspace: Workspace, record: ShardRecord) -> Shard:
    """Memory-map a shard through the local cache.

    Raises:
        StoreError: the shard is not in the bucket any more, or is not what was written.
    """
    cache = Cache(workspace.cache, workspace.store)
    image = np.load(cache.fetch(record.image), mmap_mode="r")
    label = np.load(cache.fetch(record.label), mmap_mode="r")
    if image.shape != record.geometry.shape or label.shape != image.shape:
        raise StoreError(f"shard {record.shard} ({record.source}) is damaged; delete it from the bucket, prepare again")
    return Shard(record, image, label)


def load_dataset(workspace: Workspace, dataset_uri: str) -> Dataset:
    """Read a dataset's record.

    Raises:
        DataError: there is no dataset at this URI.
    """
    text = workspace.store.read_if_there(workspace.store.key(dataset_uri))
    if text is None:
        raise DataError(f"{dataset_uri} is not there; make the dataset with 'boneseg prepare'")
    return Dataset.model_validate_json(text)


def count_classes(label: NDArray[np.uint8]) -> tuple[tuple[int, int, int], ...]:
    """Count the pixels of each class, one row a slice."""
    rows = [np.bincount(plane.ravel(), minlength=len(CLASSES)) for plane in label]
    return tuple((int(row[0]), int(row[1]), int(row[2])) for row in rows)


def _upload(workspace: Workspace, array: NDArray[np.generic], path: Path, key: str) -> ObjectRef:
    try:
        np.save(path, array, allow_pickle=False)
    except OSError as error:
        raise StoreError(f"{path.parent}: cannot write a shard ({error.strerror}); free some space there") from error
    workspace.store.upload(path, key)
    return ObjectRef(key=key, size=path.stat().st_size, etag="", sha256=sha256_file(path))
