"""Contours of a region drawn on the slices of a series: which plane belongs to which slice, and what lies between."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boneseg.dicom.contours import Region
from boneseg.dicom.polygons import Patch, Points, between, fill
from boneseg.errors import LabelError
from boneseg.geometry import Geometry

_ONE_PLANE = 0.05
"""Slices within which contours are of one plane."""
_ON_SLICE = 0.2
"""How far from a slice, in slices or in distances of planes, a contour may lie to count as drawn on it."""
_FLAT, _FLAT_MM = 0.2, 0.1
"""How far apart along the slices' line the points of a contour may lie: in slices, or in mm."""
_GAP = 1.5
"""Planes farther apart than so many of their usual distances have a gap between them."""
_ROUNDING = 1e-3


@dataclass(frozen=True, eq=False)
class Planes:
    """A region's contours, plane by plane, in the index space of a series.

    Attributes:
        positions: of each plane, in slices with fractions, rising.
        polygons: of each plane, (row, column).
    """

    positions: tuple[float, ...]
    polygons: tuple[tuple[Points, ...], ...]


def planes_of(region: Region, geometry: Geometry) -> Planes:
    """Bring contours into the index space of a series, whichever way its slices lie in the patient.

    Raises:
        LabelError: a contour does not lie in one plane, or in none that is parallel to the slices; names no file.
    """
    if not region.contours:
        return Planes((), ())
    lengths = [len(contour) for contour in region.contours]
    points = geometry.to_index(np.concatenate(region.contours))
    starts = np.cumsum([0, *lengths[:-1]])
    low = np.minimum.reduceat(points[:, 0], starts)
    high = np.maximum.reduceat(points[:, 0], starts)
    step = geometry.spacing[0]
    bent = np.flatnonzero((high - low) > max(_FLAT, _FLAT_MM / step))
    if len(bent):
        raise LabelError(_why_bent(region, region.contours[bent[0]], geometry))
    middles = (low + high) / 2
    pieces = np.split(points[:, 1:], starts[1:])
    order = np.argsort(middles, kind="stable")
    first = np.concatenate([[True], np.diff(middles[order]) > _ONE_PLANE])
    groups = np.split(order, np.flatnonzero(first)[1:])
    positions = np.array([float(middles[group].mean()) for group in groups])
    near = _ON_SLICE * min(1.0, usual_distance([positions]) or 1.0)
    on_slice = np.abs(positions - np.rint(positions)) <= near
    positions = np.where(on_slice, np.rint(positions), positions)
    drawn: dict[float, list[Points]] = {}
    for position, group in zip(positions.tolist(), groups, strict=True):
        drawn.setdefault(position, []).extend(pieces[index] for index in group)
    return Planes(tuple(drawn), tuple(tuple(polygons) for polygons in drawn.values()))


def usual_distance(regions: Iterable[Sequence[float] | NDArray[np.float64]]) -> float | None:
    """Return how far apart neighbouring planes of some regions mostly are, in slices; none where no region has two."""
    apart = np.concatenate([np.diff(positions) for positions in regions if len(positions) > 1] or [np.empty(0)])
    return float(np.median(apart)) if len(apart) else None


def drawn_slices(planes: Planes, geometry: Geometry, among: float | None = None) -> Mapping[int, Patch]:
    """Draw a region on the slices of a series.

    A slice on which contours lie is what they enclose (``polygons.fill``). A slice between two planes is interpolated
    by shape (``polygons.between``) where these are at most 1.5 times as far apart as the region's planes usually are:
    regions are drawn on every n-th slice, or on planes between the slices; what lies farther apart has a gap. At each
    end, and on both sides of a gap, the region reaches half the usual distance beyond its last plane.

    Args:
        planes: of the region.
        geometry: of the series as read.
        among: usual distance of the planes of all regions, in slices: of a region with fewer than three planes nobody
            can say what is usual.

    Returns:
        Slice -> what is inside, for slices on which something is, in whatever order.
    """
    if not planes.positions:
        return {}
    own = usual_distance([planes.positions])
    usual = own if own is not None and len(planes.positions) > 2 else among or own or 1.0
    return _Drawing(planes, geometry, usual).slices()


class _Drawing:
    def __init__(self, planes: Planes, geometry: Geometry, usual: float) -> None:
        self._planes, self._geometry, self._usual = planes, geometry, usual
        self._positions = np.array(planes.positions)
        self._distances = geometry.distances(self._positions)
        self._filled: dict[int, Patch | None] = {}

    def slices(self) -> dict[int, Patch]:
        count = self._geometry.shape[0]
        reach = self._usual / 2 + _ROUNDING
        first = max(math.ceil(self._positions[0] - reach), 0)
        end = min(math.floor(self._positions[-1] + reach) + 1, count)
        drawn = {}
        for number in range(first, end):
            if (patch := self._at(number, reach)) is not None:
                drawn[number] = patch
            self._forget(number - 1)
        return drawn

    def _at(self, number: int, reach: float) -> Patch | None:
        above = int(np.searchsorted(self._positions, number))
        if above < len(self._positions) and self._positions[above] == number:
            return self._fill(above)
        below = above - 1
        if below < 0 or above == len(self._positions):
            only = above if below < 0 else below
            return self._fill(only) if abs(self._positions[only] - number) <= reach else None
        apart = self._positions[above] - self._positions[below]
        nearest = min((below, above), key=lambda index: abs(self._positions[index] - number))
        if apart > _GAP * self._usual + _ROUNDING:
            return self._fill(nearest) if abs(self._positions[nearest] - number) <= reach else None
        one, other = self._fill(below), self._fill(above)
        if one is None or other is None:  # beside the picture
            return self._fill(nearest)
        here = float(self._geometry.distances(np.array([float(number)]))[0])
        share = (here - self._distances[below]) / (self._distances[above] - self._distances[below])
        _, row, column = self._geometry.spacing
        return between(one, other, float(share), (row, column))

    def _fill(self, index: int) -> Patch | None:
        if index not in self._filled:
            _, rows, columns = self._geometry.shape
            self._filled[index] = fill(self._planes.polygons[index], rows, columns)
        return self._filled[index]

    def _forget(self, number: int) -> None:
        """Forget planes that no later slice needs."""
        for index in [index for index in self._filled if index + 1 < np.searchsorted(self._positions, number)]:
            del self._filled[index]


def beyond(planes: Planes, geometry: Geometry) -> int:
    """Count the planes that lie before the first or behind the last slice of a series."""
    return sum(not -0.5 <= position <= geometry.shape[0] - 0.5 for position in planes.positions)


def _why_bent(region: Region, contour: NDArray[np.float64], geometry: Geometry) -> str:
    """Say whether a contour lies in a plane of its own or in none."""
    centred = contour - contour.mean(axis=0)
    *_, axes = np.linalg.svd(centred, full_matrices=True) if len(contour) < 4 else np.linalg.svd(centred.T @ centred)
    normal = axes[-1]
    if np.ptp(centred @ normal) > max(_FLAT_MM, _FLAT * geometry.spacing[0]):
        return f"region {region.number} has a contour whose points do not lie in one plane; export it again"
    slices = np.cross(geometry.affine[:3, 1], geometry.affine[:3, 2])
    cosine = abs(float(normal @ slices)) / float(np.linalg.norm(slices))
    degrees = math.degrees(math.acos(min(cosine, 1.0)))
    return (
        f"the contours of region {region.number} lie at {degrees:.0f} degrees to the slices of the series; draw "
        "them on its slices, or export the region as DICOM SEG or NIfTI"
    )
