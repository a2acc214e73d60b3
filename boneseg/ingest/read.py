"""One labelled series: read, checked, and brought into axial order with its classes. Prepare and evaluate share it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.dicom.segmentation import read_segmentation
from boneseg.dicom.segments import read_segment_names
from boneseg.dicom.series import read_series
from boneseg.errors import LabelError, SeriesError
from boneseg.geometry import Geometry, Reorientation, to_axial
from boneseg.ingest.anatomy import best_name
from boneseg.ingest.checks import check_hu, check_label, check_values
from boneseg.ingest.classes import covered_slices, describe_names, part_classes, require_bone, to_classes
from boneseg.ingest.outline import patient_outline
from boneseg.ingest.volumes import read_hu, read_label
from boneseg.nifti_header import shear_degrees
from boneseg.scheme import OUTLINE
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.catalogue import FileKind, LabelPart, LabelRow, ObjectRef, SeriesRow

Fetch = Callable[[ObjectRef], Path]
"""Gives a raw object as a file: from a bucket through the cache, or from a local folder as it is."""


def local_file(item: ObjectRef) -> Path:
    """Return the file that an object of a local folder is: its key is its path."""
    return Path(item.key)


@dataclass(frozen=True, eq=False)
class LabelledSeries:
    """A series that can be trained on or measured against.

    Attributes:
        hu: (slice, row, column), axial order, contiguous.
        label: classes, same shape.
        geometry: of both; covers the slices that the label covers.
        reorientation: how the series' own order of axes became axial.
        warnings: what is odd but usable, one sentence each.
        outline_computed: whether the patient outline was computed here, because the label held only bone.
    """

    hu: NDArray[np.int16]
    label: NDArray[np.uint8]
    geometry: Geometry
    reorientation: Reorientation
    warnings: tuple[str, ...]
    outline_computed: bool


def read_labelled(fetch: Fetch, row: SeriesRow, settings: PrepareSettings) -> LabelledSeries:
    """Read a series and its label.

    Args:
        fetch: gives the raw objects as files.
        row: the series.
        settings: label map, and how irregular a series may be.

    Raises:
        SeriesError: the series cannot be read, is irregular, or its values are not HU.
        LabelError: there is no label, or it cannot be read, lies on another grid, or has unknown values.
    """
    if row.label is None:
        raise LabelError("the series has no label; put one beside it, as NIfTI or DICOM SEG, on the series' own grid")
    hu, own_geometry, warnings = read_image(fetch, row, settings)
    warnings += check_values(hu)
    geometry, reorientation = to_axial(own_geometry)
    label, covered, said = _read_label(fetch, row.label, own_geometry, settings)
    warnings += said
    if len(label) < geometry.shape[0]:
        warnings.append(f"the label covers {len(label)} of {geometry.shape[0]} slices; only they are used")
    hu = np.ascontiguousarray(reorientation.apply(hu)[covered])
    geometry = geometry.part(covered)
    outline_computed = not (label == OUTLINE).any()
    if outline_computed:
        label[(label == 0) & (patient_outline(hu, label, geometry.spacing) > 0)] = OUTLINE
    warnings += check_label(hu, label)
    return LabelledSeries(hu, label, geometry, reorientation, tuple(warnings), outline_computed)


def read_image(
    fetch: Fetch, row: SeriesRow, settings: PrepareSettings
) -> tuple[NDArray[np.int16], Geometry, list[str]]:
    """Read the voxels of a series, labelled or not.

    Returns:
        HU (slice, row, column) in the series' own order, their geometry, and warnings.

    Raises:
        SeriesError: the series cannot be read, is irregular, or its values are not HU.
    """
    different = {item.sha256: item for item in row.objects}.values()
    paths = {fetch(item): item.key for item in different}
    with _named(paths):
        if row.kind == FileKind.DICOM:
            hu, geometry, warnings = read_series(list(paths), settings.max_gap, settings.max_tilt_degrees)
            check_hu(hu)
            if len(paths) < len(row.objects):
                warnings.append(f"{len(row.objects) - len(paths)} files are copies of others; they are not used twice")
            return hu, geometry, warnings
        hu, geometry, warnings = read_hu(next(iter(paths)))
    warnings += _check_shear(geometry, settings.max_tilt_degrees)
    if geometry.shape[to_axial(geometry)[1].order[0]] < 2:
        raise SeriesError("the series has only one slice; a volume needs two or more")
    return hu, geometry, warnings


def _read_label(
    fetch: Fetch, row: LabelRow, own_geometry: Geometry, settings: PrepareSettings
) -> tuple[NDArray[np.uint8], slice, list[str]]:
    """Return the classes of the series' slices that a label covers, which slices they are, and warnings.

    All in axial order; ``own_geometry`` is the series' geometry as read. What a DICOM SEG leaves out between its first
    and its last slice is background, as is what no part of a label marks.
    """
    file, label_map = PurePosixPath(row.object.key).name, settings.label_map
    series = to_axial(own_geometry)[0]
    if not row.parts:
        label = read_values(fetch, row, own_geometry)
        classes = to_classes(label.values, file, label.names, label_map)
        named = describe_names(row.values, label.names) if label.names and label_map is None else []
        numbers = covered_slices(label.geometry, series)
        return _spread(classes, numbers), _span(numbers), [*label.warnings, *named]
    joined = np.zeros(series.shape, dtype=np.uint8)
    first, end, warnings = series.shape[0], 0, []
    for part in row.parts:
        label = read_values(fetch, part, own_geometry)
        name = PurePosixPath(part.object.key).name
        classes = part_classes(label.values, name, part.bone, part.outline, label_map)
        numbers = covered_slices(label.geometry, series)
        joined[numbers] = np.maximum(joined[numbers], classes)
        first, end = min(first, int(numbers[0])), max(end, int(numbers[-1]) + 1)
        warnings += [f"{name}: {warning}" for warning in label.warnings]
    require_bone(joined, file)
    return np.ascontiguousarray(joined[first:end]), slice(first, end), warnings


def _span(numbers: NDArray[np.int64]) -> slice:
    return slice(int(numbers[0]), int(numbers[-1]) + 1)


def _spread(classes: NDArray[np.uint8], numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Put slices at their places from the first to the last; those between that are missing are background."""
    span = _span(numbers)
    if span.stop - span.start == len(numbers):
        return np.ascontiguousarray(classes)
    spread = np.zeros((span.stop - span.start, *classes.shape[1:]), dtype=np.uint8)
    spread[numbers - span.start] = classes
    return spread


@dataclass(frozen=True, eq=False)
class Label:
    """A label file in axial order; ``names`` are those of the segments of a DICOM SEG."""

    values: NDArray[Any]
    geometry: Geometry
    names: Mapping[int, str] | None
    warnings: list[str]


def read_values(fetch: Fetch, row: LabelRow | LabelPart, series: Geometry | None = None) -> Label:
    """Read a label file as it is.

    Args:
        fetch: gives the raw object as a file.
        row: the label.
        series: geometry of the series as read, for a label whose voxels are taken in their order.

    Raises:
        LabelError: it is damaged or no label.
    """
    path = fetch(row.object)
    names: Mapping[int, str] | None = None
    warnings: list[str] = []
    values: NDArray[Any]
    with _named({path: row.object.key}):
        if row.kind == FileKind.DICOM_SEG:
            values, geometry, _ = read_segmentation(path)
            names = {value: best_name(*texts) for value, texts in read_segment_names(path).items()}
        else:
            values, geometry, warnings = read_label(path)
            if row.in_order and series is not None and values.shape == series.shape:
                geometry = series
    axial_geometry, reorientation = to_axial(geometry)
    return Label(reorientation.apply(values), axial_geometry, names, warnings)


def _check_shear(geometry: Geometry, most: float) -> list[str]:
    """Refuse a volume whose axes are not at right angles, as a tilted DICOM series is; a small shear stays as it is."""
    shear = shear_degrees(geometry)
    if shear > most:
        raise SeriesError(
            f"the volume is sheared: two of its axes are {shear:.1f} degrees off a right angle, {most:g} are allowed; "
            "resample it onto axes at right angles, or raise prepare.max_tilt_degrees"
        )
    return [f"the volume is sheared by {shear:.2f} degrees; masks keep the shear"] if shear > 0.1 else []


@contextmanager
def _named(paths: Mapping[Path, str]) -> Iterator[None]:
    """Let messages name the files as the user knows them, not as the cache calls them."""
    try:
        yield
    except (SeriesError, LabelError) as error:
        message = str(error)
        for path, key in paths.items():
            own = re.compile(rf"(?<!\w){re.escape(path.name)}(?!\w)")
            message = own.sub(PurePosixPath(key).name.replace("\\", r"\\"), message)
        raise type(error)(message) from error
