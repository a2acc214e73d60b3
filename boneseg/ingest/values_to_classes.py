"""Label values: from what a file holds on its own grid to the three classes on the series' grid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.errors import LabelError
from boneseg.geometry import Geometry
from boneseg.ingest.anatomy import Meaning, meaning, says_no_bone, shown, words
from boneseg.scheme.roles import BACKGROUND, BONE, OUTLINE

OTHERS = "others"
"""In a label map: all values that it does not name."""
LabelMap = Mapping[Any, int]
"""Label value, or ``OTHERS``, -> class."""
_CLASS_OF = {Meaning.BONE: BONE, Meaning.OUTLINE: OUTLINE, Meaning.OTHER: BACKGROUND}


def covered_slices(label: Geometry, series: Geometry) -> NDArray[np.int64]:
    """Find the slices of a series on which a label lies.

    Args:
        label: geometry of the label, axial order.
        series: geometry of the series, axial order.

    Returns:
        The number of each of the label's slices in the series, rising.

    Raises:
        LabelError: the label is not on the series' voxels. Labels are never interpolated: that would change them.
    """
    numbers = label.slices_in(series)
    if numbers is None:
        raise LabelError(
            f"the label's grid ({_describe(label)}) is not the series' ({_describe(series)}); "
            "draw it on this series, or resample it to the series by nearest neighbour"
        )
    if len(numbers) > 1 and np.diff(numbers).min() > 1:
        raise LabelError(
            "the label has no two neighbouring slices, so what lies between is not known to be background; draw it on "
            "every slice"
        )
    return numbers


def to_classes(
    label: NDArray[Any], file: str, names: Mapping[int, str] | None, label_map: LabelMap | None
) -> NDArray[np.uint8]:
    """Turn a file's label values into classes.

    Args:
        label: values of the file, uint8 or uint16, any shape of three dimensions.
        file: name of the file, for messages.
        names: of the segments, for a DICOM SEG.
        label_map: value -> class as the settings give it, ``others`` for all values not named; none = by segment
            names, or by the values themselves: 1 and 2, or 2 alone, are outline and bone; any other single value is
            bone.

    Returns:
        Classes, same shape.

    Raises:
        LabelError: a value is unknown, or the label is empty.
    """
    present = values_present(label)
    if not present:
        raise LabelError(f"{file}: the label is empty; draw the bones, or remove the label")
    classes = mapped(label, class_table(present, file, names, label_map))
    require_bone(classes, file)
    return classes


def part_classes(
    label: NDArray[Any], file: str, bone: Sequence[int], outline: Sequence[int], label_map: LabelMap | None
) -> NDArray[np.uint8]:
    """Turn one of several masks of a series into classes; it may be empty, and need not hold bone.

    Args:
        label: values of the file, uint8 or uint16, any shape of three dimensions.
        file: name of the file, for messages.
        bone: values that are bone by their names.
        outline: values that are the patient's outline.
        label_map: as the settings give it; it goes before names.

    Raises:
        LabelError: the label map does not know a value.
    """
    present = values_present(label)
    if label_map is not None:
        return mapped(label, class_table(present, file, None, label_map))
    named = dict.fromkeys(outline, OUTLINE) | dict.fromkeys(bone, BONE)
    return mapped(label, {value: named.get(value, BACKGROUND) for value in present})


def require_bone(classes: NDArray[np.uint8], file: str) -> None:
    """Refuse a label without bone.

    Raises:
        LabelError: it has none.
    """
    if not (classes == BONE).any():
        raise LabelError(
            f"{file}: the label has no bone; draw the bones, correct prepare.label_map or remove the label"
        )


def class_table(
    present: Sequence[int], file: str, names: Mapping[int, str] | None, label_map: LabelMap | None
) -> dict[int, int]:
    """Return the class of each value that occurs.

    Raises:
        LabelError: a value is unknown.
    """
    mapping: dict[Any, int] = dict(label_map) if label_map is not None else _guess(present, file, names)
    others = mapping.get(OTHERS)
    unknown = [value for value in present if value not in mapping]
    if unknown and others is None:
        raise _unknown(file, unknown, names)
    return {value: mapping.get(value, others or BACKGROUND) for value in present}


def describe_names(present: Sequence[int], names: Mapping[int, str]) -> list[str]:
    """Say which segments count as bone by their names where there are several, and which do not."""
    found = {value: words(names.get(value, "")) for value in present}
    bones = [name for name in found.values() if meaning(name) == Meaning.BONE]
    others = [name for name in found.values() if meaning(name) == Meaning.OTHER]
    if len(bones) < 2 and not others:
        return []
    left_out = f"; {len(others)} are taken as no bone ({shown(others)})" if others else ""
    return [f"{len(bones)} segments are bone ({shown(bones)}){left_out}"]


def mapped(values: NDArray[Any], mapping: Mapping[int, int]) -> NDArray[np.uint8]:
    """Look values up; those that are not in the mapping become 0."""
    table = np.zeros(max(mapping, default=0) + 1, dtype=np.uint8)
    for value, known in mapping.items():
        table[value] = known
    classes = np.empty(values.shape, dtype=np.uint8)
    for index, plane in enumerate(values):  # slice by slice, because numpy widens an index to 64 bits
        np.take(table, plane, out=classes[index])
    return classes


def _guess(present: Sequence[int], file: str, names: Mapping[int, str] | None) -> dict[int, int]:
    named = {value: words((names or {}).get(value, "")) for value in present}
    found = {value: meaning(name) for value, name in named.items()}
    if any(says != Meaning.UNKNOWN for says in found.values()):
        return {value: _CLASS_OF[says] for value, says in found.items() if says != Meaning.UNKNOWN}
    if len(present) == 1 and not says_no_bone(named[present[0]]):
        return {present[0]: BONE}
    # Numbers of segments say nothing: two named otherwise may be a left and a right femur.
    if list(present) == [OUTLINE, BONE] and not any((names or {}).values()):
        return {OUTLINE: OUTLINE, BONE: BONE}
    raise _unknown(file, present, names)


def _unknown(file: str, values: Sequence[int], names: Mapping[int, str] | None) -> LabelError:
    # Names of segments are free text, which may hold a patient's: only words of anatomy are shown.
    named = [(value, shown([words((names or {}).get(value, ""))])) for value in values[:8]]
    listed = ", ".join(f"{value} ({name})" if name else str(value) for value, name in named)
    more = f" and {len(values) - 8} more" if len(values) > 8 else ""
    example = json.dumps({str(values[0]): BONE, OTHERS: BACKGROUND})
    return LabelError(
        f"{file}: label values {listed}{more} are unknown; say which class each is (0 background, 1 patient outline, "
        f"2 bone) in prepare.label_map, for example {example}, where {OTHERS} are all values that are not named"
    )


def values_present(values: NDArray[Any]) -> list[int]:
    """Return the values above 0 that occur, rising."""
    counts = np.zeros(np.iinfo(values.dtype).max + 1, dtype=np.int64)
    for plane in values:
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    return [int(value) for value in np.flatnonzero(counts) if value > 0]


def _describe(geometry: Geometry) -> str:
    slices, rows, columns = geometry.shape
    spacing = " x ".join(f"{length:.3g}" for length in geometry.spacing)
    corner = ", ".join(f"{value:.1f}" for value in geometry.affine[:3, 3])
    return f"{slices} x {rows} x {columns} voxels of {spacing} mm from ({corner}) mm"
