"""Smooth random fields: they bend shapes, mottle tissue and are the same wherever they are asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boneseg.phantom.shapes import Field

_REACH_MM = 480.0


class SmoothField:
    """A random function of space with mean 0, standard deviation 1 and structures of one length."""

    def __init__(self, rng: np.random.Generator, length_mm: float) -> None:
        """Draw the field.

        Args:
            rng: source of randomness.
            length_mm: standard deviation of the Gaussian bumps that make up the field.
        """
        self._length = length_mm
        self._knots = np.arange(-_REACH_MM, _REACH_MM + length_mm, length_mm)
        size = len(self._knots)
        self._values = rng.standard_normal((size, size, size), dtype=np.float32)

    def at(self, x: NDArray[np.float64], y: NDArray[np.float64], z: float) -> Field:
        """Return the field on the grid of a slice: (len(y), len(x))."""
        level = np.tensordot(self._weights(np.array([z]))[0], self._values, axes=1)
        field: Field = self._weights(y) @ level @ self._weights(x).T
        return field

    def _weights(self, places: NDArray[np.float64]) -> Field:
        weights = np.exp(-0.5 * ((places[:, np.newaxis] - self._knots) / self._length) ** 2)
        normal: Field = (weights / np.sqrt((weights**2).sum(axis=1, keepdims=True))).astype(np.float32)
        return normal
