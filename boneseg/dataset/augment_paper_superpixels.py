"""Superpixels of augmentation ``paper``: regions that follow edges, some of them replaced by their mean.

The regions are those of SLIC (Achanta et al. 2012, doi:10.1109/TPAMI.2012.120), with fewer rounds and a fixed choice of
nine centres for each pixel, and found on a picture of at most 128 pixels a side, as in imgaug.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Label = NDArray[np.uint8]
Regions = NDArray[np.int32]
Random = np.random.Generator

LONGEST = 128
ROUNDS = 4
COMPACTNESS = 0.1
"""How much brightness, 0..1, is worth as much as the distance between two centres: SLIC's usual 10 for 0..100."""


@dataclass(frozen=True)
class Superpixels:
    """Replace regions by their mean.

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
        return cls(rng.uniform(0, 1), int(rng.integers(20, 201)), int(rng.integers(2**32)))

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Flatten regions of the image; those of several channels are found on the middle one."""
        middle = image if image.ndim == 2 else image[..., image.shape[2] // 2]
        regions = find_regions(middle, self.segments)
        number = int(regions.max()) + 1
        replaced = np.random.default_rng(self.seed).random(number) < self.share
        inside = replaced[regions]
        planes = [image] if image.ndim == 2 else [image[..., channel] for channel in range(image.shape[2])]
        flat = [np.where(inside, _means(plane, regions, number)[regions], plane) for plane in planes]
        return flat[0] if image.ndim == 2 else np.stack(flat, axis=-1), label


def _means(values: NDArray[np.float32], regions: Regions, number: int) -> NDArray[np.float32]:
    """Return the mean of each region; 0 for one without pixels."""
    places = regions.ravel()
    sums = np.bincount(places, weights=values.ravel(), minlength=number)
    return (sums / np.maximum(np.bincount(places, minlength=number), 1)).astype(np.float32)


def find_regions(plane: Image, segments: int) -> Regions:
    """Divide a plane (h, w) into about so many regions of even brightness.

    Returns:
        The number of each pixel's region, from 0, same shape; a number may be without pixels.
    """
    rows, columns = plane.shape
    shrink = min(1.0, LONGEST / max(rows, columns))
    small = (max(1, round(columns * shrink)), max(1, round(rows * shrink)))
    coarse = np.asarray(cv2.resize(plane, small, interpolation=cv2.INTER_AREA), dtype=np.float32)
    regions = _cluster(coarse.reshape(small[1], small[0]), segments)
    return np.asarray(cv2.resize(regions, (columns, rows), interpolation=cv2.INTER_NEAREST), dtype=np.int32)


def _cluster(plane: Image, segments: int) -> Regions:
    """Start with the cells of a grid; each pixel then joins the nearest centre of its cell and the eight around it."""
    rows, columns = plane.shape
    step = max(1.0, math.sqrt(rows * columns / segments))
    down, across = max(1, round(rows / step)), max(1, round(columns / step))
    cell_y = (np.arange(rows) * down // rows)[:, None]
    cell_x = (np.arange(columns) * across // columns)[None, :]
    y, x = (grid.astype(np.float32) for grid in np.mgrid[:rows, :columns])
    weight = np.float32((COMPACTNESS / step) ** 2)
    regions: Regions = (cell_y * across + cell_x).astype(np.int32)
    for _ in range(ROUNDS):
        centres = [_means(values, regions, down * across) for values in (plane, y, x)]
        best = np.full(plane.shape, np.inf, dtype=np.float32)
        joined: Regions = regions
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                candidate = np.clip(cell_y + i, 0, down - 1) * across + np.clip(cell_x + j, 0, across - 1)
                value, centre_y, centre_x = (centre[candidate] for centre in centres)
                distance = (plane - value) ** 2 + weight * ((y - centre_y) ** 2 + (x - centre_x) ** 2)
                nearer = distance < best
                best = np.where(nearer, distance, best)
                joined = np.where(nearer, candidate, joined)
        regions = joined.astype(np.int32)
    return regions
