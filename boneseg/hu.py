"""Hounsfield units: the one way from stored values to HU, and from HU to what a network sees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

AIR_HU = -1024
"""Lowest HU that is kept. What lies outside the scanner's field of view becomes air, whatever its padding value was."""
HIGHEST_HU = int(np.iinfo(np.int16).max)
"""Highest HU that is kept: volumes are int16."""
SCANNER_HIGHEST_HU = 3071
"""What 12 bits hold from air on: scanners clip metal here."""


def to_hu(values: NDArray[Any], slope: float = 1.0, intercept: float = 0.0) -> NDArray[np.int16]:
    """Rescale stored values, round them, and clip them to ``AIR_HU`` and ``HIGHEST_HU``.

    Args:
        values: any shape; whole numbers stay exact where slope and intercept are whole.
        slope: HU a stored unit (DICOM PS3.3 C.7.6.16-2: HU = slope * value + intercept).
        intercept: HU of a stored 0.

    Returns:
        Same shape. What is no number is outside the scanner's view, and becomes air.
    """
    if slope == 1.0 and float(intercept).is_integer() and values.dtype.kind in "iu":
        if intercept:
            values = np.add(values, int(intercept), dtype=np.int32 if values.dtype.itemsize < 4 else np.int64)
    elif (slope, intercept) != (1.0, 0.0):
        values = values * slope + intercept
    if values.dtype.kind == "f":
        values = np.rint(np.where(np.isfinite(values), values, AIR_HU))
    hu: NDArray[np.int16] = np.clip(values, AIR_HU, HIGHEST_HU).astype(np.int16)
    return hu


def normalise(hu: NDArray[np.int16] | NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.float32]:
    """Map HU to 0..1: the window's lower end becomes 0, its upper end 1, what lies outside is clipped.

    Args:
        hu: any shape.
        window: lower and upper end in HU.

    Returns:
        Same shape, float32.
    """
    low, high = window
    out = hu.astype(np.float32)
    np.subtract(out, np.float32(low), out=out)
    np.multiply(out, np.float32(1.0 / (high - low)), out=out)
    return np.clip(out, 0.0, 1.0, out=out)
