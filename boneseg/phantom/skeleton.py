"""The bones of a phantom: lumbar spine, sacrum, hip bones and femora of a standard patient, varied by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boneseg.phantom.shapes import (
    Cone,
    Ellipsoid,
    Field,
    Loft,
    Plane,
    Point,
    Shape,
    Window,
    joined,
    mirrored,
    smooth_union,
)

_SEAM_MM = 5.0


@dataclass(frozen=True)
class Bone:
    """One bone.

    Attributes:
        shapes: joined with smooth seams.
        holes: cut out: the spinal canal, foramina, the hip socket.
        cortex: thickness of the hard shell in mm, by z.
        core: what the inside differs in HU from the patient's spongy bone, by z.
    """

    shapes: Sequence[Shape]
    holes: Sequence[Shape] = ()
    cortex: Sequence[tuple[float, float]] = ((0.0, 1.6),)
    core: Sequence[tuple[float, float]] = ((0.0, 0.0),)

    def draw(self, plane: Plane) -> tuple[Window, Field] | None:
        """Return the signed distance in the part of a slice that the bone may reach; None where it does not."""
        met = [shape for shape in self.shapes if shape.window(plane) is not None]
        window = None
        for shape in met:
            window = joined(window, shape.window(plane))
        if window is None:
            return None
        x, y = plane.x[window], plane.y[window]
        distance = np.full(x.shape, 1e3, dtype=np.float32)
        for shape in met:
            distance = smooth_union(distance, shape.distance(x, y, plane.z), _SEAM_MM)
        for hole in self.holes:
            if hole.window(plane) is not None:
                distance = np.maximum(distance, -hole.distance(x, y, plane.z))
        return window, distance

    def cortex_at(self, z: float) -> float:
        """Return the shell's thickness in mm."""
        return _at(self.cortex, z)

    def core_at(self, z: float) -> float:
        """Return the difference of the core from spongy bone in HU."""
        return _at(self.core, z)


def skeleton(rng: np.random.Generator) -> list[Bone]:
    """Return all bones of a patient, each with proportions of its own."""
    left_hip, left_femur = hip_bone(rng), femur(rng)
    bones = [left_hip, _other_side(left_hip), left_femur, _other_side(left_femur), sacrum(rng)]
    bones.append(Bone([Cone((0, 92, -2), (0, 82, -22), 6, 3)], cortex=((0.0, 1.0),)))  # coccyx
    bottom = 103.0 + rng.normal(0, 2)
    for level in range(4):
        bones.append(vertebra(rng, bottom, forward=5.0 - 9.0 * level + 1.5 * level**2))
        bottom += rng.uniform(36, 39)
    return bones


def hip_bone(rng: np.random.Generator) -> Bone:
    """Return the left ilium, pubis and ischium with the hip socket."""
    flare, thick = rng.normal(0, 5), rng.uniform(0.85, 1.2)
    wing = Loft(
        [
            (18, [(60, 32, 10), (76, 10, 12), (88, -12, 12), (94, -30, 8)]),
            (40, [(49, 60, 9), (78, 32, 8), (98, 0, 9), (110, -38, 8)]),
            (62, [(41, 76, 11), (80, 46, 5 * thick), (108, 8, 5 * thick), (120 + flare, -50, 7)]),
            (85, [(44, 84, 10), (86, 55, 3.6 * thick), (118 + flare, 18, 3.4 * thick), (128 + flare, -46, 6)]),
            (110, [(56, 80, 7), (95, 58, 3.2 * thick), (123 + flare, 30, 3.4 * thick), (134 + flare, -18, 5)]),
            (130, [(78, 68, 4.5), (102, 56, 4), (122 + flare, 40, 4.2), (132 + flare, 14, 4.5)]),
            (139, [(92, 60, 1), (104, 54, 2.5), (118 + flare, 44, 2.5), (124 + flare, 32, 1)]),
        ]
    )
    wide = rng.normal(0, 4)
    shapes: list[Shape] = [
        wing,
        Cone((74, 30, 22), (76, 32, -12), 14, 13),  # back column
        Cone((76, 32, -12), (62 + wide, 44, -62), 13, 15),  # ischium
        Cone((80, -18, 20), (70, -26, 2), 12, 11),  # front column
        Cone((70, -26, 2), (24, -60, -20), 9, 7),  # upper branch of the pubis
        Ellipsoid((14, -63, -34), (11, 9, 19)),
        Cone((13, -60, -48), (50 + wide, 34, -70), 6, 9),  # lower branch
        Ellipsoid((80, 2, 7), (27, 35, 35)),  # walls and roof of the socket
    ]
    holes: list[Shape] = [Ellipsoid((91, -2, 0), (28.5, 28.5, 28.5)), Ellipsoid((52, -10, -42), (17, 24, 17))]
    return Bone(shapes, holes, cortex=((-60.0, 2.2), (20.0, 2.0), (100.0, 1.5)))


def femur(rng: np.random.Generator) -> Bone:
    """Return the upper half of the left femur."""
    head, turn, neck = rng.uniform(22.5, 25), rng.normal(0, 6), rng.uniform(13.5, 16)
    shapes: list[Shape] = [
        Ellipsoid((91, -2, 0), (head, head, head)),
        Cone((91, -2, 0), (130, 10 + turn, -28), neck, neck + 1),
        Ellipsoid((141, 20 + turn, -16), (15, 17, 25)),
        Cone((132, 14 + turn, -30), (128, 8 + turn / 2, -78), 19, 16),
        Ellipsoid((117, 26 + turn, -60), (10, 11, 14)),
        Cone((128, 8 + turn / 2, -70), (112, 2, -330), 15.5, 14),
    ]
    return Bone(shapes, cortex=((-110.0, 6.5), (-60.0, 3.5), (-25.0, 1.6)), core=((-110.0, -190.0), (-40.0, 0.0)))


def sacrum(rng: np.random.Generator) -> Bone:
    """Return the sacrum with its canal and foramina."""
    back, wide = rng.normal(0, 4), rng.uniform(0.92, 1.08)

    def row(half: float, front: float, radii: tuple[float, float, float]) -> list[Point]:
        ends, sides, middle = radii
        x = half * wide
        depth = front + back
        return [
            (-x, depth + 12, ends),
            (-x / 2, depth + 4, sides),
            (0, depth, middle),
            (x / 2, depth + 4, sides),
            (x, depth + 12, ends),
        ]

    body = Loft(
        [
            (-6, row(9, 92, (2, 4, 6))),
            (14, row(20, 92, (4, 7, 9))),
            (38, row(34, 84, (8, 10, 12))),
            (60, row(46, 66, (12, 13, 15))),
            (82, row(52, 48, (13, 15, 18))),
            (97, row(46, 36, (7, 12, 17))),
        ]
    )
    crest = Loft(
        [
            (z, [(-12, y + back, 5), (0, y + back + 6, 7), (12, y + back, 5)])
            for z, y in ((20, 104), (50, 100), (92, 84))
        ]
    )
    holes: list[Shape] = [Cone((0, 68 + back, 100), (0, 98 + back, 20), 8.5, 5)]
    for z, front in ((30.0, 86.0), (52.0, 72.0), (73.0, 56.0)):
        for side in (-1, 1):
            x = side * (15 + 0.08 * z)
            holes.append(Cone((x, front - 12 + back, z), (x * 1.1, front + 34 + back, z - 2), 5.5, 4))
    return Bone([body, crest], holes, cortex=((0.0, 1.3),), core=((0.0, -40.0),))


def vertebra(rng: np.random.Generator, bottom: float, forward: float) -> Bone:
    """Return a lumbar vertebra whose body begins at ``bottom``; ``forward`` is where its centre lies in y."""
    height, rx, ry = rng.uniform(26, 28.5), rng.uniform(23, 27), rng.uniform(16, 19)
    top, middle, y = bottom + height, bottom + height / 2, forward + rng.normal(0, 1.5)
    half = rx - ry
    rim = [(-half, y, ry), (0.0, y, ry), (half, y, ry)]
    waist = [(-half, y, ry - 2.5), (0.0, y, ry - 2.5), (half, y, ry - 2.5)]
    body = Loft([(bottom, rim), (middle, waist), (top, rim)])
    back = y + ry
    shapes: list[Shape] = [body, Cone((0, back + 24, middle - 4), (0, back + 50, middle - 12), 4, 4.5)]
    long = rng.uniform(40, 50)
    for side in (-1, 1):
        shapes += [
            Cone((side * 15, y + ry - 5, middle + 5), (side * 17, back + 12, middle + 3), 5.5, 5.5),
            Cone((side * 17, back + 12, middle + 1), (0, back + 25, middle - 5), 5, 5),
            Cone((side * 18, back + 10, middle + 3), (side * long, back + 14, middle + 5), 5, 3.5),
            Cone((side * 19, back + 14, middle + 16), (side * 18, back + 17, middle - 17), 6, 6.5),
        ]
    canal = Cone((0, back + 9, bottom - 20), (0, back + 9, top + 20), 10, 10)
    return Bone(shapes, [canal], cortex=((0.0, 1.2),), core=((0.0, -10.0),))


def _other_side(bone: Bone) -> Bone:
    return Bone(
        [mirrored(shape) for shape in bone.shapes], [mirrored(hole) for hole in bone.holes], bone.cortex, bone.core
    )


def _at(table: Sequence[tuple[float, float]], z: float) -> float:
    return float(np.interp(z, [key for key, _ in table], [value for _, value in table]))
