"""Whether numbers without negative ones are HU, a label, or something else: by their grain and their histogram."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.hu import AIR_HU

_FEW_VALUES = 16
"""A CT has more different values than this."""
_FEWEST_PAIRS = 500
_EVEN = 0.4
"""Share of equal neighbours from which on voxels form areas, as labels do; noise leaves a CT with about a tenth."""
_AIR_MAY_BE_MISSING = -30
"""Above this in the lowest voxel, a CT was cropped to where there is neither air nor fat, or its values are not HU."""
_TISSUE_PLUS_1024 = (850, 1150)
"""Where soft tissue lies if 1000 or 1024 was added; below it, down to what was lung, there is then little."""
_LUNG_PLUS_1024 = 350
_BACKGROUND = 5
"""Highest value that the darkest voxel of a background has, in magnetic resonance or where HU were cut off at 0."""
_MOST_AT_THE_BOTTOM = 0.2
_BOTTOM = 0.01
"""Share of the range of values that is its bottom; the lowest voxels of a crop within the patient are few."""
_NEARLY_HIGHEST = 0.999
_MOST_AT_THE_ENDS = 0.02


class Grain:
    """Whether neighbours have the same value, as in a label, or differ by noise, as in a CT."""

    def __init__(self) -> None:
        self._pairs = self._equal = 0

    def add(self, values: NDArray[Any]) -> None:
        """Take in some rows, (rows, columns)."""
        one, two = values[:, 1:], values[:, :-1]
        drawn = (one > 0) & (two > 0)
        self._pairs += int(np.count_nonzero(drawn))
        self._equal += int(np.count_nonzero(drawn & (one == two)))

    def is_noise(self, different: int) -> bool:
        """Say whether so many different values are spread like the noise of a CT."""
        return different > _FEW_VALUES and self._pairs >= _FEWEST_PAIRS and self._equal < _EVEN * self._pairs


def why_not_hu(counts: NDArray[np.int64]) -> str:
    """Say why values cannot be HU; empty where they may be, as those of a crop without any air may.

    Args:
        counts: how often each HU from -1024 on occurs, if the values were HU.
    """
    present = np.flatnonzero(counts) + AIR_HU
    low, high, total = int(present[0]), int(present[-1]), int(counts.sum())
    if low < _AIR_MAY_BE_MISSING:
        return ""

    def between(first: float, end: float) -> int:
        return int(counts[int(first) - AIR_HU : int(end) - AIR_HU].sum())

    if low >= 0 and high <= 255:
        at_the_ends = between(low, low + 1) + between(high, high + 1)
        if (low, high) == (0, 255) or at_the_ends >= _MOST_AT_THE_ENDS * total:
            return (
                f"{len(present)} values from {low} to {high} are grey values of a picture (a CT windowed to 8 bits?), "
                "neither HU nor labels; convert the series again without a window"
            )
    tissue = between(*_TISSUE_PLUS_1024)
    if tissue >= total / 20 and tissue > 2 * between(_LUNG_PLUS_1024, _TISSUE_PLUS_1024[0]):
        first = _TISSUE_PLUS_1024[0] - AIR_HU
        peak = int(counts[first : _TISSUE_PLUS_1024[1] - AIR_HU].argmax()) + _TISSUE_PLUS_1024[0]
        return (
            f"values run from {low} to {high} with soft tissue about {peak}, where HU has it about 40: these are "
            "stored values, not HU, as if 1024 or 1000 had been added; subtract that, or export the series with "
            "RescaleSlope and RescaleIntercept"
        )
    nearly_highest = int(np.searchsorted(counts.cumsum(), _NEARLY_HIGHEST * total)) + AIR_HU
    bottom = between(low, low + 1 + _BOTTOM * (nearly_highest - low)) / total
    if low <= _BACKGROUND and bottom >= _MOST_AT_THE_BOTTOM:
        return (
            f"{bottom:.0%} of the voxels have about the lowest value, {low}, where HU has air at -1000: these are "
            "stored values, not HU, or HU cut off below, or no CT; export the series as HU"
        )
    return ""
