"""Operations of augmentation ``paper`` that change brightness and leave the label alone.

A picture of 8 bits saturates after each operation, as these do at 0 and 1; values given for 0..255 are divided by 255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import slic

from boneseg.augment.paper_geometry import Image, Label, Random, by_plane
from boneseg.opencv import cv2

_IDENTITY = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=np.float64)

_LONGEST = 128
_ROUNDS = 5
"""Of SLIC; its usual 10 take twice the time for nearly the same regions."""
_COMPACTNESS = 0.1
"""SLIC's usual 10 is for brightness of 0..100."""


def _seed(rng: Random) -> int:
    return int(rng.integers(2**32))


def _clipped(image: NDArray[Any]) -> Image:
    return np.clip(image, 0, 1, out=image).astype(np.float32, copy=False)


def _like(plane: NDArray[Any], image: Image) -> NDArray[Any]:
    """Give a plane (h, w) the axis of channels that an image may have."""
    return plane[..., None] if image.ndim == 3 else plane


def _convolved(image: Image, effect: NDArray[np.float64], alpha: float) -> Image:
    """Blend an image with its convolution by a 3 x 3 kernel."""
    kernel = (1 - alpha) * _IDENTITY + alpha * effect
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101), dtype=np.float32)


@dataclass(frozen=True)
class Superpixels:
    """Replace regions by their mean; the regions are SLIC's (Achanta et al. 2012, doi:10.1109/TPAMI.2012.120).

    Attributes:
        share: chance of each region to be replaced, 0..1.
        segments: about how many regions, 20..200.
        seed: of the choice.
    """

    share: float
    segments: int
    seed: int

    @classmethod
    def draw(cls, rng: Random) -> Superpixels:
        """Choose both."""
        return cls(rng.uniform(0, 1), int(rng.integers(20, 201)), _seed(rng))

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Flatten regions of the image; those of several channels are found on the middle one."""
        middle = image if image.ndim == 2 else image[..., image.shape[2] // 2]
        regions = find_regions(middle, self.segments)
        places = regions.ravel()
        pixels = np.bincount(places)
        inside = (np.random.default_rng(self.seed).random(len(pixels)) < self.share)[regions]

        def flattened(plane: Image) -> Image:
            means = np.bincount(places, weights=plane.ravel()) / np.maximum(pixels, 1)
            return np.where(inside, means.astype(np.float32)[regions], plane)

        return _clipped(by_plane(image, flattened)), label


def find_regions(plane: Image, segments: int) -> NDArray[np.int32]:
    """Divide a plane (h, w) into about so many regions of even brightness, on at most 128 x 128 pixels as imgaug does.

    Returns:
        The number of each pixel's region, from 0, same shape.
    """
    rows, columns = plane.shape
    shrink = min(1.0, _LONGEST / max(rows, columns))
    size = (max(1, round(columns * shrink)), max(1, round(rows * shrink)))
    small = np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA)).reshape(size[::-1])
    regions = slic(
        small, segments, compactness=_COMPACTNESS, max_num_iter=_ROUNDS, start_label=0, channel_axis=None
    ).astype(np.int32)
    return np.asarray(cv2.resize(regions, (columns, rows), interpolation=cv2.INTER_NEAREST), dtype=np.int32)


@dataclass(frozen=True)
class Blur:
    """One of three blurs, each as likely.

    Attributes:
        kind: ``gaussian``, ``average`` or ``median``.
        size: standard deviation of the Gaussian, 0..3 pixels; or side of the square, 2..7 for the average and odd 3..11
            for the median.
    """

    kind: str
    size: float

    @classmethod
    def draw(cls, rng: Random) -> Blur:
        """Choose kind and size."""
        kind = ("gaussian", "average", "median")[rng.integers(3)]
        if kind == "gaussian":
            return cls(kind, rng.uniform(0, 3))
        return cls(kind, int(rng.integers(2, 8)) if kind == "average" else 2 * int(rng.integers(1, 6)) + 1)

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Blur the image."""
        if self.kind == "median":
            return _median(image, int(self.size)), label
        if self.kind == "average":
            return _clipped(cv2.blur(image, (int(self.size), int(self.size)))), label
        if self.size < 0.05:  # a neighbour would get no weight
            return image, label
        return _clipped(cv2.GaussianBlur(image, (0, 0), self.size)), label


def _median(image: Image, size: int) -> Image:
    """Take the median of squares; above 5 x 5 OpenCV knows bytes only, and 8 bits are what the sequence works on."""
    if size <= 5:
        return by_plane(image, lambda plane: cv2.medianBlur(plane, size))
    return by_plane(image, lambda plane: cv2.medianBlur(cv2.convertScaleAbs(plane, alpha=255), size) / np.float32(255))


@dataclass(frozen=True)
class Sharpen:
    """Blend with a sharpened image.

    Attributes:
        alpha: weight of the sharpened image, 0..1.
        lightness: sum of its kernel, 0.75..1.5; other than 1 it darkens or brightens.
    """

    alpha: float
    lightness: float

    @classmethod
    def draw(cls, rng: Random) -> Sharpen:
        """Choose both."""
        return cls(rng.uniform(0, 1), rng.uniform(0.75, 1.5))

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Sharpen the image."""
        effect = np.full((3, 3), -1.0)
        effect[1, 1] = 8 + self.lightness
        return _clipped(_convolved(image, effect, self.alpha)), label


@dataclass(frozen=True)
class Emboss:
    """Blend with an image lit from one corner.

    Attributes:
        alpha: weight of the embossed image, 0..1.
        strength: 0..2.
    """

    alpha: float
    strength: float

    @classmethod
    def draw(cls, rng: Random) -> Emboss:
        """Choose both."""
        return cls(rng.uniform(0, 1), rng.uniform(0, 2))

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Emboss the image."""
        s = self.strength
        effect = np.array([[-1 - s, -s, 0], [-s, 1, s], [0, s, 1 + s]])
        return _clipped(_convolved(image, effect, self.alpha)), label


@dataclass(frozen=True)
class Edges:
    """Blend with the edges, stronger in some parts of the image than in others.

    Attributes:
        alpha: weight of the edges where they are strongest, 0.5..1.
        direction_degrees: the only direction whose edges show, 0..360; none, in half of all cases = all directions.
        cells: the weight is a smooth random field with this many waves across, 2..16.
        seed: of the field.
    """

    alpha: float
    direction_degrees: float | None
    cells: int
    seed: int

    @classmethod
    def draw(cls, rng: Random) -> Edges:
        """Choose all."""
        direction = rng.uniform(0, 360) if rng.random() < 0.5 else None
        return cls(rng.uniform(0.5, 1), direction, int(rng.integers(2, 17)), _seed(rng))

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Blend the edges into the image."""
        edges = _clipped(_convolved(image, self._kernel(), self.alpha))
        mask = _like(self._mask(label.shape), image)
        return _clipped(image + mask * (edges - image)), label

    def _kernel(self) -> NDArray[np.float64]:
        if self.direction_degrees is None:
            return np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=np.float64)
        kernel = np.zeros((3, 3))
        for row, column in ((i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)):
            place = math.degrees(math.atan2(column - 1, 1 - row))
            apart = abs((place - self.direction_degrees + 180) % 360 - 180)
            kernel[row, column] = (1 - apart / 180) ** 4
        kernel /= kernel.sum()
        kernel[1, 1] = -1
        return kernel

    def _mask(self, size: tuple[int, ...]) -> Image:
        """Make a field (h, w) within 0..1, mostly near 0 or near 1."""
        coarse = np.random.default_rng(self.seed).random((self.cells, self.cells), dtype=np.float32)
        field = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
        return 1 / (1 + np.exp(-10 * (field - np.float32(0.5))))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Noise:
    """Add Gaussian noise.

    Attributes:
        deviation: standard deviation, 0..0.05.
        seed: of the noise.
    """

    deviation: float
    seed: int

    @classmethod
    def draw(cls, rng: Random) -> Noise:
        """Choose the strength."""
        return cls(rng.uniform(0, 0.05), _seed(rng))

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Add it to the image."""
        noise = np.random.default_rng(self.seed).standard_normal(label.shape, dtype=np.float32)
        noise *= np.float32(self.deviation)
        return _clipped(image + _like(noise, image)), label


@dataclass(frozen=True)
class Dropout:
    """Blacken single pixels or, as likely, patches of the size of a cell of a coarse grid.

    Attributes:
        share: of pixels 0.01..0.1, or of patches 0.03..0.1 (the sequence itself goes to 0.15).
        cell: the grid of patches has this part of the image's rows and columns, 0.02..0.05, but at least 3 of each, so
            that a patch is 1 / cell pixels wide; none = single pixels.
        seed: of the places.
    """

    share: float
    cell: float | None
    seed: int

    @classmethod
    def draw(cls, rng: Random) -> Dropout:
        """Choose kind and share."""
        if rng.random() < 0.5:
            return cls(rng.uniform(0.01, 0.1), None, _seed(rng))
        return cls(rng.uniform(0.03, 0.1), rng.uniform(0.02, 0.05), _seed(rng))

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Blacken parts of the image."""
        rows, columns = label.shape
        grid = (rows, columns) if self.cell is None else tuple(max(3, round(n * self.cell)) for n in (rows, columns))
        keep = (np.random.default_rng(self.seed).random(grid, dtype=np.float32) >= self.share).astype(np.float32)
        if self.cell is not None:
            keep = np.asarray(cv2.resize(keep, (columns, rows), interpolation=cv2.INTER_NEAREST), dtype=np.float32)
        return image * _like(keep, image), label


@dataclass(frozen=True)
class Inversion:
    """Make black white and white black."""

    @classmethod
    def draw(cls, rng: Random) -> Inversion:
        """Nothing to choose."""
        del rng
        return cls()

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Invert the image."""
        return np.float32(1) - image, label


@dataclass(frozen=True)
class Brightness:
    """Add one value to all pixels.

    Attributes:
        added: -10/255..10/255.
    """

    added: float

    @classmethod
    def draw(cls, rng: Random) -> Brightness:
        """Choose the value."""
        return cls(rng.uniform(-10, 10) / 255)

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Brighten or darken the image."""
        return _clipped(image + np.float32(self.added)), label


@dataclass(frozen=True)
class Multiply:
    """Multiply all pixels by one value.

    Attributes:
        factor: 0.5..1.5.
    """

    factor: float

    @classmethod
    def draw(cls, rng: Random) -> Multiply:
        """Choose the factor."""
        return cls(rng.uniform(0.5, 1.5))

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Multiply the image."""
        return _clipped(image * np.float32(self.factor)), label


@dataclass(frozen=True)
class Contrast:
    """Multiply the distance from the middle grey.

    Attributes:
        factor: 0.5..2.
    """

    factor: float

    @classmethod
    def draw(cls, rng: Random) -> Contrast:
        """Choose the factor."""
        return cls(rng.uniform(0.5, 2))

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Change the image's contrast."""
        half = np.float32(0.5)
        return _clipped((image - half) * np.float32(self.factor) + half), label
