"""Where series and labels lie: on which grid, and how near to each other by folders and names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from boneseg.geometry import ON_GRID_VOXELS, SAME_PLACE_MM, Geometry, to_axial

_SAME_SIZE = 0.01
_BEYOND, _ON_SLICE = 1.0, 0.1
"""Slices by which contours may lie beyond a series that they are of, and beside a slice on which they were drawn."""

Rank = tuple[float, ...]
"""How near a series is to a label: how many folders they have in common, how alike their names start, and end; then
how many folders of the same name both have elsewhere, as a subject has below ``derivatives``, how alike the names of
the files are, and how alike the first folders that differ end, as ``imagesTr`` and ``labelsTr`` do."""

_CHANNEL = re.compile(r"_(\d{4})")
"""What nnU-Net adds to the name of a case for each of its images; labels are drawn on the first."""
_ENTITY = re.compile(r"(?<![a-z0-9])(ses|run|acq|rec)-([a-z0-9]+)", re.IGNORECASE)
"""What tells images of one subject apart in BIDS."""
_PIECES = re.compile(r"\d+|\D+")


@dataclass(frozen=True)
class Place:
    """Something with a path, and a geometry where it could be read: a series, a label, or an image that is not read.

    Attributes:
        path: below the raw prefix.
        folder: that holds it; of a DICOM series the path itself.
        own_geometry: as read; none where it is not known, and of contours, which have no grid.
        placed: whether the file says where it lies; otherwise only shape and spacing of the geometry are known.
        outermost: of contours: those of their points that lie outermost, LPS mm.
        in_order: whether it is a file whose voxels have an order, which programs keep; slices of DICOM have none.
        crop: whether it may be a label whose grid is a part of its series', around what is drawn.
    """

    path: str
    folder: PurePosixPath
    own_geometry: Geometry | None
    placed: bool = True
    in_order: bool = False
    crop: bool = False
    outermost: tuple[tuple[float, float, float], ...] = ()

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
        if self.outermost:
            ends = (np.min(self.outermost, axis=0), np.max(self.outermost, axis=0))
            return "contours from {} to {} mm".format(*(f"({x:.0f}, {y:.0f}, {z:.0f})" for x, y, z in ends))
        spacing = " x ".join(f"{value:.2f}" for value in self.axial.spacing)
        return f"{' x '.join(str(size) for size in self.axial.shape)} voxels of {spacing} mm"


def stem(path: str) -> str:
    """Return a file's name without suffixes."""
    name = PurePosixPath(path).name
    return name.split(".")[0] or name


class Fit(IntEnum):
    """How well a label lies on the grid of a series; what says more is higher."""

    NONE = 0
    WITHIN = 1
    """Contours that lie within a series, but not on its slices."""
    IN_ORDER = 2
    """One of the two files does not say where it lies, and both have as many voxels of the same size."""
    SOME_SLICES = 3
    WHOLE = 4


def fit(label: Place, series: Place) -> Fit:
    """Say whether a label lies on the grid of a series: on all of it, or on some of its slices.

    Contours have no grid: they fit where they lie on the slices, or between them.
    """
    if label.outermost:
        return _contours_fit(label, series)
    if label.placed == series.placed and label.axial.close_to(series.axial):
        return Fit.WHOLE
    if label.placed and series.placed:
        tolerance = SAME_PLACE_MM / max(series.axial.spacing)
        if label.crop and crop_of(label.axial, series.axial, tolerance) is not None:
            return Fit.WHOLE
        return Fit.NONE if label.axial.slices_in(series.axial, tolerance) is None else Fit.SOME_SLICES
    mine, theirs = label.own_geometry, series.own_geometry
    if label.in_order and series.in_order and mine is not None and theirs is not None and mine.shape == theirs.shape:
        return Fit.IN_ORDER if np.allclose(mine.spacing, theirs.spacing, rtol=_SAME_SIZE) else Fit.NONE
    return Fit.NONE


def leaves_out_an_end(label: Place, series: Place) -> bool:
    """Say whether a label that lies on some slices of a series lacks the first or the last of them."""
    numbers = label.axial.slices_in(series.axial, SAME_PLACE_MM / max(series.axial.spacing))
    return numbers is not None and (int(numbers[0]) > 0 or int(numbers[-1]) < series.axial.shape[0] - 1)


def _contours_fit(label: Place, series: Place) -> Fit:
    if series.own_geometry is None or not series.placed:
        return Fit.NONE
    shape = series.own_geometry.shape
    found = series.own_geometry.to_index(np.array(label.outermost))
    slices, middle = found[:, 0], found[:, 1:].mean(axis=0)
    # A contour may reach beyond the picture, as that of a body does; its slices, and where it lies, may not.
    beside = (middle < -0.5).any() or (middle > np.array(shape[1:]) - 0.5).any()
    if beside or slices.min() < -_BEYOND or slices.max() > shape[0] - 1 + _BEYOND:
        return Fit.NONE
    off = np.abs(slices - np.rint(slices)).max()
    on_slices = off <= _ON_SLICE and slices.min() > -0.5 and slices.max() < shape[0] - 0.5
    return Fit.SOME_SLICES if on_slices else Fit.WITHIN


@dataclass(frozen=True, eq=False)
class Crop:
    """Where a part of a grid lies in the whole.

    Attributes:
        numbers: of its slices, rising.
        rows: of each slice.
        columns: of each slice.
    """

    numbers: NDArray[np.int64]
    rows: slice
    columns: slice


def crop_of(label: Geometry, series: Geometry, tolerance: float = ON_GRID_VOXELS) -> Crop | None:
    """Find where the grid of a label lies within that of a series.

    Args:
        label: axial order.
        series: axial order.
        tolerance: how far, in voxels of the series, a voxel may lie beside it.

    Returns:
        Its place; none where its voxels are not voxels of the series.
    """
    row, column = np.rint(series.to_index(label.to_patient(np.zeros((1, 3))))[0, 1:]).astype(int).tolist()
    if min(row, column) < 0:
        return None
    affine = label.affine.copy()
    affine[:3, 3] -= row * affine[:3, 1] + column * affine[:3, 2]
    whole = Geometry((label.shape[0], *series.shape[1:]), affine, label.uneven)
    numbers = whole.slices_in(series, tolerance)
    last_row, last_column = row + label.shape[1], column + label.shape[2]
    if numbers is None or last_row > series.shape[1] or last_column > series.shape[2]:
        return None
    return Crop(numbers, slice(row, last_row), slice(column, last_column))


def why_no_fit(label: Place, series: Place) -> str:
    """Say what keeps a label from the nearest series; empty where it is no more than that the grids differ."""
    if label.outermost:
        return "they reach beyond the series"
    for one, other in ((label, series), (series, label)):
        if not one.placed and other.placed:
            return f"the header of {one.path} does not say where its voxels lie"
    mine, theirs = label.axial, series.axial
    ends = np.array([[0, 0, 0], [size - 1 for size in mine.shape]], dtype=np.float64)
    found = theirs.to_index(mine.to_patient(ends))
    near = np.rint(found).astype(int)
    on_grid = np.abs(found - near).max() < SAME_PLACE_MM / max(theirs.spacing)
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
    start, end = max(_likeness(one, two) for one in mine[shared:] for two in theirs[shared:])
    same = len(set(mine[shared:]) & set(theirs[shared:]))
    of_files = _likeness(mine[-1], theirs[-1])
    return shared, start, end, same, *of_files, _likeness(mine[shared], theirs[shared])[1]


def carries_name_of(label: Place, other: Place) -> bool:
    """Say whether a label is called as its image is, with at most a suffix on either: ``a_1`` and ``a_1_0000``."""
    mine, theirs = label.parts, other.parts
    shared = _common(mine[:-1], theirs[:-1])
    return any(_extends(one, two) or _extends(two, one) for one in mine[shared:] for two in theirs[shared:])


def numbers_differ(label: Place, other: Place) -> bool:
    """Say whether two are numbered alike but have other numbers, as ``case10`` and ``case1``, or other sessions."""
    named, other_named = dict(_ENTITY.findall(label.path)), dict(_ENTITY.findall(other.path))
    if any(other_named.get(key, value) != value for key, value in named.items()):
        return True
    mine, theirs = label.parts, other.parts
    shared = _common(mine[:-1], theirs[:-1])
    found = [_same_numbers(one, two) for one in mine[shared:] for two in theirs[shared:]]
    return False in found and True not in found


def _likeness(one: str, two: str) -> tuple[float, float]:
    """Return which share of the longer name both names have in common at their starts, and at their ends."""
    longer = max(len(one), len(two), 1)
    if channel := _CHANNEL.fullmatch(two.removeprefix(one)):
        return len(one) / longer, float(not int(channel[1]))
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
