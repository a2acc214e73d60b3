"""Where series and labels lie: on which grid, and how near to each other by folders and names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np

from boneseg.geometry import Geometry, to_axial

TOLERANCE_MM = 0.1

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
    """

    path: str
    folder: PurePosixPath
    own_geometry: Geometry | None

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


def fits(label: Geometry, series: Geometry, partial: bool) -> bool:
    """Say whether a label lies on the grid of a series, both in axial order; ``partial``: on some of its slices."""
    return label.close_to(series, TOLERANCE_MM) or (partial and _covers_slices_of(label, series))


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


def _covers_slices_of(label: Geometry, series: Geometry) -> bool:
    """Say whether each slice of a label lies on a slice of the series: a DICOM SEG may leave out empty frames."""
    if label.shape[1:] != series.shape[1:] or label.shape[0] > series.shape[0]:
        return False
    # Corners of the first and last label slice, in voxels of the series.
    corners = np.array([[z, y, x] for z in (0, 1) for y in (0, 1) for x in (0, 1)]) * (np.array(label.shape) - 1.0)
    inverse = np.linalg.inv(series.affine)
    indices = label.to_patient(corners) @ inverse[:3, :3].T + inverse[:3, 3]
    nearest = np.rint(indices)
    on_voxels = np.abs((indices - nearest) * np.array(series.spacing)).max() <= TOLERANCE_MM
    first = nearest[0, 0]
    inside = 0 <= first <= series.shape[0] - label.shape[0]
    return bool(on_voxels and inside and np.array_equal(nearest - corners, np.tile((first, 0, 0), (8, 1))))


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
