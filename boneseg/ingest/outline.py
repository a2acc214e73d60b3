"""The patient's outline from HU alone, for labels that hold only bone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from boneseg.opencv import cv2

Volume = NDArray[np.uint8]

SKIN_HU = -300
"""Between air (-1000), clothes and couch foam below, and fat (-100) above."""
SMOOTHING_MM = 0.7
COUCH_MM = 4.0
"""Radius of the opening that takes away what is thinner than twice this: the shells of a couch, tubes, blankets."""
BODY_RADIUS_MM = 20.0
"""Beside the largest part, only what a ball of this radius fits into is body: a thigh or an arm, not a couch."""
GRID_MM = 3.0
"""Parts are told apart in three dimensions on a grid about this coarse."""


def patient_outline(hu: NDArray[np.int16], bone: Volume, spacing: tuple[float, float, float]) -> Volume:
    """Find the patient: one filled region a slice, lungs and bowel gas inside, couch and clothes outside.

    Tissue is what lies above -300 HU after light smoothing. An opening detaches the couch; parts of what is left are
    told apart in three dimensions, and kept if they hold bone, are the largest, or are as thick as a limb. Then the
    opening is taken back where there is tissue, and holes are filled slice by slice.

    Args:
        hu: (slice, row, column), axial order.
        bone: same shape, above 0 where bone is labelled; always inside the result.
        spacing: mm as (slice, row, column).

    Returns:
        Same shape, 1 inside the patient.
    """
    tissue = np.stack([_tissue(plane, spacing) for plane in hu])
    disc = _disc(COUCH_MM, spacing)
    solid = np.stack([cv2.morphologyEx(plane, cv2.MORPH_OPEN, disc) for plane in tissue]).astype(np.uint8, copy=False)
    body = _body_parts(solid, bone, spacing)
    wider = _disc(COUCH_MM + 1.0, spacing)
    out = np.empty_like(tissue)
    for index in range(len(hu)):
        near = cv2.dilate(body[index], wider) & tissue[index]
        out[index] = _filled(near | (bone[index] > 0))
    return out


def _tissue(plane: NDArray[np.int16], spacing: tuple[float, float, float]) -> Volume:
    smooth = cv2.GaussianBlur(
        plane.astype(np.float32), (0, 0), SMOOTHING_MM / spacing[2], None, SMOOTHING_MM / spacing[1]
    )
    return (smooth > SKIN_HU).astype(np.uint8)


def _body_parts(solid: Volume, bone: Volume, spacing: tuple[float, float, float]) -> Volume:
    """Keep the parts of a mask that belong to the patient."""
    step = (max(1, round(GRID_MM / spacing[1])), max(1, round(GRID_MM / spacing[2])))
    parts, count = ndimage.label(solid[:, :: step[0], :: step[1]])
    if count == 0:
        return np.zeros_like(solid)
    numbers = np.arange(1, count + 1)
    size = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    with_bone = np.isin(numbers, parts[bone[:, :: step[0], :: step[1]] > 0])
    radius = ndimage.maximum(np.stack([_radius_mm(plane, spacing, step) for plane in parts]), parts, numbers)
    keep = with_bone | (size == size.max()) | (np.asarray(radius) >= BODY_RADIUS_MM)
    kept = np.concatenate([[False], keep])[parts]
    return np.stack([_touched(plane, seeds, step) for plane, seeds in zip(solid, kept, strict=True)])


def _radius_mm(
    parts: NDArray[np.int32], spacing: tuple[float, float, float], step: tuple[int, int]
) -> NDArray[np.floating[Any]]:
    """Distance of each pixel to the nearest one outside its part, in mm; the image's edge is no border."""
    pixel = min(spacing[1] * step[0], spacing[2] * step[1])
    distance = np.asarray(cv2.distanceTransform((parts > 0).astype(np.uint8), cv2.DIST_L2, 5))
    return np.minimum(distance, sum(parts.shape)) * pixel  # where all is inside, it is the largest float


def _touched(plane: Volume, seeds: NDArray[np.bool_], step: tuple[int, int]) -> Volume:
    """Keep the connected regions of a slice that have a seed on the coarse grid."""
    count, regions = cv2.connectedComponents(plane)
    chosen = np.zeros(count, dtype=np.uint8)
    chosen[regions[:: step[0], :: step[1]][seeds]] = 1
    chosen[0] = 0
    return np.asarray(chosen[regions])


def _filled(plane: Volume) -> Volume:
    outlines, _ = cv2.findContours(plane, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.zeros_like(plane), outlines, -1, 1, cv2.FILLED), dtype=np.uint8)


def _disc(radius_mm: float, spacing: tuple[float, float, float]) -> Volume:
    rows, columns = (2 * max(1, round(radius_mm / length)) + 1 for length in spacing[1:])
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (columns, rows)), dtype=np.uint8)
