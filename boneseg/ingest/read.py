"""One labelled series: read, checked, and brought into axial order with its classes. Prepare and evaluate share it."""

from __future__ import annotations

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
from boneseg.ingest.checks import check_label, check_values
from boneseg.ingest.classes import covered_slices, describe_names, part_classes, require_bone, to_classes
from boneseg.ingest.outline import patient_outline
from boneseg.ingest.volumes import read_hu, read_label
from boneseg.nifti_header import shear_degrees
from boneseg.scheme import OUTLINE
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.catalogue import FileKind, LabelRow, ObjectRef, SeriesRow

Fetch = Callable[[ObjectRef], Path]
"""Gives a raw object as a file: from a bucket through the cache, or from a local folder as it is."""


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
    label, label_geometry, said = _read_label(fetch, row.label, geometry, settings)
    warnings += said
    covered = covered_slices(label_geometry, geometry)
    if label_geometry.shape[0] < geometry.shape[0]:
        warnings.append(f"the label covers {label_geometry.shape[0]} of {geometry.shape[0]} slices; only they are used")
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
            if len(paths) < len(row.objects):
                warnings.append(f"{len(row.objects) - len(paths)} files are copies of others; they are not used twice")
            return hu, geometry, warnings
        hu, geometry, warnings = read_hu(next(iter(paths)))
    warnings += _check_shear(geometry, settings.max_tilt_degrees)
    if geometry.shape[to_axial(geometry)[1].order[0]] < 2:
        raise SeriesError("the series has only one slice; a volume needs two or more")
    return hu, geometry, warnings


def _read_label(
    fetch: Fetch, row: LabelRow, series: Geometry, settings: PrepareSettings
) -> tuple[NDArray[np.uint8], Geometry, list[str]]:
    """Return classes and their geometry, both in axial order, and warnings; ``series`` is the series' geometry."""
    if row.parts:
        classes, geometry, of_parts = _read_parts(fetch, row, series, settings)
        return classes, geometry, of_parts
    values, geometry, names, warnings = _read_values(fetch, row.kind, row.object)
    classes = to_classes(values, PurePosixPath(row.object.key).name, names, settings.label_map)
    warnings += describe_names(row.values, names) if names and settings.label_map is None else []
    return np.ascontiguousarray(classes), geometry, warnings


def _read_parts(
    fetch: Fetch, row: LabelRow, series: Geometry, settings: PrepareSettings
) -> tuple[NDArray[np.uint8], Geometry, list[str]]:
    """Join masks of single structures: bone where one of them is bone."""
    warnings: list[str] = []
    joined = np.zeros(series.shape, dtype=np.uint8)
    first, end = series.shape[0], 0
    for part in row.parts:
        values, geometry, _, said = _read_values(fetch, part.kind, part.object)
        warnings += said
        file = PurePosixPath(part.object.key).name
        covered = covered_slices(geometry, series)
        first, end = min(first, covered.start), max(end, covered.stop)
        classes = part_classes(values, file, part.bone, part.outline, settings.label_map)
        np.maximum(joined[covered], classes, out=joined[covered])
    covered = slice(first, end)
    require_bone(joined[covered], PurePosixPath(row.object.key).name)
    return np.ascontiguousarray(joined[covered]), series.part(covered), warnings


def _read_values(
    fetch: Fetch, kind: FileKind, item: ObjectRef
) -> tuple[NDArray[Any], Geometry, Mapping[int, str] | None, list[str]]:
    """Return the values of a label file and their geometry, both in axial order, names of segments, and warnings."""
    path = fetch(item)
    names: Mapping[int, str] | None = None
    values: NDArray[Any]
    warnings: list[str] = []
    with _named({path: item.key}):
        if kind == FileKind.DICOM_SEG:
            values, geometry, _ = read_segmentation(path)
            names = {value: best_name(*texts) for value, texts in read_segment_names(path).items()}
        else:
            values, geometry, warnings = read_label(path)
    axial_geometry, reorientation = to_axial(geometry)
    return reorientation.apply(values), axial_geometry, names, warnings


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
            message = message.replace(path.name, PurePosixPath(key).name)
        raise type(error)(message) from error
