"""One prepared series in the bucket: ``image.npy``, ``label.npy`` and, written last, ``shard.json``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from boneseg.dataset.manifest import Dataset, ShardRecord
from boneseg.errors import DataError, RecordError, StoreError
from boneseg.geometry import Geometry
from boneseg.scheme import Labelling
from boneseg.storage import layout
from boneseg.storage.cache import Cache, CacheFullError
from boneseg.storage.catalogue import GeometryRecord, ObjectRef, SeriesRow
from boneseg.storage.hashing import sha256_array
from boneseg.storage.integrity import differs, is_intact
from boneseg.storage.workspace import Workspace

log = logging.getLogger(__name__)

_warned: set[Path] = set()
"""Caches of which it was said that their disk is full."""

IMAGE_FILE, LABEL_FILE, RECORD_FILE = "image.npy", "label.npy", "shard.json"


@dataclass(frozen=True)
class Shard:
    """A prepared series, memory-mapped: nothing is read before it is used."""

    record: ShardRecord
    image: NDArray[np.int16]
    """HU as (slice, row, column), axial order."""
    label: NDArray[np.uint8]
    """Label values, same shape."""
    in_memory: bool = False
    """Whether all of it is in memory, because the disk of the cache is full."""

    @property
    def size(self) -> int:
        """Bytes of both."""
        return self.image.nbytes + self.label.nbytes


def save_shard(
    workspace: Workspace,
    shard: str,
    row: SeriesRow,
    hu: NDArray[np.int16],
    label: NDArray[np.uint8],
    geometry: Geometry,
    outline_computed: bool = False,
    warnings: tuple[str, ...] = (),
    labelling: Labelling | None = None,
) -> ShardRecord:
    """Put a prepared series into the bucket; it counts as there once ``shard.json`` is.

    Args:
        workspace: the bucket, and a folder whose cache keeps the shard for who reads it here.
        shard: name of the shard.
        row: the series it was made from.
        hu: (slice, row, column) in axial order.
        label: values, same shape.
        geometry: of both.
        outline_computed: whether the outline is ours.
        warnings: what is odd about the series.
        labelling: what the values mean; none = the three classes.
    """
    labelling = labelling or Labelling()
    image_ref = _put(workspace, layout.shard(shard, IMAGE_FILE), hu)
    label_ref = _put(workspace, layout.shard(shard, LABEL_FILE), label)
    record = ShardRecord(
        shard=shard,
        series=row.series,
        source=row.source,
        patient=row.patient,
        study=row.study,
        geometry=GeometryRecord.of(geometry),
        hu_range=(int(hu.min()), int(hu.max())),
        class_counts=count_values(label, labelling.size),
        outline_computed=outline_computed,
        pixel_hash=sha256_array(hu),
        image=image_ref,
        label=label_ref,
        warnings=warnings,
        patient_by=row.patient_by,
        asked=row.asked,
        pixels=row.pixels,
        links=row.links,
        sets=labelling.sets,
    )
    workspace.store.write(layout.shard(shard, RECORD_FILE), record.to_json(), "application/json")
    return record


def find_shard(workspace: Workspace, shard: str) -> ShardRecord | None:
    """Return the record of a shard that is whole in the bucket, else none."""
    text = workspace.store.read_if_there(layout.shard(shard, RECORD_FILE))
    if text is None:
        return None
    try:
        place = workspace.store.uri(layout.shard(shard, RECORD_FILE))
        record = ShardRecord.read(text, place, "the shard is made anew")
    except RecordError as error:
        log.warning("%s", error)
        return None
    if record.shard == shard and all(
        is_intact(workspace.store, ref, workspace.folder) for ref in (record.image, record.label)
    ):
        return record
    log.warning("shard %s is damaged; it is made anew", shard)
    return None


def open_shard(workspace: Workspace, record: ShardRecord, make_room: Callable[[], None] = lambda: None) -> Shard:
    """Memory-map a shard through the local cache, which keeps it for as long as an array of it lives.

    Args:
        workspace: where the shard is.
        record: of the shard.
        make_room: called where the disk is full: lets go of shards that are not needed. Where that does not help the
            shard is read into memory.

    Raises:
        StoreError: the shard is not in the bucket any more, or is not what was written.
    """
    arrays, in_memory = [], False
    for ref in (record.image, record.label):
        try:
            file = _opened(workspace, record, ref, Cache.open)
        except CacheFullError:
            make_room()
            try:
                file = _opened(workspace, record, ref, Cache.open)
            except CacheFullError as error:
                _warn_of_full_disk(workspace.cache, error)
                file, in_memory = _opened(workspace, record, ref, Cache.open_in_memory), True
        try:
            arrays.append(_map(file))
        except (ValueError, EOFError) as error:
            raise _damaged(workspace, record) from error
    image, label = arrays
    if image.shape != record.geometry.shape or label.shape != image.shape:
        raise _damaged(workspace, record)
    return Shard(record, image, label, in_memory)


def fetch_shard(workspace: Workspace, record: ShardRecord) -> None:
    """Bring a shard into the local cache, for who opens it soon.

    Raises:
        StoreError: the shard is not in the bucket any more, is not what was written, or the disk is full.
    """
    for ref in (record.image, record.label):
        Cache(workspace.cache, workspace.store).fetch(ref)


def _opened(
    workspace: Workspace, record: ShardRecord, ref: ObjectRef, way: Callable[[Cache, ObjectRef], BinaryIO]
) -> BinaryIO:
    try:
        return way(Cache(workspace.cache, workspace.store), ref)
    except CacheFullError:
        raise
    except StoreError as error:
        item = workspace.store.stat(ref.key)  # raises where the store itself is at fault
        if (
            item is None
            or (item.size, item.etag) != (ref.size, ref.etag or item.etag)
            or differs(workspace.store, ref, workspace.folder)
        ):
            raise _damaged(workspace, record) from error
        raise


def _map(file: BinaryIO) -> NDArray[Any]:
    """Map an array out of a file that is then closed: the map alone keeps the lease of the cache."""
    with file:
        first = npy.read_magic(file) == (1, 0)
        shape, fortran, dtype = (npy.read_array_header_1_0 if first else npy.read_array_header_2_0)(file)
        return np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def _warn_of_full_disk(folder: Path, error: CacheFullError) -> None:
    if folder not in _warned:
        _warned.add(folder)
        log.warning("%s; until then series are read from the bucket into memory, which is slower", error)


def _damaged(workspace: Workspace, record: ShardRecord) -> StoreError:
    """Say so, and withdraw the record, so that prepare makes the shard again."""
    with suppress(StoreError):  # without the right to write, prepare finds out by itself where sizes differ
        workspace.store.delete(layout.shard(record.shard, RECORD_FILE))
    return StoreError(
        f"shard {record.shard} ({record.source}) is damaged or gone from the bucket; run 'boneseg prepare': it makes "
        "the shard again from the raw data"
    )


def _put(workspace: Workspace, key: str, array: NDArray[np.generic]) -> ObjectRef:
    """Store an array; the ETag that the store gave it tells later, without reading it, whether it is still the same."""
    ref = Cache(workspace.cache, workspace.store).put(key, partial(_write, array))
    item = workspace.store.stat(key)
    return ref if item is None else ref.model_copy(update={"etag": item.etag})


def load_dataset(workspace: Workspace, dataset_uri: str) -> Dataset:
    """Read a dataset's record.

    Raises:
        DataError: there is no dataset at this URI.
        RecordError: it is damaged, or was changed after it was written.
    """
    text = workspace.store.read_if_there(workspace.store.key(dataset_uri))
    if text is None:
        raise DataError(f"{dataset_uri} is not there; make the dataset with 'boneseg prepare'")
    remedy = "make the dataset again with 'boneseg prepare'"
    dataset = Dataset.read(text, dataset_uri, remedy)
    named = PurePosixPath(workspace.store.key(dataset_uri)).parent.name
    if not dataset.is_as_named or dataset.dataset_hash != named:
        raise RecordError(f"{dataset_uri} was changed after it was written; {remedy}")
    return dataset


def count_values(label: NDArray[np.uint8], size: int) -> tuple[tuple[int, ...], ...]:
    """Count the pixels of each value below ``size``, one row a slice."""
    return tuple(tuple(np.bincount(plane.ravel(), minlength=size).tolist()) for plane in label)


def _write(array: NDArray[np.generic], path: Path) -> None:
    # Not np.save: on a full disk it may cut the file short without a word.
    with path.open("wb") as file:
        npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)
