"""Whether the values of a series can be HU at all, and whether a label lies on its bones."""

import numpy as np
from numpy.typing import NDArray

from boneseg.errors import SeriesError
from boneseg.scheme import BONE, OUTLINE

HIGHEST_LOW = -300
"""A CT series shows some air; above this in the lowest voxel, it was cropped or its values are not HU."""
LOWEST_HIGH = 150
"""A CT series with bone reaches at least this."""
TISSUE_HU = (-200.0, 200.0)
"""The median of soft tissue, fat included, lies in here."""
BONE_ABOVE_TISSUE = 30.0
"""By how many HU the median of labelled bone should exceed soft tissue's."""
_NOT_GAS = -500
_STRIDE = (slice(None, None, 2), slice(None, None, 3), slice(None, None, 3))


def check_values(hu: NDArray[np.int16]) -> list[str]:
    """Refuse values that cannot be HU, before anything is computed from them.

    Args:
        hu: a whole series, any order of axes.

    Returns:
        Warnings.

    Raises:
        SeriesError: all values are the same, or none is negative, or none is as bright as bone.
    """
    low, high = int(hu.min()), int(hu.max())
    if low == high:
        raise SeriesError(f"every voxel is {low}; the series is empty, export it again")
    if low >= 0:
        raise SeriesError(
            f"values run from {low} to {high}, so air is not -1000: these are stored values, not HU; "
            "export the series with RescaleSlope and RescaleIntercept"
        )
    if high < LOWEST_HIGH:
        raise SeriesError(f"values run from {low} to {high}, too dark for bone: these are not HU; export them unscaled")
    if low > HIGHEST_LOW:
        return [f"the lowest value is {low} HU, so no air is in view; is the series cropped?"]
    return []


def check_label(hu: NDArray[np.int16], label: NDArray[np.uint8]) -> list[str]:
    """Check that the tissue inside the patient outline looks like tissue, and labelled bone like bone.

    Args:
        hu: (slice, row, column).
        label: classes, same shape.

    Returns:
        Warnings.

    Raises:
        SeriesError: what the label calls the patient is not tissue.
    """
    values, classes = hu[_STRIDE], label[_STRIDE]
    inside = values[classes == OUTLINE]
    solid = inside[inside > _NOT_GAS]
    if solid.size == 0 or solid.size < 0.1 * inside.size:
        raise SeriesError(
            "the patient outline holds nearly only air; the values are not HU or the label belongs to another series"
        )
    tissue = float(np.median(solid))
    if not TISSUE_HU[0] <= tissue <= TISSUE_HU[1]:
        raise SeriesError(
            f"soft tissue has a median of {tissue:.0f} HU, where {TISSUE_HU[0]:.0f} to {TISSUE_HU[1]:.0f} is possible; "
            "check RescaleSlope and RescaleIntercept"
        )
    bone = values[classes == BONE]
    if bone.size and np.median(bone) < tissue + BONE_ABOVE_TISSUE:
        return [
            f"labelled bone has a median of {np.median(bone):.0f} HU, hardly above soft tissue's {tissue:.0f}; "
            "does the label belong to this series?"
        ]
    return []
