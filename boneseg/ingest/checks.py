"""Whether the values of a series can be HU at all, and whether a label lies on its bones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.errors import LabelError, SeriesError
from boneseg.hu import AIR_HU
from boneseg.ingest.plausible import why_not_hu
from boneseg.scheme.roles import BONE, OUTLINE

HIGHEST_LOW = -300
"""A CT series shows some air; above this in the lowest voxel, it was cropped or its values are not HU."""
LOWEST_HIGH = 150
"""A CT series with bone reaches at least this."""
TISSUE_HU = (-200.0, 200.0)
"""The median of soft tissue, fat included, lies in here."""
BONE_ABOVE_TISSUE = 30.0
"""By how many HU the median of labelled bone should exceed soft tissue's."""
_NOT_GAS = -500
_SOFT_SHARE = 0.05
"""Share of a series that is soft tissue where its values are HU."""
LEAST_BRIGHT = 0.1
"""Share of labelled bone that is brighter than soft tissue, at least: on 38 real and semi-synthetic series it is 0.69
and more, and fatty marrow leaves the cortex; of muscle, liver or lung it is next to nothing."""
_FEWEST_BRIGHT_OR_NOT = 30
MISPLACED = 0.04
"""By how much more of the labelled bone may be bright at another place before a label counts as misplaced. On 38 real
and semi-synthetic series no other place was better at all; moved by three slices, labels were worse by 0.02 to 0.5."""
REFUSED = 0.2
"""From here on a misplaced label is refused."""
_BRIGHT_ABOVE_TISSUE = 100.0
_COARSE = 160
"""Rows and columns, about, on which a label's place is checked."""
_MOST_POINTS = 60_000
_FEWEST_POINTS = 200
_SLICES, _PIXELS = 8, 3
"""Farthest moves that are tried, in slices and in coarse pixels."""
_ENOUGH_INSIDE = 0.8
_MIRRORED = {
    (False, False, True): "mirrored left to right",
    (False, True, False): "mirrored front to back",
    (True, False, False): "mirrored head to feet",
    (False, True, True): "turned by half around the long axis",
    (True, False, True): "turned by half around the axis from back to front",
    (True, True, False): "turned by half around the axis from left to right",
    (True, True, True): "mirrored in all three directions",
}
_STRIDE = (slice(None, None, 2), slice(None, None, 3), slice(None, None, 3))


def check_values(hu: NDArray[np.int16]) -> list[str]:
    """Refuse values that cannot be HU, before anything is computed from them.

    Args:
        hu: a whole series, any order of axes.

    Returns:
        Warnings.

    Raises:
        SeriesError: all values are the same, or stored values, or none is as bright as bone.
    """
    low, high = int(hu.min()), int(hu.max())
    if low == high:
        raise SeriesError(f"every voxel is {low}; the series is empty, export it again")
    check_hu(hu)
    if high < LOWEST_HIGH:
        raise SeriesError(f"values run from {low} to {high}, too dark for bone: these are not HU; export them unscaled")
    if low > HIGHEST_LOW:
        return [f"the lowest value is {low} HU, so no air is in view; is the series cropped?"]
    return []


def check_hu(hu: NDArray[np.int16]) -> None:
    """Refuse values that are another quantity than HU, such as stored values without their rescale.

    Raises:
        SeriesError: says what they are.
    """
    low, high = int(hu.min()), int(hu.max())
    if not HIGHEST_LOW < low < high:
        return
    counts = np.zeros(high - AIR_HU + 1, dtype=np.int64)
    for plane in hu:
        counts += np.bincount(plane.ravel().astype(np.int32) - AIR_HU, minlength=len(counts))
    if reason := why_not_hu(counts):
        raise SeriesError(reason)


def check_label(hu: NDArray[np.int16], label: NDArray[np.uint8]) -> list[str]:
    """Check that the tissue inside the patient outline looks like tissue, and labelled bone like bone.

    Args:
        hu: (slice, row, column).
        label: classes, same shape.

    Returns:
        Warnings.

    Raises:
        SeriesError: what the label calls the patient is not tissue.
        LabelError: the outline is no soft tissue though there is some, or the labelled bone clearly lies on bone only
            when mirrored, turned or moved, or is no bone at all.
    """
    values, classes = hu[_STRIDE], label[_STRIDE]
    inside = values[classes == OUTLINE]
    if inside.size == 0:
        return ["the label leaves no tissue beside bone, so neither its place nor the values can be checked"]
    solid = inside[inside > _NOT_GAS]
    if solid.size == 0 or solid.size < 0.1 * inside.size:
        raise SeriesError(
            "the patient outline holds nearly only air; the values are not HU or the label belongs to another series"
        )
    tissue = float(np.median(solid))
    if not TISSUE_HU[0] <= tissue <= TISSUE_HU[1]:
        soft = float(((values > TISSUE_HU[0]) & (values < TISSUE_HU[1])).mean())
        if soft > _SOFT_SHARE:
            raise LabelError(
                f"what counts as the patient's outline has a median of {tissue:.0f} HU, although soft tissue is there: "
                "the label's values mean something else; say which is what in prepare.label_map"
            )
        raise SeriesError(
            f"soft tissue has a median of {tissue:.0f} HU, where {TISSUE_HU[0]:.0f} to {TISSUE_HU[1]:.0f} is possible; "
            "check RescaleSlope and RescaleIntercept"
        )
    bone = values[classes == BONE]
    warnings = _check_place(hu, label, tissue)
    bright = float((bone > tissue + _BRIGHT_ABOVE_TISSUE).mean()) if bone.size >= _FEWEST_BRIGHT_OR_NOT else 1.0
    if bright < LEAST_BRIGHT:
        raise LabelError(
            f"only {bright:.0%} of what is labelled as bone is as bright as bone, its median is {np.median(bone):.0f} "
            "HU: it is another structure, or was drawn on another series; replace the label, or remove it"
        )
    if bone.size and np.median(bone) < tissue + BONE_ABOVE_TISSUE:
        warnings.append(
            f"labelled bone has a median of {np.median(bone):.0f} HU, hardly above soft tissue's {tissue:.0f}; "
            "does the label belong to this series?"
        )
    return warnings


def _check_place(hu: NDArray[np.int16], label: NDArray[np.uint8], tissue: float) -> list[str]:
    """Compare how much of the labelled bone is bright with how much would be, mirrored, turned or moved."""
    step = -(-max(hu.shape[1:]) // _COARSE)
    bright = hu[:, ::step, ::step] > tissue + _BRIGHT_ABOVE_TISSUE
    where = np.flatnonzero(label[:, ::step, ::step] == BONE)
    if len(where) < _FEWEST_POINTS:
        return []
    if len(where) > _MOST_POINTS:
        where = np.random.default_rng(0).choice(where, _MOST_POINTS, replace=False)
    points = np.stack(np.unravel_index(where, bright.shape), axis=1)
    here = _bright_share(bright, points)
    best, how = max((_bright_share(bright, moved), how) for moved, how in _elsewhere(points, bright.shape, step))
    if best - here <= MISPLACED + 2 / np.sqrt(len(points)):
        return []
    reason = (
        f"{here:.0%} of the labelled bone is as bright as bone, but {best:.0%} would be if the label were {how}; "
        "export the label again on this series"
    )
    if best - here >= REFUSED:
        raise LabelError(reason)
    return [reason]


def _elsewhere(points: NDArray[np.intp], shape: tuple[int, ...], step: int) -> Iterator[tuple[NDArray[Any], str]]:
    last = np.array(shape) - 1
    for flips, how in _MIRRORED.items():
        yield np.where(flips, last - points, points), how
    moves = [(axis, by) for axis, most in enumerate((_SLICES, _PIXELS, _PIXELS)) for by in range(-most, most + 1)]
    for axis, by in moves:
        if by:
            what = "slices" if axis == 0 else "rows" if axis == 1 else "columns"
            count = abs(by) * (1 if axis == 0 else step)
            yield points + by * (np.arange(3) == axis), f"moved by {count} {what}"


def _bright_share(bright: NDArray[np.bool_], points: NDArray[Any]) -> float:
    inside = ((points >= 0) & (points < bright.shape)).all(axis=1)
    if inside.mean() < _ENOUGH_INSIDE:
        return 0.0
    return float(bright[tuple(points[inside].T)].mean())
