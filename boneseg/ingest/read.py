"""One labelled series: read, checked, and brought into axial order with its classes. Prepare and evaluate share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from boneseg.dicom.series import read_series
from boneseg.errors import LabelError, SeriesError
from boneseg.geometry import Geometry, Reorientation, to_axial
from boneseg.ingest.anatomy import is_ignored, words
from boneseg.ingest.by_bone import read_by_bone
from boneseg.ingest.checks import check_hu, check_label, check_values
from boneseg.ingest.label_file import Fetch, Label, named, read_layers
from boneseg.ingest.outline import patient_outline
from boneseg.ingest.pictures import read_hu_pictures
from boneseg.ingest.rtstruct_regions import is_bone_or_outline
from boneseg.ingest.values_to_classes import (
    class_table,
    covered_slices,
    describe_names,
    mapped,
    part_classes,
    require_bone,
    to_classes,
    values_present,
)
from boneseg.ingest.volumes import read_hu
from boneseg.nifti_header import shear_degrees
from boneseg.scheme import BONE_SCHEME, Labelling, LabelScheme
from boneseg.scheme.labelling import MIXED, take
from boneseg.scheme.roles import OUTLINE
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.catalogue import FileKind, LabelRow, SeriesRow


@dataclass(frozen=True, eq=False)
class LabelledSeries:
    """A series that can be trained on or measured against.

    Attributes:
        hu: (slice, row, column), axial order, contiguous.
        label: values, same shape.
        labelling: what the values mean.
        geometry: of both; covers the slices that the label covers.
        reorientation: how the series' own order of axes became axial.
        warnings: what is odd but usable, one sentence each.
        outline_computed: whether the patient outline was computed here, because the label held only bone.
    """

    hu: NDArray[np.int16]
    label: NDArray[np.uint8]
    labelling: Labelling
    geometry: Geometry
    reorientation: Reorientation
    warnings: tuple[str, ...]
    outline_computed: bool


def read_labelled(
    fetch: Fetch, row: SeriesRow, settings: PrepareSettings, scheme: LabelScheme = BONE_SCHEME
) -> LabelledSeries:
    """Read a series and its label.

    Args:
        fetch: gives the raw objects as files.
        row: the series.
        settings: label map, and how irregular a series may be.
        scheme: the classes.

    Raises:
        SeriesError: the series cannot be read, is irregular, or its values are not HU.
        LabelError: there is no label, or it cannot be read, lies on another grid, or has unknown values.
    """
    if row.label is None:
        raise LabelError("the series has no label; put one beside it: a volume on its grid, a DICOM SEG or an RTSTRUCT")
    hu, own_geometry, warnings = read_image(fetch, row, settings)
    warnings += check_values(hu)
    geometry, reorientation = to_axial(own_geometry)
    hu = reorientation.apply(hu)
    found = _Found(fetch, row.label, own_geometry, hu)
    read = _one_bone if scheme.knows_only_bone and not _is_partly_ignored(row.label) else _several
    label, labelling, silent, covered = read(found, settings, scheme)
    warnings += found.warnings
    if len(label) < geometry.shape[0]:
        warnings.append(f"the label covers {len(label)} of {geometry.shape[0]} slices; only they are used")
    hu = np.ascontiguousarray(hu[covered])
    geometry = geometry.part(covered)
    roles = take(labelling.roles, label)
    outline_computed = not (roles == OUTLINE).any()
    if outline_computed:
        roles[(roles == 0) & (patient_outline(hu, roles, geometry.spacing) > 0)] = OUTLINE
        if scheme.body is not None:
            label[(label == 0) & (roles == OUTLINE)] = scheme.body
    warnings += check_label(hu, np.where(roles == MIXED, np.uint8(OUTLINE), roles))
    if silent:
        labelling = _open_to(label, labelling, silent)
    return LabelledSeries(hu, label, labelling, geometry, reorientation, tuple(warnings), outline_computed)


def _is_partly_ignored(label: LabelRow) -> bool:
    named = (name for part in label.parts or (label,) for name in part.names.values())
    return any(is_ignored(words(name)) for name in named)


def _open_to(label: NDArray[np.uint8], labelling: Labelling, silent: tuple[int, ...]) -> Labelling:
    """Let what is marked as no bone, inside the patient, be one of the bones of which the label is silent."""
    rest = labelling.scheme.body or 0
    classes = tuple(sorted({rest, *silent}))
    sets = labelling.sets if classes in labelling.sets else (*labelling.sets, classes)
    label[label == rest] = labelling.scheme.size + sets.index(classes)
    return Labelling(labelling.scheme, sets)


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
    with named(paths):
        if row.kind == FileKind.DICOM:
            hu, geometry, warnings = read_series(list(paths), settings.max_gap, settings.max_tilt_degrees)
            check_hu(hu)
            if len(paths) < len(row.objects):
                warnings.append(f"{len(row.objects) - len(paths)} files are copies of others; they are not used twice")
            return hu, geometry, warnings
        if row.kind == FileKind.PNG:
            assert row.window is not None
            return read_hu_pictures([fetch(item) for item in row.objects], row.window), row.geometry.geometry(), []
        hu, geometry, warnings = read_hu(*paths)
    warnings += _check_shear(geometry, settings.max_tilt_degrees)
    if geometry.shape[to_axial(geometry)[1].order[0]] < 2:
        raise SeriesError("the series has only one slice; a volume needs two or more")
    return hu, geometry, warnings


@dataclass(frozen=True, eq=False)
class _Found:
    """A label and its series: what reading it needs; warnings gather here."""

    fetch: Fetch
    row: LabelRow
    own_geometry: Geometry
    hu: NDArray[np.int16]
    warnings: list[str] = field(default_factory=list)


_Read = tuple[NDArray[np.uint8], Labelling, tuple[int, ...], slice]
"""Values of the slices that the label covers, what they mean, classes of which it is silent, and which slices."""


def _several(found: _Found, settings: PrepareSettings, scheme: LabelScheme) -> _Read:
    """Read a label by a scheme that tells bones apart."""
    label_map = settings.class_of(scheme)
    label = read_by_bone(found.fetch, found.row, found.own_geometry, found.hu, scheme, label_map)
    found.warnings.extend(label.warnings)
    covered = slice(label.first, label.end)
    return np.ascontiguousarray(label.values[covered]), label.labelling, label.uncovered, covered


def _one_bone(found: _Found, settings: PrepareSettings, scheme: LabelScheme) -> _Read:
    """Read a label by a scheme that has one bone.

    What a DICOM SEG leaves out between its first and its last slice is background, as is what no part of a label marks.
    So is what lies before and behind, where the file says that it was drawn on all images of the series.
    """
    row, label_map = found.row, settings.class_of(scheme)
    wanted = is_bone_or_outline if label_map is None else None
    if label_map is not None:
        label_map = {value: scheme.by_role[known] for value, known in label_map.items()}
    file, series = PurePosixPath(row.object.key).name, to_axial(found.own_geometry)[0]
    if not row.parts:
        layers = read_layers(found.fetch, row, found.own_geometry, wanted)
        names = {value: name for layer in layers for value, name in (layer.names or {}).items()}
        label, roles = layers[0], _roles_of(layers, file, names, label_map)
        found.warnings.extend(warning for layer in layers for warning in layer.warnings)
        if names and label_map is None:
            found.warnings.extend(describe_names(row.values, names))
        numbers = covered_slices(label.geometry, series)
        span = slice(0, series.shape[0]) if row.whole else _span(numbers)
        return _in_scheme(_spread(roles, numbers, span), scheme, span)
    joined = np.zeros(series.shape, dtype=np.uint8)
    first, end = series.shape[0], 0
    for part in row.parts:
        name = PurePosixPath(part.object.key).name
        for label in read_layers(found.fetch, part, found.own_geometry, wanted):
            roles = part_classes(label.values, name, part.bone, part.outline, label_map)
            numbers = covered_slices(label.geometry, series)
            joined[numbers] = np.maximum(joined[numbers], roles)
            span = slice(0, series.shape[0]) if part.whole else _span(numbers)
            first, end = min(first, span.start), max(end, span.stop)
            found.warnings.extend(f"{name}: {warning}" for warning in label.warnings)
    require_bone(joined, file)
    return _in_scheme(np.ascontiguousarray(joined[first:end]), scheme, slice(first, end))


def _roles_of(
    layers: Sequence[Label], file: str, names: Mapping[int, str], label_map: Mapping[int | str, int] | None
) -> NDArray[np.uint8]:
    """Join the layers of one file: bone goes before outline."""
    if len(layers) == 1:
        return to_classes(layers[0].values, file, names or None, label_map)
    present = sorted({value for layer in layers for value in values_present(layer.values)})
    table = class_table(present, file, names, label_map) if present else {}
    roles = np.zeros(layers[0].values.shape, dtype=np.uint8)
    for layer in layers:
        np.maximum(roles, mapped(layer.values, table), out=roles)
    require_bone(roles, file)
    return roles


def _in_scheme(roles: NDArray[np.uint8], scheme: LabelScheme, covered: slice) -> _Read:
    table = np.array([0, scheme.body or 0, scheme.bones[0]], dtype=np.uint8)
    same = (table == (0, 1, 2)).all()
    return roles if same else take(table, roles), Labelling(scheme), (), covered


def _span(numbers: NDArray[np.int64]) -> slice:
    return slice(int(numbers[0]), int(numbers[-1]) + 1)


def _spread(classes: NDArray[np.uint8], numbers: NDArray[np.int64], span: slice) -> NDArray[np.uint8]:
    """Put slices at their places within some; those that are missing are background."""
    if span.stop - span.start == len(numbers):
        return np.ascontiguousarray(classes)
    spread = np.zeros((span.stop - span.start, *classes.shape[1:]), dtype=np.uint8)
    spread[numbers - span.start] = classes
    return spread


def _check_shear(geometry: Geometry, most: float) -> list[str]:
    """Refuse a volume whose axes are not at right angles, as a tilted DICOM series is; a small shear stays as it is."""
    shear = shear_degrees(geometry)
    if shear > most:
        raise SeriesError(
            f"the volume is sheared: two of its axes are {shear:.1f} degrees off a right angle, {most:g} are allowed; "
            "resample it onto axes at right angles, or raise prepare.max_tilt_degrees"
        )
    return [f"the volume is sheared by {shear:.2f} degrees; masks keep the shear"] if shear > 0.1 else []
