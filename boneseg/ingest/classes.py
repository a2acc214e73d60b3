"""Label values: from what a file holds on its own grid to the three classes on the series' grid."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.errors import LabelError
from boneseg.geometry import Geometry
from boneseg.scheme import BACKGROUND, BONE, OUTLINE

OFF_GRID = 0.2
"""How far, in voxels, a label's voxels may lie beside the series' own."""
_BONE_NAME = re.compile("bone", re.IGNORECASE)
_OUTLINE_NAME = re.compile("outline|^(whole |entire )?body$", re.IGNORECASE)


def covered_slices(label: Geometry, series: Geometry) -> slice:
    """Find the slices of a series on which a label lies.

    Args:
        label: geometry of the label, axial order.
        series: geometry of the series, axial order.

    Returns:
        The slices; all of them where the label is as long as the series.

    Raises:
        LabelError: the label is not on the series' voxels. Labels are never interpolated: that would change them.
    """
    corners = np.array([[z, y, x] for z in (0, 1) for y in (0, 1) for x in (0, 1)], dtype=np.float64)
    corners *= np.array(label.shape) - 1
    inverse = np.linalg.inv(series.affine)
    on_series = label.to_patient(corners) @ inverse[:3, :3].T + inverse[:3, 3]
    first = round(float(on_series[0, 0]))
    off = float(np.abs(on_series - corners - [first, 0, 0]).max())
    fits = off <= OFF_GRID and first >= 0 and first + label.shape[0] <= series.shape[0]
    if not fits or label.shape[1:] != series.shape[1:]:
        raise LabelError(
            f"the label's grid ({_describe(label)}) is not the series' ({_describe(series)}); "
            "draw it on this series, or resample it to the series by nearest neighbour"
        )
    return slice(first, first + label.shape[0])


def to_classes(
    label: NDArray[Any], file: str, names: Mapping[int, str] | None, label_map: Mapping[int, int] | None
) -> NDArray[np.uint8]:
    """Turn a file's label values into classes.

    Args:
        label: values of the file, uint8 or uint16, any shape of three dimensions.
        file: name of the file, for messages.
        names: of the segments, for a DICOM SEG.
        label_map: value -> class as the settings give it; none = by segment names, or by the values themselves:
            1 and 2, or 2 alone, are outline and bone; any other single value is bone.

    Returns:
        Classes, same shape.

    Raises:
        LabelError: a value is unknown, or the label is empty.
    """
    present = _present(label)
    if not present:
        raise LabelError(f"{file}: the label is empty; draw the bones, or remove the label")
    mapping = dict(label_map) if label_map is not None else _guess(present, file, names)
    unknown = [value for value in present if value not in mapping]
    if unknown:
        raise _unknown(file, unknown, names)
    table = np.zeros(max(present) + 1, dtype=np.uint8)
    for value in present:
        table[value] = mapping[value]
    classes = np.empty(label.shape, dtype=np.uint8)
    for index, plane in enumerate(label):  # slice by slice, because numpy widens an index to 64 bits
        np.take(table, plane, out=classes[index])
    if not (classes == BONE).any():
        raise LabelError(
            f"{file}: the label has no bone; draw the bones, correct prepare.label_map or remove the label"
        )
    return classes


def _guess(present: list[int], file: str, names: Mapping[int, str] | None) -> dict[int, int]:
    if names and any(_class_of(names.get(value, "")) is not None for value in present):
        classes = {value: _class_of(names.get(value, "")) for value in present}
        return {value: known for value, known in classes.items() if known is not None}
    if len(present) == 1:
        return {present[0]: BONE}
    # Numbers of segments say nothing: two named otherwise may be a left and a right femur.
    if present == [OUTLINE, BONE] and not any((names or {}).values()):
        return {OUTLINE: OUTLINE, BONE: BONE}
    raise _unknown(file, present, names)


def _class_of(name: str) -> int | None:
    if _BONE_NAME.search(name):
        return BONE
    if _OUTLINE_NAME.search(name.strip()):
        return OUTLINE
    return BACKGROUND if name.strip().lower() == "background" else None


def _unknown(file: str, values: list[int], names: Mapping[int, str] | None) -> LabelError:
    shown = [f"{value} ({names[value]})" if names and names.get(value) else str(value) for value in values[:8]]
    more = f" and {len(values) - 8} more" if len(values) > 8 else ""
    example = f"{{{values[0]}: {BONE}}}"
    return LabelError(
        f"{file}: label values {', '.join(shown)}{more} are unknown; say which class each is "
        f"(0 background, 1 patient outline, 2 bone) in prepare.label_map, for example {example}"
    )


def _present(values: NDArray[Any]) -> list[int]:
    counts = np.zeros(np.iinfo(values.dtype).max + 1, dtype=np.int64)
    for plane in values:
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    return [int(value) for value in np.flatnonzero(counts) if value > 0]


def _describe(geometry: Geometry) -> str:
    slices, rows, columns = geometry.shape
    spacing = " x ".join(f"{length:.3g}" for length in geometry.spacing)
    corner = ", ".join(f"{value:.1f}" for value in geometry.affine[:3, 3])
    return f"{slices} x {rows} x {columns} voxels of {spacing} mm from ({corner}) mm"
