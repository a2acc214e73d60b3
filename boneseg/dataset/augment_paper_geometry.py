"""Geometric operations of augmentation ``paper``: image and label go through the same map.

Images are interpolated linearly, labels take the nearest pixel; what comes from outside the picture is air of class
background. A map is given for pixel centres: column 0 is the middle of the first pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

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
    rows, columns = label.shape
    x, y = np.arange(columns), np.arange(rows)[:, None]
    inverse = np.linalg.inv(matrix)
    across, down, depth = (inverse[i, 0] * x + inverse[i, 1] * y + inverse[i, 2] for i in range(3))
    return _remap(image, label, across / depth, down / depth)


def _remap(image: Image, label: Label, columns: NDArray[Any], rows: NDArray[Any]) -> tuple[Image, Label]:
    """Fetch each pixel from where the maps (h, w) say."""
    across, down = columns.astype(np.float32), rows.astype(np.float32)
    moved = cv2.remap(image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    labels = cv2.remap(label, across, down, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(moved, dtype=np.float32), np.asarray(labels, dtype=np.uint8)


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
        left, right, top, bottom = rng.uniform(-0.05, 0.1, 4)
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
        across, down = rng.uniform(0.8, 1.2, 2)
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
        rows, columns = label.shape
        noise = np.random.default_rng(self.seed).random((2, rows, columns), dtype=np.float32)
        across, down = (2 * noise - 1) * np.float32(self.pixels)
        return _remap(image, label, np.arange(columns) + across, np.arange(rows)[:, None] + down)


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
        grid = np.random.default_rng(self.seed).normal(0, self.scale, (2, 4, 4))
        across, down = (_triangles(points, rows, columns) for points in grid)
        return _remap(image, label, np.arange(columns) + across * columns, np.arange(rows)[:, None] + down * rows)


def _triangles(points: Matrix, rows: int, columns: int) -> Matrix:
    """Spread values at the points of a grid over (rows, columns), linear on the two triangles of each cell."""
    y, v = _cells(points.shape[0], rows)
    x, u = _cells(points.shape[1], columns)
    y, v = y[:, None], v[:, None]
    first, right, below = points[y, x], points[y, x + 1], points[y + 1, x]
    twist = first - right - below + points[y + 1, x + 1]
    return first + u * (right - first) + v * (below - first) + np.maximum(0, u + v - 1) * twist


def _cells(points: int, pixels: int) -> tuple[NDArray[np.intp], Matrix]:
    """Return the cell of each pixel along an axis with a point at each end, and the part of the cell before it."""
    place = np.linspace(0, points - 1, pixels)
    cell = np.minimum(place.astype(np.intp), points - 2)
    return cell, place - cell


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
