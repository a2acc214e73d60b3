"""Shapes as signed distances, evaluated slice by slice: negative inside, millimetres.

All coordinates are those of a standard patient (LPS, origin between the hip joints); a ``Plane`` maps the pixels of
one slice into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Window = tuple[slice, slice]
Point = tuple[float, float, float]

_REACH_MM = 10.0
"""How far beyond its outline a shape is evaluated; covers the warp of the coordinates and the cortex's blur."""


@dataclass(frozen=True)
class Plane:
    """One slice in the coordinates of the standard patient.

    Attributes:
        x: (rows, columns).
        y: (rows, columns).
        z: the same for all pixels of the slice.
        matrix: 3x3, from (column, row, 1) to (x, y, 1), without the warp.
        pixel: mm of the standard patient that a pixel covers.
        bed_x: (1, columns), mm in the scanner: the couch does not turn and bend with the patient.
        bed_y: (rows, 1), mm in the scanner.
    """

    x: Field
    y: Field
    z: float
    matrix: NDArray[np.float64]
    pixel: float
    bed_x: Field
    bed_y: Field

    def window(self, low: tuple[float, float], high: tuple[float, float]) -> Window:
        """Return the pixels that a box of the standard patient may reach."""
        corners = np.array([[x, y, 1.0] for x in (low[0], high[0]) for y in (low[1], high[1])])
        pixels = corners @ np.linalg.inv(self.matrix).T
        reach = _REACH_MM / self.pixel
        first = np.floor(pixels.min(axis=0) - reach).astype(int)
        last = np.ceil(pixels.max(axis=0) + reach).astype(int)
        rows, columns = self.x.shape
        return (
            slice(*np.clip([first[1], last[1]], 0, rows).tolist()),
            slice(*np.clip([first[0], last[0]], 0, columns).tolist()),
        )


class Shape(Protocol):
    """What a shape must offer."""

    def window(self, plane: Plane) -> Window | None:
        """Return the pixels where the shape may be; None where the slice does not meet it."""

    def distance(self, x: Field, y: Field, z: float) -> Field:
        """Return the signed distance at each pixel."""


@dataclass(frozen=True)
class Cone:
    """A rod with round ends whose radius changes evenly from one end to the other."""

    start: Point
    end: Point
    radius: float
    end_radius: float

    def window(self, plane: Plane) -> Window | None:
        """See ``Shape``."""
        reach = max(self.radius, self.end_radius)
        low = [min(a, b) - reach for a, b in zip(self.start, self.end, strict=True)]
        high = [max(a, b) + reach for a, b in zip(self.start, self.end, strict=True)]
        return _window(plane, low, high)

    def distance(self, x: Field, y: Field, z: float) -> Field:
        """See ``Shape``."""
        axis = np.subtract(self.end, self.start)
        px, py, pz = x - self.start[0], y - self.start[1], z - self.start[2]
        along = np.clip((px * axis[0] + py * axis[1] + pz * axis[2]) / float(axis @ axis), 0, 1)
        away = np.sqrt((px - along * axis[0]) ** 2 + (py - along * axis[1]) ** 2 + (pz - along * axis[2]) ** 2)
        return _field(away - (self.radius + (self.end_radius - self.radius) * along))


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid along the axes; the distance is the usual first-order one."""

    centre: Point
    radii: Point

    def window(self, plane: Plane) -> Window | None:
        """See ``Shape``."""
        return _window(plane, np.subtract(self.centre, self.radii).tolist(), np.add(self.centre, self.radii).tolist())

    def distance(self, x: Field, y: Field, z: float) -> Field:
        """See ``Shape``."""
        px, py = (x - self.centre[0]) / self.radii[0], (y - self.centre[1]) / self.radii[1]
        pz = (z - self.centre[2]) / self.radii[2]
        relative = np.sqrt(px**2 + py**2 + pz**2)
        slope = np.sqrt((px / self.radii[0]) ** 2 + (py / self.radii[1]) ** 2 + (pz / self.radii[2]) ** 2)
        return _field(relative * (relative - 1) / np.maximum(slope, 1e-6))


@dataclass(frozen=True)
class Loft:
    """A body whose cross-section is a curve with a thickness; both change along z.

    Attributes:
        keys: per key: z, and the curve's points as (x, y, radius); all keys have as many points.
    """

    keys: Sequence[tuple[float, Sequence[Point]]]

    def window(self, plane: Plane) -> Window | None:
        """See ``Shape``."""
        if not self.keys[0][0] <= plane.z <= self.keys[-1][0]:
            return None
        curve = self._curve(plane.z)
        reach = max(0.0, float(curve[:, 2].max()))
        low, high = curve[:, :2].min(axis=0) - reach, curve[:, :2].max(axis=0) + reach
        return plane.window((low[0], low[1]), (high[0], high[1]))

    def distance(self, x: Field, y: Field, z: float) -> Field:
        """See ``Shape``."""
        curve = self._curve(z)
        nearest = np.full(x.shape, np.inf, dtype=np.float32)
        for (ax, ay, ar), (bx, by, br) in zip(curve[:-1].tolist(), curve[1:].tolist(), strict=True):
            dx, dy = bx - ax, by - ay
            along = np.clip(((x - ax) * dx + (y - ay) * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1)
            away = np.hypot(x - ax - along * dx, y - ay - along * dy) - (ar + (br - ar) * along)
            np.minimum(nearest, away, out=nearest)
        return nearest

    def _curve(self, z: float) -> NDArray[np.float64]:
        heights = [key for key, _ in self.keys]
        table = np.array([points for _, points in self.keys], dtype=np.float64)
        flat = table.reshape(len(heights), -1)
        return np.array([np.interp(z, heights, column) for column in flat.T]).reshape(table.shape[1:])


def mirrored(shape: Shape) -> Shape:
    """Return the shape on the other side of the patient."""
    match shape:
        case Cone(start, end, radius, end_radius):
            return Cone((-start[0], *start[1:]), (-end[0], *end[1:]), radius, end_radius)
        case Ellipsoid(centre, radii):
            return Ellipsoid((-centre[0], *centre[1:]), radii)
        case Loft(keys):
            return Loft([(z, [(-x, y, radius) for x, y, radius in points]) for z, points in keys])
    raise TypeError(f"no mirror image of {type(shape).__name__}")


def smooth_union(first: Field, second: Field, width: float) -> Field:
    """Join two distances with a rounded seam (polynomial smooth minimum, I. Quilez)."""
    blend = np.clip(0.5 + 0.5 * (second - first) / width, 0, 1)
    return _field(second + (first - second) * blend - width * blend * (1 - blend))


def joined(window: Window | None, other: Window | None) -> Window | None:
    """Return the smallest window that holds both."""
    if window is None or other is None:
        return window if other is None else other
    rows, columns = (
        slice(min(first.start, second.start), max(first.stop, second.stop))
        for first, second in zip(window, other, strict=True)
    )
    return rows, columns


def _field(values: NDArray[Any]) -> Field:
    return values.astype(np.float32, copy=False)


def _window(plane: Plane, low: Sequence[float], high: Sequence[float]) -> Window | None:
    if not low[2] - _REACH_MM <= plane.z <= high[2] + _REACH_MM:
        return None
    return plane.window((low[0], low[1]), (high[0], high[1]))
