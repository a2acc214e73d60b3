"""Everything of a phantom that is not bone: body, organs, vessels, couch and markers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from boneseg.phantom.shapes import Cone, Ellipsoid, Field, Plane, Point, Shape, smooth_union

AIR, FAT, MUSCLE = -1000.0, -105.0, 52.0
_TORSO = ((-115, 20, 20), (-70, 150, 88), (-20, 172, 112), (40, 168, 112), (100, 152, 106), (220, 150, 108))
_THIGH = ((-330, 68, 76), (-120, 80, 90), (-20, 84, 92), (40, 40, 50))
_CAVITY = ((-45, 10, 10, 8), (-20, 48, 34, 5), (30, 62, 52, 0), (90, 88, 58, -35), (220, 112, 72, -32))
_BACK = 16.0
"""Where the body's middle lies in y."""
_WALL_MM = 1.5


@dataclass(frozen=True)
class Organ:
    """Something with an HU of its own.

    Attributes:
        hu: of the content.
        upper: HU of what swims on top (gas) or none; the patient lies on the back.
        level: part of the organ's height, from the front, that the upper content takes.
        mottle: how far stool or plaque varies in HU.
        wall: HU of a wall of 1.5 mm, or none.
    """

    shape: Shape
    hu: float
    upper: float | None = None
    level: float = 0.0
    mottle: float = 0.0
    wall: float | None = None

    def paint(self, hu: Field, plane: Plane, mottle: Field) -> None:
        """Draw the organ into a slice."""
        window = self.shape.window(plane)
        if window is None:
            return
        y = plane.y[window]
        distance = self.shape.distance(plane.x[window], y, plane.z)
        inside = distance < 0
        if not inside.any():
            return
        content = self.hu + self.mottle * mottle[window]
        if self.upper is not None:
            low, high = float(y[inside].min()), float(y[inside].max())
            content = np.where(y < low + self.level * (high - low), np.float32(self.upper), content)
        if self.wall is not None:
            content = np.where(distance > -_WALL_MM, np.float32(self.wall), content)
        target = hu[window]
        target[inside] = content[inside]


class Body:
    """The body's outline, fat and muscle."""

    def __init__(self, rng: np.random.Generator, scale: float, shift: float) -> None:
        """Draw a body for bones of a given size and place in y."""
        self.width, self.depth = rng.uniform(0.98, 1.14), rng.uniform(1.0, 1.14)
        self.fat = rng.uniform(10, 30)
        self.back = (_BACK + 112 * self.depth - rng.uniform(0, 4)) * scale + shift
        """Where the mattress flattens the body, mm in the scanner."""

    def distance(self, plane: Plane) -> Field:
        """Return the signed distance to the skin."""
        torso = self._ellipse(plane, _TORSO, 0.0)
        if plane.z < 45:
            legs = np.minimum(self._ellipse(plane, _THIGH, -98.0), self._ellipse(plane, _THIGH, 98.0))
            torso = smooth_union(torso, legs, 30.0) if plane.z > -113 else legs
        field: Field = np.maximum(torso, plane.bed_y - np.float32(self.back))
        return field

    def paint(self, hu: Field, plane: Plane, distance: Field, coarse: Field, fine: Field) -> None:
        """Draw skin, fat, muscle with fat between its parts, and the cavity's fat."""
        belly = np.clip(-(plane.y - _BACK) / 110, 0, 1) * self.fat * 0.6
        depth = -distance - belly + 3 * coarse
        tissue = np.where(depth > self.fat, MUSCLE + 6 * fine, FAT + 8 * fine)
        septa = (np.abs(coarse) < 0.10) & (depth > self.fat)
        tissue[septa] = -60
        a, b, y = _table(_CAVITY, plane.z)
        if plane.z > _CAVITY[0][0]:
            cavity = np.hypot(plane.x / a, (plane.y - y) / b) < 1
            tissue[cavity] = (FAT + 10 * fine)[cavity]
        tissue[distance > -1.5] = 25
        inside = distance < 0
        hu[inside] = tissue[inside]

    def _ellipse(self, plane: Plane, table: Sequence[Sequence[float]], x: float) -> Field:
        a, b = _table(table, plane.z)
        shape = Ellipsoid((x, _BACK, 0.0), (a * self.width, b * self.depth, 1e6))
        return shape.distance(plane.x, plane.y, 0.0)


def organs(rng: np.random.Generator) -> list[Organ]:
    """Return organs and vessels in the order in which they are drawn; left and right differ."""
    found: list[Organ] = []
    for side in (-1, 1):
        psoas = ((side * 42, 8, 260), (side * 48, -4, 140), (side * 68, -30, 50), (side * 82, -40, 0))
        found += [Organ(rod, MUSCLE) for rod in _rods(psoas, (22, 22, 17, 10))]
        found.append(Organ(Ellipsoid((side * 75, 38, 225), (27, 25, 48)), rng.uniform(60, 190)))
    found.append(Organ(Ellipsoid((-82, -28, 262), (62, 70, 72)), rng.uniform(70, 125)))  # liver, on the right only
    found += _bowel(rng) + _lower_organs(rng) + _vessels(rng)
    return found


def _bowel(rng: np.random.Generator) -> list[Organ]:
    fed = rng.random() < 0.5
    contrast = rng.uniform(180, 480)
    found = []
    for _ in range(70):
        z = rng.uniform(20, 260)
        a, b, y = _table(_CAVITY, z)
        angle, out = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 0.6))
        centre = (float(a * out * np.cos(angle)), float(y - 4 + b * out * np.sin(angle)), float(z))
        size = rng.uniform(9, 19)
        radii = (size * rng.uniform(0.8, 1.6), size, size * rng.uniform(0.8, 1.4))
        hu = contrast if fed and rng.random() < 0.45 else rng.uniform(5, 45)
        gas = rng.random() < 0.3
        found.append(
            Organ(Ellipsoid(centre, radii), hu, -950.0 if gas else None, rng.uniform(0.15, 0.6), 12.0, wall=55.0)
        )
    colon = ((102, 0, 260), (100, -4, 150), (86, -30, 85), (40, 5, 62), (8, 52, 50))  # descends on the left only
    found += [
        Organ(rod, -60.0, -930.0, rng.uniform(0.2, 0.5), 120.0, wall=50.0) for rod in _rods(colon, (18, 19, 15, 14, 14))
    ]
    return found


def _lower_organs(rng: np.random.Generator) -> list[Organ]:
    size, filled = rng.uniform(24, 40), rng.random() < 0.45
    bladder = Ellipsoid((rng.normal(0, 4), -34, 6), (size * 1.15, size * 0.8, size * 0.85))
    urine = Organ(bladder, rng.uniform(250, 900) if filled else 8.0, 12.0, rng.uniform(0.3, 0.8), wall=40.0)
    rectum = ((8, 52, 50), (0, 66, 20), (0, 62, -15), (0, 45, -50))
    gas = rng.uniform(0.0, 0.7)
    return [
        Organ(Ellipsoid((0, 12, 2), (26, 20, 26)), 48.0, mottle=8.0),  # prostate or uterus
        urine,
        *(Organ(rod, 15.0, -940.0, gas, 60.0, wall=50.0) for rod in _rods(rectum, (14, 17, 15, 9))),
    ]


def _vessels(rng: np.random.Generator) -> list[Organ]:
    artery, vein = rng.uniform(180, 420), rng.uniform(80, 200)
    split = rng.uniform(135, 160)
    wide = rng.uniform(8, 11)
    found = [Organ(Cone((-18, -24, 270), (-16, -26, split - 8), 11, 11), vein)]  # the vena cava lies on the right
    found.append(Organ(Cone((8, -26, 270), (2, -28, split), wide + 1, wide), artery))
    for side in (-1, 1):
        leg: tuple[Point, ...] = (
            *((side * 2.0, -28.0, split), (side * 34.0, -14.0, 95.0), (side * 60.0, -46.0, 42.0)),
            *((side * 70.0, -76.0, -5.0), (side * 74.0, -66.0, -80.0), (side * 70.0, -42.0, -330.0)),
        )
        radii = (wide, 0.7 * wide, 0.55 * wide, 0.5 * wide, 0.42 * wide, 0.4 * wide)
        beside = [(x - side * 9, y + 10, z) for x, y, z in leg]
        found += [Organ(rod, vein) for rod in _rods(beside, [radius + 1.5 for radius in radii])]
        found += [Organ(rod, artery) for rod in _rods(leg, radii)]
        deep = ((side * 34, -14, 95), (side * 50, 25, 50), (side * 48, 40, 10))
        found += [Organ(rod, artery) for rod in _rods(deep, (5, 4, 2.5))]
    for _ in range(int(rng.integers(0, 9))):  # calcified plaque on the walls
        z = rng.uniform(split, 250)
        angle = rng.uniform(0, 2 * np.pi)
        centre = (float(5 + wide * np.cos(angle)), float(-27 + wide * np.sin(angle)), float(z))
        found.append(Organ(Ellipsoid(centre, (2.5, 2.0, 5.0)), rng.uniform(500, 1000)))
    return found


class Outside(Protocol):
    """Something near the body but not of it."""

    def paint(self, hu: Field, plane: Plane, skin: Field) -> None:
        """Draw it into a slice; ``skin`` is the signed distance to the body."""


@dataclass(frozen=True)
class Couch:
    """A table of two thin shells with foam between, and a mattress; flat or hollow."""

    top: float
    hollow: float
    shell_hu: float
    thickness: float
    depth: float

    def paint(self, hu: Field, plane: Plane, skin: Field) -> None:
        """See ``Outside``."""
        bend = self.hollow * (1 - (plane.bed_x / 215) ** 2)
        upper, lower = plane.bed_y - self.top - bend + self.hollow, plane.bed_y - self.top - self.depth - 1.6 * bend
        free = (skin > 0) & (np.abs(plane.bed_x) < 215)
        hu[free & (upper > -9) & (upper <= 0)] = -860
        hu[free & (upper > 0) & (lower < 0)] = -930
        edge = np.minimum(np.abs(upper), np.abs(lower)) < self.thickness
        hu[free & edge & (upper > -self.thickness) & (lower < self.thickness)] = self.shell_hu


@dataclass(frozen=True)
class Marker:
    """A metal bead or wire on the skin, as oncology uses to mark the field."""

    angle: float
    low: float
    high: float
    radius: float
    hu: float

    def paint(self, hu: Field, plane: Plane, skin: Field) -> None:
        """See ``Outside``."""
        over = max(self.low - plane.z, plane.z - self.high, 0.0)
        if over >= self.radius:
            return
        ray = np.cos(self.angle), np.sin(self.angle)
        x, y = plane.x, plane.y - _BACK
        aside = np.abs(x * ray[1] - y * ray[0])
        ahead = x * ray[0] + y * ray[1] > 0
        away = np.sqrt(aside**2 + (skin - self.radius) ** 2 + over**2)
        share = np.clip(0.5 + (self.radius - away) / plane.pixel, 0, 1) * ahead
        hu += share * (self.hu - hu)


def surroundings(rng: np.random.Generator, body: Body) -> list[Outside]:
    """Return the couch and some markers; one marker is always on the patient's left side only."""
    hollow = 0.0 if rng.random() < 0.5 else rng.uniform(15, 40)
    couch = Couch(body.back + 9, hollow, rng.uniform(60, 450), rng.uniform(0.9, 1.8), rng.uniform(35, 60))
    found: list[Outside] = [couch]
    places = [-0.35, *rng.uniform(-np.pi, 0, int(rng.integers(1, 5))).tolist()]
    for index, angle in enumerate(places):
        low = -30.0 if index == 0 else float(rng.uniform(-80, 150))
        long = 70.0 if index == 0 else float(rng.choice([0.0, 0.0, 60.0, 120.0]))
        found.append(Marker(angle, low, low + long, rng.uniform(1.0, 2.2), rng.uniform(1500, 3000)))
    return found


def _rods(points: Sequence[Sequence[float]], radii: Sequence[float]) -> list[Shape]:
    """Return cones from point to point."""
    return [
        Cone((start[0], start[1], start[2]), (end[0], end[1], end[2]), radius, end_radius)
        for start, end, radius, end_radius in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)
    ]


def _table(table: Sequence[Sequence[float]], z: float) -> NDArray[np.float64]:
    """Return a table's values at ``z``, which is its first column."""
    columns = np.array(table, dtype=np.float64).T
    return np.array([np.interp(z, columns[0], column) for column in columns[1:]])
