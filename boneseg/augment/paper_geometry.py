"""Geometric operations of augmentation ``paper``: image and label go through the same map.

Images are interpolated linearly, labels take the nearest pixel; what comes from outside the picture is air of class
background. A map is given for pixel centres: column 0 is the middle of the first pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.opencv import cv2

Image = NDArray[np.float32]
Label = NDArray[np.uint8]
Matrix = NDArray[np.float64]
Random = np.random.Generator


def flip(image: Image, label: Label, horizontal: bool, vertical: bool) -> tuple[Image, Label]:
    """Mirror both arrays; always returns copies."""
    rows = slice(None, None, -1 if vertical else 1)
    columns = slice(None, None, -1 if horizontal else 1)
    return image[rows, columns].copy(), label[rows, columns].copy()


def warp(image: Image, label: Label, matrix: Matrix) -> tuple[Image, Label]:
    """Move both arrays by a 3 x 3 matrix from (column, row, 1) before to (column, row, 1) after."""
    if np.array_equal(matrix, np.eye(3)):
        return image, label
    size = label.shape[::-1]
    return (
        by_plane(image, lambda plane: cv2.warpPerspective(plane, matrix, size, flags=cv2.INTER_LINEAR)),
        np.asarray(cv2.warpPerspective(label, matrix, size, flags=cv2.INTER_NEAREST), dtype=np.uint8),
    )


def displace(image: Image, label: Label, across: Image, down: Image) -> tuple[Image, Label]:
    """Fetch each pixel from (h, w) so many pixels further right and further down."""
    rows, columns = label.shape
    x = across + np.arange(columns, dtype=np.float32)
    y = down + np.arange(rows, dtype=np.float32)[:, None]
    moved = by_plane(image, lambda plane: cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))
    labels = cv2.remap(label, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return moved, np.asarray(labels, dtype=np.uint8)


def by_plane(image: Image, change: Callable[[Image], Any]) -> Image:
    """Change each channel by itself; on many channels at once OpenCV is slower and rounds, or refuses."""
    if image.ndim == 2:
        return np.asarray(change(image), dtype=np.float32)
    planes = [change(np.ascontiguousarray(plane)) for plane in np.moveaxis(image, -1, 0)]
    return np.stack(planes, axis=-1).astype(np.float32, copy=False)


@dataclass(frozen=True)
class CropAndPad:
    """Cut off or add at each side, then resize to the size before.

    Attributes:
        sides: left, right, top, bottom as parts of the width or height, -0.05..0.1; below 0 is cut off.
    """

    sides: tuple[float, float, float, float]

    @classmethod
    def draw(cls, rng: Random) -> CropAndPad:
        """Choose each side by itself."""
        left, right, top, bottom = rng.uniform(-0.05, 0.1, 4).tolist()
        return cls((left, right, top, bottom))

    def matrix(self, rows: int, columns: int) -> Matrix:
        """Return the change of (column, row, 1)."""
        left, right, top, bottom = self.sides
        across, down = 1 / (1 + left + right), 1 / (1 + top + bottom)
        return np.array(
            [
                [across, 0, (0.5 + left * columns) * across - 0.5],
                [0, down, (0.5 + top * rows) * down - 0.5],
                [0, 0, 1],
            ]
        )


@dataclass(frozen=True)
class Affine:
    """Scale, shear and rotate about the middle, in this order.

    Attributes:
        scale: of columns and of rows, each 0.8..1.2.
        rotation_degrees: -45..45.
        shear_degrees: along the rows, -16..16.
    """

    scale: tuple[float, float]
    rotation_degrees: float
    shear_degrees: float

    @classmethod
    def draw(cls, rng: Random) -> Affine:
        """Choose all four by themselves."""
        across, down = rng.uniform(0.8, 1.2, 2).tolist()
        return cls((across, down), rng.uniform(-45, 45), rng.uniform(-16, 16))

    def matrix(self, rows: int, columns: int) -> Matrix:
        """Return the change of (column, row, 1)."""
        angle, lean = math.radians(self.rotation_degrees), math.tan(math.radians(self.shear_degrees))
        rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        linear = rotation @ np.array([[1, lean], [0, 1]]) @ np.diag(self.scale)
        middle = np.array([(columns - 1) / 2, (rows - 1) / 2])
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = middle - linear @ middle
        return matrix


@dataclass(frozen=True)
class Elastic:
    """Move every pixel a little by itself.

    The sequence smooths its displacements with a Gaussian of 0.25 pixels, which gives a neighbour 0.03 % of the weight:
    that is left out here.

    Attributes:
        pixels: furthest a pixel comes from along rows and along columns, 0.5..3.5.
        seed: of the displacements.
    """

    pixels: float
    seed: int

    @classmethod
    def draw(cls, rng: Random) -> Elastic:
        """Choose the strength."""
        return cls(rng.uniform(0.5, 3.5), int(rng.integers(2**32)))

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Displace both."""
        noise = np.random.default_rng(self.seed).random((2, *label.shape), dtype=np.float32)
        across, down = (noise - np.float32(0.5)) * np.float32(2 * self.pixels)
        return displace(image, label, across, down)


@dataclass(frozen=True)
class LocalAffine:
    """Move the points of a 4 x 4 grid; between them the map is affine on each triangle.

    Attributes:
        scale: standard deviation of a point's way as a part of the height or width, 0.01..0.05.
        seed: of the points.
    """

    scale: float
    seed: int

    @classmethod
    def draw(cls, rng: Random) -> LocalAffine:
        """Choose the strength."""
        return cls(rng.uniform(0.01, 0.05), int(rng.integers(2**32)))

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Displace both."""
        rows, columns = label.shape
        points = np.random.default_rng(self.seed).normal(0, self.scale, (2, 4, 4)).astype(np.float32)
        across, down = (triangles(way, rows, columns) for way in points)
        return displace(image, label, across * np.float32(columns), down * np.float32(rows))


def triangles(points: Image, rows: int, columns: int) -> Image:
    """Spread values at the points of a grid over (rows, columns), linear on the two triangles of each cell."""
    y, v = _cells(points.shape[0], rows)
    x, u = _cells(points.shape[1], columns)
    # Linear along both axes first. The rest is the same for all cells but for their twist: the two triangles are flat.
    smooth = _hats(y, v, points.shape[0]) @ points @ _hats(x, u, points.shape[1]).T
    twist = points[:-1, :-1] - points[:-1, 1:] - points[1:, :-1] + points[1:, 1:]
    v = v[:, None]
    flat = (np.maximum(u + v - 1, 0) - u * v) * twist[y][:, x]
    return np.asarray(smooth + flat, dtype=np.float32)


def _cells(points: int, pixels: int) -> tuple[NDArray[np.intp], Image]:
    """Return the cell of each pixel along an axis with a point at each end, and the part of the cell before it."""
    place = np.linspace(0, points - 1, pixels)
    cell = np.minimum(place.astype(np.intp), points - 2)
    return cell, (place - cell).astype(np.float32)


def _hats(cell: NDArray[np.intp], part: Image, points: int) -> Image:
    """Return the weight (pixels, points) of each point for each pixel."""
    weights = np.zeros((len(cell), points), dtype=np.float32)
    pixel = np.arange(len(cell))
    weights[pixel, cell] = 1 - part
    weights[pixel, cell + 1] = part
    return weights


@dataclass(frozen=True)
class Perspective:
    """Stretch a quadrangle inside the picture to the whole picture.

    Attributes:
        corners: how far the corners (top left, top right, bottom right, bottom left) lie inwards, as parts of the width
            and height: the size of a normal value with a standard deviation of 0.01..0.1, at most 0.45.
    """

    corners: tuple[tuple[float, float], ...]

    @classmethod
    def draw(cls, rng: Random) -> Perspective:
        """Choose each corner by itself, all with one standard deviation."""
        inwards = np.minimum(np.abs(rng.normal(0, rng.uniform(0.01, 0.1), (4, 2))), 0.45)
        return cls(tuple((float(x), float(y)) for x, y in inwards))

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Stretch both."""
        rows, columns = label.shape
        whole = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        inside = np.abs(whole - np.array(self.corners))
        last = np.array([columns - 1, rows - 1])
        matrix = cv2.getPerspectiveTransform((inside * last).astype(np.float32), (whole * last).astype(np.float32))
        return warp(image, label, np.asarray(matrix, dtype=np.float64))
