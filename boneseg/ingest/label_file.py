"""One label file as it is, in axial order: the only place that knows how each kind of label is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.dicom.segmentation import read_segmentation
from boneseg.dicom.segments import read_segment_names
from boneseg.errors import LabelError, SeriesError
from boneseg.geometry import Geometry, to_axial
from boneseg.ingest.anatomy import best_name
from boneseg.ingest.pictures import read_label_pictures
from boneseg.ingest.places import crop_of
from boneseg.ingest.rtstruct_regions import Wanted, read_regions
from boneseg.ingest.slicer_label import read_segments
from boneseg.ingest.volume_files import VolumeFile, open_volume
from boneseg.ingest.volumes import read_label
from boneseg.nifti import read_label_table
from boneseg.storage.catalogue import FileKind, LabelPart, LabelRow, ObjectRef

Fetch = Callable[[ObjectRef], Path]
"""Gives a raw object as a file: from a bucket through the cache, or from a local folder as it is."""


def local_file(item: ObjectRef) -> Path:
    """Return the file that an object of a local folder is: its key is its path."""
    return Path(item.key)


@dataclass(frozen=True, eq=False)
class Label:
    """A layer of a label file, in axial order.

    Attributes:
        values: (slice, row, column), whole numbers from 0.
        geometry: of the values.
        names: value -> name, where the file or a table says how its structures are called; none = it has values only.
        warnings: what is odd about the file, one sentence each; with its first layer.
    """

    values: NDArray[Any]
    geometry: Geometry
    names: Mapping[int, str] | None
    warnings: list[str]


def read_layers(
    fetch: Fetch, row: LabelRow | LabelPart, series: Geometry | None = None, wanted: Wanted | None = None
) -> list[Label]:
    """Read a label file as it is.

    Args:
        fetch: gives the raw object as a file.
        row: the label.
        series: geometry of the series as read, for a label whose voxels are taken in their order, whose grid is a part
            of the series', or which has none: contours.
        wanted: which regions of an RTSTRUCT are drawn, by name, for most of them are no bones; none = all.

    Returns:
        One label, and more where structures overlap: what stands first counts before what comes later. Regions of an
        RTSTRUCT are layered by ``regions.read_regions``, smaller ones first.

    Raises:
        LabelError: it is damaged or no label.
    """
    paths = {fetch(item): item.key for item in row.own_objects}
    with named(paths):
        if row.kind == FileKind.DICOM_SEG:
            return [_of_seg(next(iter(paths)))]
        if row.kind == FileKind.RTSTRUCT:
            return _regions(next(iter(paths)), series, wanted)
        volume = open_volume(list(paths)) if row.kind == FileKind.NRRD else None
        if volume is not None and volume.segments is not None:
            return [_on_grid(layer, series) for layer in _of_slicer(volume)]
        warnings: list[str] = []
        values: NDArray[Any]
        if row.kind == FileKind.PNG:
            # Slices without anything drawn may be one and the same file.
            values, geometry = read_label_pictures([fetch(item) for item in row.slices]), _place(row)
        else:
            values, geometry, warnings = read_label(*paths)
    if row.in_order and series is not None and values.shape == series.shape:
        geometry = series
    names: Mapping[int, str] | None = dict(row.names) if row.table else None
    if row.kind == FileKind.NIFTI and not row.table:
        table = read_label_table(next(iter(paths)))
        names = table if table.keys() >= set(np.unique(values).tolist()) - {0} else None
    axial_geometry, reorientation = to_axial(geometry)
    return [Label(reorientation.apply(values), axial_geometry, names or None, warnings)]


def _place(row: LabelRow | LabelPart) -> Geometry:
    if row.geometry is None:
        raise LabelError("it is not known where the pictures of this label lie; run 'boneseg pull' again")
    return row.geometry.geometry()


def _of_seg(path: Path) -> Label:
    values, geometry, _ = read_segmentation(path)
    names = {value: best_name(*texts) for value, texts in read_segment_names(path).items()}
    axial_geometry, reorientation = to_axial(geometry)
    return Label(reorientation.apply(values), axial_geometry, names, [])


def _of_slicer(volume: VolumeFile) -> list[Label]:
    axial_geometry, reorientation = to_axial(volume.geometry)
    layers: list[Label] = []
    for numbers, segments in read_segments(volume):
        names = {one.number: best_name(one.name, one.code) for one in segments}
        warnings = [] if layers else list(volume.warnings)
        layers.append(Label(reorientation.apply(numbers), axial_geometry, names, warnings))
    return layers


def _on_grid(label: Label, series: Geometry | None) -> Label:
    """Put what 3D Slicer cut to the voxels around the segments back on the whole grid: the rest is background."""
    own = None if series is None else to_axial(series)[0]
    place = None if own is None else crop_of(label.geometry, own)
    if own is None or place is None:
        return label
    whole = np.zeros(own.shape, dtype=label.values.dtype)
    whole[place.numbers, place.rows, place.columns] = label.values
    return replace(label, values=whole, geometry=own)


def _regions(path: Path, series: Geometry | None, wanted: Wanted | None) -> list[Label]:
    if series is None:
        raise LabelError(f"{path.name}: contours can only be drawn on a series; read them with one")
    layers = read_regions(path, series, wanted)
    geometry, reorientation = to_axial(series)
    return [
        Label(reorientation.apply(values), geometry, layers.names, [] if number else layers.warnings)
        for number, values in enumerate(layers.values)
    ]


@contextmanager
def named(paths: Mapping[Path, str]) -> Iterator[None]:
    """Let messages name the files as the user knows them, not as the cache calls them."""
    try:
        yield
    except (SeriesError, LabelError) as error:
        message = str(error)
        for path, key in paths.items():
            own = re.compile(rf"(?<!\w){re.escape(path.name)}(?!\w)")
            message = own.sub(PurePosixPath(key).name.replace("\\", r"\\"), message)
        raise type(error)(message) from error
