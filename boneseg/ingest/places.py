"""Where series and labels lie: on which grid, and how near to each other by folders and names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np

from boneseg.geometry import Geometry, to_axial

TOLERANCE_MM = 0.1
_SAME_SIZE = 0.01

Rank = tuple[int, float, float]
"""How near a series is to a label: how many folders they have in common, then how alike their names start, and end."""

_PIECES = re.compile(r"\d+|\D+")


@dataclass(frozen=True)
class Place:
    """Something with a path, and a geometry where it could be read: a series, a label, or an image that is not read.

    Attributes:
        path: below the raw prefix.
        folder: that holds it; of a DICOM series the path itself.
        own_geometry: as read; none where it is not known.
        placed: whether the file says where it lies; otherwise only shape and spacing of the geometry are known.
        in_order: whether it is a file whose voxels have an order, which programs keep; slices of DICOM have none.
    """

    path: str
    folder: PurePosixPath
    own_geometry: Geometry | None
    placed: bool = True
    in_order: bool = False

    @cached_property
    def axial(self) -> Geometry:
        """The geometry in axial order."""
        assert self.own_geometry is not None
        return to_axial(self.own_geometry)[0]

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders and name, the name without suffixes."""
        path = PurePosixPath(self.path)
        return (*path.parent.parts, stem(self.path))

    def describe(self) -> str:
        """Say for a message how many voxels of which size there are."""
        spacing = " x ".join(f"{value:.2f}" for value in self.axial.spacing)
        return f"{' x '.join(str(size) for size in self.axial.shape)} voxels of {spacing} mm"


def stem(path: str) -> str:
    """Return a file's name without suffixes."""
    name = PurePosixPath(path).name
    return name.split(".")[0] or name


class Fit(IntEnum):
    """How well a label lies on the grid of a series; what says more is higher."""

    NONE = 0
    IN_ORDER = 1
    """One of the two files does not say where it lies, and both have as many voxels of the same size."""
    SOME_SLICES = 2
    WHOLE = 3


def fit(label: Place, series: Place) -> Fit:
    """Say whether a label lies on the grid of a series: on all of it, or on some of its slices."""
    if label.placed == series.placed and label.axial.close_to(series.axial, TOLERANCE_MM):
        return Fit.WHOLE
    if label.placed and series.placed:
        tolerance = TOLERANCE_MM / max(series.axial.spacing)
        return Fit.NONE if label.axial.slices_in(series.axial, tolerance) is None else Fit.SOME_SLICES
    mine, theirs = label.own_geometry, series.own_geometry
    if label.in_order and series.in_order and mine is not None and theirs is not None and mine.shape == theirs.shape:
        return Fit.IN_ORDER if np.allclose(mine.spacing, theirs.spacing, rtol=_SAME_SIZE) else Fit.NONE
    return Fit.NONE


def why_no_fit(label: Place, series: Place) -> str:
    """Say what keeps a label from the nearest series; empty where it is no more than that the grids differ."""
    for one, other in ((label, series), (series, label)):
        if not one.placed and other.placed:
            return f"neither sform nor qform of {one.path} says where its voxels lie"
    mine, theirs = label.axial, series.axial
    ends = np.array([[0, 0, 0], [size - 1 for size in mine.shape]], dtype=np.float64)
    found = theirs.to_index(mine.to_patient(ends))
    near = np.rint(found).astype(int)
    on_grid = np.abs(found - near).max() < TOLERANCE_MM / max(theirs.spacing)
    if not on_grid or (near[1] - near[0] != np.array(mine.shape) - 1).any():
        return "it lies at another place" if mine.shape == theirs.shape else ""
    if (near >= 0).all() and (near[1] < theirs.shape).all():
        (_, row, column), (_, last_row, last_column) = near.tolist()
        return f"it covers only rows {row} to {last_row} and columns {column} to {last_column}, not whole slices"
    return "it reaches beyond the series"


def rank(label: Place, other: Place) -> Rank:
    """Return how near something is to a label."""
    mine, theirs = label.parts, other.parts
    shared = _common(mine[:-1], theirs[:-1])
    return shared, *max(_likeness(one, two) for one in mine[shared:] for two in theirs[shared:])


def carries_name_of(label: Place, other: Place) -> bool:
    """Say whether a label is called as its image is, with at most a suffix on either: ``a_1`` and ``a_1_0000``."""
    mine, theirs = label.parts, other.parts
    shared = _common(mine[:-1], theirs[:-1])
    return any(_extends(one, two) or _extends(two, one) for one in mine[shared:] for two in theirs[shared:])


def numbers_differ(label: Place, other: Place) -> bool:
    """Say whether two are numbered alike but have other numbers, as ``case10`` and ``case1``."""
    mine, theirs = label.parts, other.parts
    shared = _common(mine[:-1], theirs[:-1])
    found = [_same_numbers(one, two) for one in mine[shared:] for two in theirs[shared:]]
    return False in found and True not in found


def _likeness(one: str, two: str) -> tuple[float, float]:
    """Return which share of the longer name both names have in common at their starts, and at their ends."""
    longer = max(len(one), len(two), 1)
    return _common(one, two) / longer, _common(one[::-1], two[::-1]) / longer


def _common(one: Sequence[str], two: Sequence[str]) -> int:
    pairs = zip(one, two, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(two)))


def _extends(name: str, start: str) -> bool:
    return name.startswith(start) and (len(name) == len(start) or not name[len(start)].isalnum())


def _same_numbers(one: str, two: str) -> bool | None:
    """Compare the numbers of two names as long as the text around them agrees; none where there are none to compare."""
    same = None
    for mine, theirs in zip(_PIECES.findall(one), _PIECES.findall(two), strict=False):
        if mine.isdigit() and theirs.isdigit():
            same = int(mine) == int(theirs)
            if not same:
                return False
        elif mine != theirs:
            break
    return same
