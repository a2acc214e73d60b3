"""Label values beyond the classes: what is known of a voxel where a label says less than the scheme could.

Values 0 to ``scheme.size - 1`` are the classes. Each value above stands for a set of them: the voxel is of one of these
classes, and nobody has drawn of which. A label that knows only "bone" has one such value for all bones; where it is
silent of a class, that class is in the set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.scheme.builtin import BONE
from boneseg.scheme.record import LabelScheme

MIXED = 3
"""Role of a value whose classes differ in role."""
Table = NDArray[np.uint8]
ClassSet = tuple[int, ...]
"""Two classes or more, rising."""


@dataclass(frozen=True)
class Labelling:
    """A scheme and the sets of its classes that labels use beside it."""

    scheme: LabelScheme = BONE
    sets: tuple[ClassSet, ...] = ()

    @property
    def size(self) -> int:
        """How many values a label may have."""
        return self.scheme.size + len(self.sets)

    @cached_property
    def members(self) -> NDArray[np.bool_]:
        """(values, classes): which classes a value may be."""
        table = np.zeros((self.size, self.scheme.size), dtype=bool)
        np.fill_diagonal(table, True)
        for number, classes in enumerate(self.sets, start=self.scheme.size):
            table[number, list(classes)] = True
        return table

    @cached_property
    def roles(self) -> Table:
        """For every value 0 background, 1 body, 2 bone or ``MIXED``."""
        by_role = np.array(self.scheme.by_role, dtype=np.uint8)
        found = [np.unique(by_role[row]) for row in self.members]
        return np.array([values[0] if len(values) == 1 else MIXED for values in found], dtype=np.uint8)

    @cached_property
    def bony(self) -> Table:
        """The values that are bone for sure."""
        return np.flatnonzero(self.roles == 2).astype(np.uint8)

    @cached_property
    def mirrored(self) -> Table:
        """For every value the one it has in the mirrored image."""
        swapped = self.scheme.mirrored
        values = list(swapped)
        for classes in self.sets:
            values.append(self.scheme.size + self.sets.index(_rising(swapped[value] for value in classes)))
        return np.array(values, dtype=np.uint8)

    def joined(self, *others: Labelling) -> Labelling:
        """Return the labelling with the sets of all of them, and with their mirror images."""
        found = set(self.sets).union(*(other.sets for other in others))
        found |= {_rising(self.scheme.mirrored[value] for value in classes) for classes in found}
        return Labelling(self.scheme, tuple(sorted(found)))

    def table_to(self, other: Labelling) -> Table:
        """Return, for every value here, the value there; the other one has all sets of this one."""
        own = [self.scheme.size + other.sets.index(classes) for classes in self.sets]
        return np.array([*range(self.scheme.size), *own], dtype=np.uint8)

    def without(self, covered: Iterable[int]) -> ClassSet:
        """Return the classes that a label which covers only some of them is silent of."""
        known = set(covered)
        return tuple(value for value in range(self.scheme.size) if value not in known)


THREE_CLASSES = Labelling()
"""Background, patient outline, bone."""


def _rising(values: Iterable[int]) -> ClassSet:
    return tuple(sorted(values))


def take(table: Table, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Look every value up in a table, plane by plane, because numpy widens an index to 64 bits."""
    out = np.empty(values.shape, dtype=np.uint8)
    for index in np.ndindex(values.shape[:-2]):
        np.take(table, values[index], out=out[index], mode="clip")
    return out
