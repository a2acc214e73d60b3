"""Labels of schemes that tell bones apart: each value of each file becomes a class, or a set of those it may be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from boneseg.errors import LabelError
from boneseg.geometry import Geometry, to_axial
from boneseg.ingest.label_file import Fetch, Label, read_layers
from boneseg.ingest.names_to_classes import classes_called, classes_covered, classes_of_values
from boneseg.ingest.rtstruct_regions import Wanted
from boneseg.ingest.values_to_classes import OTHERS, covered_slices, mapped, values_present
from boneseg.scheme import Labelling, LabelScheme
from boneseg.scheme.labelling import ClassSet, take
from boneseg.storage.catalogue import LabelPart, LabelRow

_SOFT = 150.0
"""HU: the median of an outline lies below, that of bone above or little below."""


@dataclass
class BoneLabel:
    """A label on its series, before the patient's outline is known.

    Attributes:
        scheme: its classes.
        values: (slice, row, column) of the whole series.
        sets: what values above the classes stand for, in their order.
        covered: the bones that the label would show where they are.
        first: slice from which on the label covers the series.
        end: slice before which it ends.
        warnings: what is odd, one sentence each.
    """

    scheme: LabelScheme
    values: NDArray[np.uint8]
    sets: list[ClassSet] = field(default_factory=list)
    covered: set[int] = field(default_factory=set)
    first: int = 0
    end: int = 0
    warnings: list[str] = field(default_factory=list)

    def value_of(self, classes: ClassSet) -> int:
        """Return the value that stands for some classes."""
        if len(classes) == 1:
            return classes[0]
        if classes not in self.sets:
            self.sets.append(classes)
        return self.scheme.size + self.sets.index(classes)

    @property
    def labelling(self) -> Labelling:
        """What the values mean."""
        return Labelling(self.scheme, tuple(self.sets))

    @property
    def uncovered(self) -> ClassSet:
        """Bones of which the label is silent."""
        return tuple(value for value in self.scheme.bones if value not in self.covered)

    def put(self, classes: NDArray[np.uint8], numbers: NDArray[np.int64]) -> int:
        """Add slices; bone goes before outline, one class before a set of them, and what was there first stays.

        Returns:
            How many voxels were another bone already.
        """
        weight = self._weights()
        there = self.values[numbers]
        new, old = take(weight, classes), take(weight, there)
        better = new > old
        twice = int(((new > 1) & (old > 1) & (classes != there)).sum())
        self.values[numbers] = np.where(better, classes, there)
        return twice

    def _weights(self) -> NDArray[np.uint8]:
        members, bones = self.labelling.members, np.zeros(self.scheme.size, dtype=bool)
        bones[list(self.scheme.bones)] = True
        some, only = (members & bones).any(axis=1), ~(members & ~bones).any(axis=1)
        several = members.sum(axis=1) > 1
        weights = np.where(some & only, np.where(several, 3, 4), np.where(several, 2, 1))
        weights[0] = 0
        return weights.astype(np.uint8)


def read_by_bone(
    fetch: Fetch,
    row: LabelRow,
    own_geometry: Geometry,
    hu: NDArray[np.int16],
    scheme: LabelScheme,
    label_map: Mapping[int | str, int] | None,
) -> BoneLabel:
    """Read all masks of a label.

    Args:
        fetch: gives the raw objects as files.
        row: the label.
        own_geometry: of the series as read.
        hu: (slice, row, column) of the series in axial order.
        scheme: the classes.
        label_map: value -> class, before all names; none = not given.

    Raises:
        LabelError: a file cannot be read or lies on another grid, a value is unknown, or there is no bone.
    """
    series = to_axial(own_geometry)[0]
    label = BoneLabel(scheme, np.zeros(series.shape, dtype=np.uint8), first=series.shape[0])
    twice, names = 0, set(row.absent)
    parts: Sequence[LabelRow | LabelPart] = row.parts or (row,)
    for part in parts:
        file = PurePosixPath(part.object.key).name
        for layer in read_layers(fetch, part, own_geometry, None if label_map is not None else _says_a_class(scheme)):
            numbers = covered_slices(layer.geometry, series)
            called, meant = _meant(layer, part, len(parts) > 1, hu[numbers], scheme, label_map)
            names.update(called)
            if not called:
                label.covered.update(
                    value for classes in meant.values() for value in classes if len(classes) < scheme.size
                )
            table = {value: label.value_of(classes) for value, classes in meant.items()}
            twice += label.put(mapped(layer.values, table), numbers)
            first, end = (0, series.shape[0]) if part.whole else (int(numbers[0]), int(numbers[-1]) + 1)
            label.first, label.end = min(label.first, first), max(label.end, end)
            label.warnings += [f"{file}: {warning}" if row.parts else warning for warning in layer.warnings]
    label.covered |= classes_covered(names, scheme)
    if twice:
        label.warnings.append(
            f"{twice} voxels are marked as two bones; they count as the first one by file name, in a file "
            "of contours as the smaller one"
        )
    if not np.isin(label.values, label.labelling.bony).any():
        raise LabelError(
            f"{PurePosixPath(row.object.key).name}: the label has no bone of scheme {scheme.name}; draw the "
            "bones, correct prepare.label_map or choose another scheme"
        )
    if label.uncovered:
        names_left = ", ".join(scheme.names[value] for value in label.uncovered[:6])
        more = f" and {len(label.uncovered) - 6} more" if len(label.uncovered) > 6 else ""
        label.warnings.append(f"the label says nothing of {names_left}{more}; that counts neither for nor against them")
    return label


def _meant(
    layer: Label,
    part: LabelRow | LabelPart,
    is_one_of_several: bool,
    hu: NDArray[np.int16],
    scheme: LabelScheme,
    label_map: Mapping[int | str, int] | None,
) -> tuple[Collection[str], dict[int, ClassSet]]:
    """Find out what each value of a layer means: by the map, by names, then by the values themselves.

    Returns:
        The names by which it was told, those of structures that could be there and are not among them; and the classes.
    """
    file, present = PurePosixPath(part.object.key).name, values_present(layer.values)
    names = dict(layer.names) if layer.names else dict(part.names)
    if label_map is not None:
        return (), _by_map(present, label_map, file, scheme)
    by_name = is_one_of_several or len(names) > 1 or layer.names or _says(names, scheme)
    if part.table or (any(names.values()) and by_name):
        # A structure that the file names and does not draw is not in the picture: that says something of it.
        called = {value: classes_called(names.get(value, ""), scheme) for value in present}
        meant = {value: classes for value, classes in called.items() if classes is not None}
        if len(meant) < len(called):
            raise _unknown(file, [value for value in present if value not in meant], scheme)
        return names.values(), meant
    found = classes_of_values(present, scheme, encloses(layer.values, hu, present))
    if found is None:
        known = {value for item in scheme.classes for value in item.values}
        raise _unknown(file, [value for value in present if value not in known] or present, scheme)
    return (), found


def _says_a_class(scheme: LabelScheme) -> Wanted:
    """Tell names of classes from those that say nothing, and from those of what is no part of the scheme."""
    return lambda name: classes_called(name, scheme) not in (None, (0,))


def _says(names: Mapping[int, str], scheme: LabelScheme) -> bool:
    return all(classes_called(name, scheme) is not None for name in names.values())


def _by_map(
    present: Sequence[int], label_map: Mapping[int | str, int], file: str, scheme: LabelScheme
) -> dict[int, ClassSet]:
    others = label_map.get(OTHERS)
    unknown = [value for value in present if value not in label_map]
    if unknown and others is None:
        raise _unknown(file, unknown, scheme)
    return {value: (label_map.get(value, others or 0),) for value in present}


def encloses(values: NDArray[np.generic], hu: NDArray[np.int16], present: Sequence[int]) -> bool:
    """Say whether value 1 is an outline around a bone of value 2: larger, soft by its HU, and beside it everywhere.

    Args:
        values: (slice, row, column) of a label.
        hu: same shape.
        present: values above 0 that occur.
    """
    if list(present) == [2]:
        return True
    if list(present) != [1, 2]:
        return False
    step = (slice(None, None, 2), slice(None, None, 2), slice(None, None, 2))
    few, dense = np.asarray(values[step]), hu[step]
    one, two = dense[few == 1], dense[few == 2]
    softer = one.size > two.size > 0 and float(np.median(one)) < min(_SOFT, float(np.median(two)))
    return softer and _surrounded(few)


def _surrounded(few: NDArray[np.generic]) -> bool:
    """Say whether what lies beside value 2 in its slices is mostly value 1."""
    inner = np.asarray(few == 2)
    beside = np.zeros_like(inner)
    beside[:, 1:] |= inner[:, :-1]
    beside[:, :-1] |= inner[:, 1:]
    beside[:, :, 1:] |= inner[:, :, :-1]
    beside[:, :, :-1] |= inner[:, :, 1:]
    beside &= ~inner
    return bool(beside.any()) and float(np.mean(few[beside] == 1)) > 0.5


def _unknown(file: str, values: Sequence[int], scheme: LabelScheme) -> LabelError:
    listed = ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
    example = scheme.names[scheme.bones[0]]
    return LabelError(
        f"{file}: label values {listed} are unknown in scheme {scheme.name}; say which class each is in "
        f'prepare.label_map, for example {{"{values[0]}": "{example}", "{OTHERS}": "background"}}'
    )
