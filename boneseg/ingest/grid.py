"""Which voxels of a series those of a label are: a label may leave out slices, wherever they lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boneseg.geometry import Geometry


@dataclass(frozen=True, eq=False)
class OnSeries:
    """A label's place on a series.

    Attributes:
        numbers: for each axis, which slice, row or column of the series each of the label's is; rising.
        off: how far the label's voxels lie beside the series' own, in voxels.
        off_mm: the same in millimetres.
    """

    numbers: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    off: float
    off_mm: float

    @property
    def covered(self) -> slice:
        """The slices of the series from the label's first to its last."""
        return slice(int(self.numbers[0][0]), int(self.numbers[0][-1]) + 1)

    def spread(self, label: NDArray[np.uint8], series: Geometry) -> NDArray[np.uint8]:
        """Bring a label onto the covered slices; what it leaves out is background.

        Args:
            label: (slice, row, column).
            series: its geometry.

        Returns:
            Same values, (covered slices, rows, columns) of the series.
        """
        shape = (self.covered.stop - self.covered.start, *series.shape[1:])
        if label.shape == shape:
            return np.ascontiguousarray(label)
        whole = np.zeros(shape, dtype=label.dtype)
        whole[np.ix_(self.numbers[0] - self.covered.start, *self.numbers[1:])] = label
        return whole


def on_series(label: Geometry, series: Geometry) -> OnSeries | None:
    """Find a label's voxels among those of a series.

    Args:
        label: geometry of the label.
        series: geometry of the series in the same order of axes, its slices evenly apart or not.

    Returns:
        The place; none where the label is turned, reaches beyond the series, is smaller than it along more than one
        axis, or has no two neighbouring slices.
    """
    numbers: list[NDArray[np.int64]] = []
    for axis in range(3):
        line = np.zeros((label.shape[axis], 3))
        line[:, axis] = np.arange(label.shape[axis])
        found = np.rint(series.to_index(label.to_patient(line))[:, axis])
        steps = np.diff(found)
        if not (steps > 0).all() or found[0] < 0 or found[-1] >= series.shape[axis]:
            return None
        if steps.size and steps.min() > 1:  # drawn on every second slice, say: what lies between is not background
            return None
        numbers.append(found.astype(np.int64))
    if sum(one < all_ for one, all_ in zip(label.shape, series.shape, strict=True)) > 1:
        return None
    # All corners of all slices: a label may be turned, or its slices may lie otherwise than those of the series.
    along = 0 if label.uneven is None else label.uneven.axis
    places = [np.arange(size) if axis == along else np.array([0, size - 1]) for axis, size in enumerate(label.shape)]
    grid = np.stack([part.ravel() for part in np.meshgrid(*places, indexing="ij")], axis=1).astype(np.float64)
    wanted = np.stack([numbers[axis][grid[:, axis].astype(int)] for axis in range(3)], axis=1)
    away = np.abs(series.to_index(label.to_patient(grid)) - wanted)
    return OnSeries((numbers[0], numbers[1], numbers[2]), float(away.max()), float((away * series.spacing).max()))
