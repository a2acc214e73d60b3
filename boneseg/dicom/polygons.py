"""Closed polygons filled by the pixel-centre rule: exact, and in time that grows with their length in pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

ON_EDGE = 0.01
"""Pixels from an edge within which a pixel's centre counts as lying on it: what rounding to 0.01 mm moves a point."""
_AT_ONCE = 1 << 21
"""Crossings of edges and lines of pixels that are worked on at the same time."""

Points = NDArray[np.float64]
"""Corners of a polygon, (N, 2) as (row, column) in pixels: whole numbers are centres of pixels."""


@dataclass(frozen=True, eq=False)
class Patch:
    """The part of a slice in which something lies.

    Attributes:
        row: of the slice, at which the mask starts.
        column: as ``row``.
        mask: bool, (rows, columns).
    """

    row: int
    column: int
    mask: NDArray[np.bool_]

    @property
    def place(self) -> tuple[slice, slice]:
        """Where in the slice the mask lies."""
        rows, columns = self.mask.shape
        return slice(self.row, self.row + rows), slice(self.column, self.column + columns)


def fill(polygons: Sequence[Points], rows: int, columns: int) -> Patch | None:
    """Fill polygons of one structure on one slice.

    A pixel is inside where its centre lies within an odd number of the polygons: one in another is a hole, and one in
    the hole an island. A pixel whose centre lies on an edge is inside, whatever the number, so that the outlines that
    run through the border pixels of a mask (of its holes too) give back that mask, as do those half-way between pixels.

    Args:
        polygons: closed, whether or not the last corner repeats the first; those of one or two corners are a point and
            a line. They may reach beyond the slice.
        rows: of the slice.
        columns: of the slice.

    Returns:
        The pixels inside; none where there are none.
    """
    starts = np.concatenate([points for points in polygons if len(points)] or [np.empty((0, 2))])
    if not len(starts):
        return None
    ends = np.concatenate([np.roll(points, -1, axis=0) for points in polygons if len(points)])
    size = np.array([rows, columns])
    low = np.clip(np.ceil(starts.min(axis=0) - ON_EDGE), 0, size).astype(np.int64)
    high = np.clip(np.floor(starts.max(axis=0) + ON_EDGE) + 1, 0, size).astype(np.int64)
    if (high <= low).any():
        return None
    height, width = (int(length) for length in high - low)
    mask = _within_odd(starts - low, ends - low, height, width)
    _mark_edges(mask, starts - low, ends - low)
    return Patch(int(low[0]), int(low[1]), mask) if mask.any() else None


def between(below: Patch, above: Patch, share: float, spacing: tuple[float, float]) -> Patch | None:
    """Return the shape at a place between two others, by the distances from their borders.

    Shape-based interpolation of Raya and Udupa (IEEE Transactions on Medical Imaging 9, 1990): distances in mm,
    positive inside, are interpolated linearly, and what is not negative is inside.

    Args:
        below: the shape on one side.
        above: the shape on the other side.
        share: how far from the first to the second, 0 to 1.
        spacing: mm between rows and between columns.
    """
    row, column = min(below.row, above.row), min(below.column, above.column)
    rows, columns = (max(below.place[axis].stop, above.place[axis].stop) for axis in (0, 1))
    # A margin of what is outside, also where a shape ends with the slice: it is cut there, not closed.
    distance = np.zeros((rows - row + 2, columns - column + 2))
    for patch, weight in ((below, 1 - share), (above, share)):
        mask = np.zeros(distance.shape, dtype=bool)
        height, width = patch.mask.shape
        top, left = patch.row - row + 1, patch.column - column + 1
        mask[top : top + height, left : left + width] = patch.mask
        inside = ndimage.distance_transform_edt(mask, sampling=spacing)
        distance += weight * (inside - ndimage.distance_transform_edt(~mask, sampling=spacing))
    shape = distance[1:-1, 1:-1] >= -ON_EDGE * min(spacing)
    return Patch(row, column, shape) if shape.any() else None


def _within_odd(starts: Points, ends: Points, height: int, width: int) -> NDArray[np.bool_]:
    """Count, for each pixel, the edges to its left on the line of its centre: an odd number is inside."""
    rise = ends[:, 0] - starts[:, 0]
    first = np.ceil(np.minimum(starts[:, 0], ends[:, 0]))
    stop = np.ceil(np.maximum(starts[:, 0], ends[:, 0]))  # half open: a corner belongs to one of its two edges
    crossed = np.zeros(height * (width + 1), dtype=np.int64)
    for edge, row in _lines(first, stop, height):
        share = (row - starts[edge, 0]) / rise[edge]
        column = starts[edge, 1] + share * (ends[edge, 1] - starts[edge, 1])
        right = np.clip(np.floor(column) + 1, 0, width).astype(np.int64)
        crossed += np.bincount(row * (width + 1) + right, minlength=len(crossed))
    counts = np.cumsum(crossed.reshape(height, width + 1), axis=1)[:, :width]
    return (counts & 1).astype(bool)


def _mark_edges(mask: NDArray[np.bool_], starts: Points, ends: Points) -> None:
    """Set the pixels whose centres lie on an edge, looking along each edge in the direction in which it is longer."""
    way = ends - starts
    steep = np.abs(way[:, 0]) >= np.abs(way[:, 1])
    for along, some in ((0, steep), (1, ~steep)):
        if not some.any():
            continue
        across = 1 - along
        start, end, step = starts[some], ends[some], way[some]
        first = np.ceil(np.minimum(start[:, along], end[:, along]) - ON_EDGE)
        stop = np.floor(np.maximum(start[:, along], end[:, along]) + ON_EDGE) + 1
        length = np.where(step[:, along] == 0, 1.0, step[:, along])
        for edge, line in _lines(first, stop, mask.shape[along]):
            share = np.clip((line - start[edge, along]) / length[edge], 0, 1)
            there = start[edge, across] + share * step[edge, across]
            nearest = np.rint(there)
            off = line - (start[edge, along] + share * step[edge, along])
            on = (off**2 + (nearest - there) ** 2 <= ON_EDGE**2) & (nearest >= 0) & (nearest < mask.shape[across])
            pixel = (line[on], nearest[on].astype(np.int64))
            mask[pixel if along == 0 else pixel[::-1]] = True


def _lines(
    first: NDArray[np.float64], stop: NDArray[np.float64], count: int
) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """Give pairs of an edge and a line of pixels from ``first`` to before ``stop`` of that edge, some at a time."""
    start = np.clip(first, 0, count).astype(np.int64)
    lengths = np.maximum(np.clip(stop, 0, count).astype(np.int64) - start, 0)
    used = np.flatnonzero(lengths)
    total = np.cumsum(lengths[used])
    begin = 0
    while begin < len(used):
        done = total[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, done + _AT_ONCE, side="right")))
        some = used[begin:end]
        edges = np.repeat(some, lengths[some])
        within = np.arange(len(edges)) - np.repeat(total[begin:end] - lengths[some] - done, lengths[some])
        yield edges, start[edges] + within
        begin = end
