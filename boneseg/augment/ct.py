"""Changes that happen to CT series, in HU: another scanner, kernel, dose, slice, field of view, couch, contrast, metal.

Each operation says in what range it changes what. None makes a label untrue: what the network must find stays where it
is, and is found again under the change.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from boneseg.augment.base import Augmentation, Image, Label
from boneseg.hu import AIR_HU, SCANNER_HIGHEST_HU, normalise
from boneseg.opencv import cv2
from boneseg.scheme import Labelling
from boneseg.scheme.labelling import take
from boneseg.settings.schema import PreprocessSettings

BACKGROUND, BODY, BONE = range(3)
"""Roles."""

ZOOM = (0.75, 1.35)
ROTATION_DEGREES = 15.0
SLAB_MM = (2.0, 6.0)
COARSEST_PIXEL_MM = 3.0
NOISE_HU = (5.0, 80.0)

Operation = Callable[[Image, Label, float, np.random.Generator], None]
"""Changes HU (slices, h, w) and roles (h, w: 0 background, 1 body, 2 bone) in place; knows the pixel's side in mm."""


class CtAugmentation(Augmentation):
    """Zoom, turn and flip; then the operations of ``OPERATIONS``, each by its own chance."""

    def __init__(self, crop: int, preprocess: PreprocessSettings, labelling: Labelling) -> None:
        angle = math.radians(ROTATION_DEGREES)
        super().__init__(math.ceil(crop * (math.cos(angle) + math.sin(angle)) / ZOOM[0]), crop, preprocess, labelling)

    def slab_mm(self, rng: np.random.Generator) -> float:
        """Draw a thickness of 2 to 6 mm for three in ten crops."""
        return float(rng.uniform(*SLAB_MM)) if rng.random() < 0.3 else 0.0

    def __call__(self, hu: Image, label: Label, pixel_mm: float, seed: int) -> tuple[Image, Label]:
        """Change a window in HU and normalise it."""
        rng = np.random.default_rng(seed)
        hu, label, zoom, mirrored = move(hu, label, self.crop, rng)
        if mirrored:
            label = take(self.labelling.mirrored, label)
        roles = take(self.labelling.roles, label)
        for chance, operation in OPERATIONS:
            if rng.random() < chance:
                operation(hu, roles, pixel_mm / zoom, rng)
        label[roles == BACKGROUND] = 0  # what a field of view cut off
        return normalise(np.clip(hu, AIR_HU, SCANNER_HIGHEST_HU, out=hu), self.preprocess.window), label


def move(hu: Image, label: Label, crop: int, rng: np.random.Generator) -> tuple[Image, Label, float, bool]:
    """Zoom by 0.75 to 1.35 (the logarithm is uniform), turn by up to 15 degrees, mirror left and right by one half.

    Returns:
        Image (slices, crop, crop), label (crop, crop), the zoom, and whether it is mirrored. Outside the window lie air
        and background.
    """
    zoom = math.exp(rng.uniform(*np.log(ZOOM)))
    angle = math.radians(rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES))
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    # From a pixel of the crop to a place in the window; OpenCV's points are (column, row).
    linear = np.array([[cosine * mirror, -sine], [sine * mirror, cosine]])
    middle = np.array([(label.shape[1] - 1) / 2, (label.shape[0] - 1) / 2])
    matrix = np.column_stack([linear, middle - linear @ np.full(2, (crop - 1) / 2)])
    moved = np.empty((len(hu), crop, crop), np.float32)
    linear_flags, nearest_flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    for index, plane in enumerate(hu):
        moved[index] = cv2.warpAffine(
            plane, matrix, (crop, crop), flags=linear_flags, borderMode=cv2.BORDER_CONSTANT, borderValue=AIR_HU
        )
    turned = cv2.warpAffine(label, matrix, (crop, crop), flags=nearest_flags, borderValue=BACKGROUND)
    return moved, np.asarray(turned, np.uint8), zoom, mirror < 0


def resolution(hu: Image, roles: Label, pixel_mm: float, rng: np.random.Generator) -> None:
    """Scan with pixels of up to 3 mm: average over them and interpolate back."""
    factor = math.exp(rng.uniform(0.0, max(0.0, math.log(COARSEST_PIXEL_MM / pixel_mm))))
    size = hu.shape[-1]
    coarse = max(8, round(size / factor))
    for plane in hu:
        small = cv2.resize(plane, (coarse, coarse), interpolation=cv2.INTER_AREA)
        cv2.resize(small, (size, size), dst=plane, interpolation=cv2.INTER_LINEAR)


def kernel(hu: Image, roles: Label, pixel_mm: float, rng: np.random.Generator) -> None:
    """Reconstruct softer (Gaussian, 0.3 to 1 mm) or sharper (unsharp mask of 1 mm, by 0.3 to 1.2)."""
    softer = rng.random() < 0.5
    sigma = rng.uniform(0.3, 1.0) if softer else 1.0
    amount = rng.uniform(0.3, 1.2)
    for plane in hu:
        blurred = cv2.GaussianBlur(plane, (0, 0), sigma / pixel_mm)
        plane[:] = blurred if softer else plane + amount * (plane - blurred)


def noise(hu: Image, roles: Label, pixel_mm: float, rng: np.random.Generator) -> None:
    """Add Gaussian noise of 5 to 80 HU (the logarithm is uniform), grainy by up to 1.2 pixels, as a kernel makes it."""
    level = math.exp(rng.uniform(*np.log(NOISE_HU)))
    grain = rng.uniform(0.0, 1.2)
    for plane in hu:
        field = rng.standard_normal(plane.shape, dtype=np.float32)
        if grain > 0.3:
            cv2.GaussianBlur(field, (0, 0), grain, dst=field)
            field /= field.std()
        plane[:] += level * field


def calibration(hu: Image, roles: Label, pixel_mm: float, rng: np.random.Generator) -> None:
    """Shift all HU by up to 20 and stretch them by up to 4 %, as tube voltages and scanners differ."""
    hu *= rng.uniform(0.96, 1.04)
    hu += rng.uniform(-20.0, 20.0)


def density(hu: Image, roles: Label, pixel_mm: float, rng: np.random.Generator) -> None:
    """Make bone less or more dense: what it has above 50 HU by 0.6 to 1.25."""
    factor = rng.uniform(0.6, 1.25)
    bone = roles == BONE
    for plane in hu:
        values = plane[bone]
        plane[bone] = np.where(values > 50.0, 50.0 + (values - 50.0) * factor, values)


def contrast(hu: Image, roles: Label, pixel_mm: float, rng: np.random.Generator) -> None:
    """Fill one to five vessels or loops, 3 to 15 mm in radius, with 120 to 450 HU; only where soft tissue is."""
    tissue = (roles == BODY) & (hu[len(hu) // 2] > -50.0)
    places = np.argwhere(tissue)
    if not len(places):
        return
    level = np.zeros(roles.shape, np.float32)
    for row, column in places[rng.integers(len(places), size=rng.integers(1, 6))]:
        axes = rng.uniform(3.0, 15.0, size=2) / pixel_mm
        box = ((float(column), float(row)), (2 * float(axes[0]), 2 * float(axes[1])), float(rng.uniform(0, 180)))
        cv2.ellipse(level, box, float(rng.uniform(120.0, 450.0)), thickness=cv2.FILLED)
    level[~tissue] = 0.0
    edge = cv2.GaussianBlur(level, (0, 0), max(0.4, 0.7 / pixel_mm))
    for plane in hu:
        plane[tissue] = np.maximum(plane, edge)[tissue]


def metal(hu: Image, roles: Label, pixel_mm: float, rng: np.random.Generator) -> None:
    """Put one or two implants of 2 to 10 mm in radius on bone, with streaks of up to 500 HU that fade with distance."""
    places = np.argwhere(roles == BONE)
    if not len(places):
        return
    rows, columns = np.ogrid[: roles.shape[0], : roles.shape[1]]
    for row, column in places[rng.integers(len(places), size=rng.integers(1, 3))]:
        down, right = (rows - row) * pixel_mm, (columns - column) * pixel_mm
        distance, direction = np.hypot(down, right), np.arctan2(down, right)
        radius = rng.uniform(2.0, 10.0)
        rays = sum(np.cos(rng.integers(2, 18) * direction + rng.uniform(0, 2 * math.pi)) for _ in range(3)) / 3
        streaks = rng.uniform(100.0, 500.0) * rays * np.exp(-distance / rng.uniform(25.0, 90.0))
        inside = roles != BACKGROUND
        hu[:, inside] += streaks[inside].astype(np.float32)
        # Metal belongs to what it holds: only bone turns into it, so that no label becomes untrue.
        hu[:, (distance < radius) & (roles == BONE)] = SCANNER_HIGHEST_HU


def couch(hu: Image, roles: Label, pixel_mm: float, rng: np.random.Generator) -> None:
    """Lay a curved plate, 2 to 8 mm thick and of -200 to 400 HU, into the air below the middle."""
    size = roles.shape[0]
    height = rng.uniform(0.6, 1.0) * size
    bend = rng.uniform(-0.3, 0.6) / size
    columns = np.arange(roles.shape[1])
    surface = height - bend * (columns - roles.shape[1] * rng.uniform(0.2, 0.8)) ** 2
    below = np.arange(size)[:, None] - surface
    plate = (below > 0) & (below < rng.uniform(2.0, 8.0) / pixel_mm) & (roles == BACKGROUND)
    hu[:, plate] = rng.uniform(-200.0, 400.0)


def field_of_view(hu: Image, roles: Label, pixel_mm: float, rng: np.random.Generator) -> None:
    """Cut off what lies outside a circle of 0.7 to 1.3 times half the crop: air there, and background as its label."""
    size = roles.shape[0]
    middle = size / 2 + rng.uniform(-0.15, 0.15, size=2) * size
    rows, columns = np.ogrid[:size, : roles.shape[1]]
    outside = np.hypot(rows - middle[0], columns - middle[1]) > rng.uniform(0.7, 1.3) * size / 2
    hu[:, outside] = AIR_HU
    roles[outside] = BACKGROUND


OPERATIONS: tuple[tuple[float, Operation], ...] = (
    (0.3, density),
    (0.3, contrast),
    (0.1, metal),
    (0.15, couch),
    (0.5, resolution),
    (0.3, kernel),
    (0.6, noise),
    (0.5, calibration),
    (0.15, field_of_view),
)
"""Chance and operation, in the order of nature: first the body, then the scan, then the picture."""
