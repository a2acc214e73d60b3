"""The classical method that stands beside the network: a HU threshold with morphology."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from boneseg.geometry import Geometry
from boneseg.ingest.outline import patient_outline
from boneseg.opencv import cv2
from boneseg.scheme.roles import BONE, OUTLINE

CLASSICAL_VERSION = 1
"""Raise it with every change of the mask."""

SMOOTHING_MM = 0.7
"""Gaussian sigma: as much as keeps noise from passing the threshold without rounding the cortical shell."""
LEAST_BONE_ML = 1.0
"""Smaller parts are noise, calcifications or markers."""
CLOSING_MM = 2.0
"""Radius that closes gaps of the cortical shell, so that marrow is enclosed."""
LARGEST_HOLE_MM2 = 400.0
"""Larger enclosed areas of a slice, such as a pelvic ring, are not marrow."""


def threshold_segmentation(hu: NDArray[np.int16], geometry: Geometry, threshold_hu: float) -> NDArray[np.uint8]:
    """Label what is denser than a threshold inside the patient as bone, the rest of the patient as outline.

    The volume is smoothed lightly and thresholded; in each slice gaps are closed and enclosed marrow is filled; small
    parts of the volume are dropped. Couch, clothes and markers beside the patient are outside the outline.

    Args:
        hu: (slice, row, column), axial order.
        geometry: of ``hu``.
        threshold_hu: HU above which tissue is bone.

    Returns:
        Class of each voxel, the shape of ``hu``.
    """
    spacing = geometry.spacing
    volume = np.asarray(hu)
    body = patient_outline(volume, np.zeros(volume.shape, dtype=np.uint8), spacing) > 0
    bone = np.empty(volume.shape, dtype=np.bool_)
    for index, plane in enumerate(volume):
        dense = _smoothed(plane, spacing) > threshold_hu
        bone[index] = _with_marrow(dense & body[index], spacing)
    bone = _without_small_parts(bone & body, LEAST_BONE_ML / geometry.voxel_volume_ml)
    mask = body.astype(np.uint8) * np.uint8(OUTLINE)
    mask[bone] = BONE
    return mask


def _smoothed(plane: NDArray[np.int16], spacing: tuple[float, float, float]) -> NDArray[np.float32]:
    sigma = (SMOOTHING_MM / spacing[2], SMOOTHING_MM / spacing[1])
    smooth = cv2.GaussianBlur(plane.astype(np.float32), (0, 0), sigma[0], None, sigma[1])
    return smooth.astype(np.float32, copy=False)


def _with_marrow(dense: NDArray[np.bool_], spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Close small gaps of a slice and fill the holes that are not too large to be marrow."""
    rows, columns = (2 * max(1, round(CLOSING_MM / step)) + 1 for step in spacing[1:])
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (columns, rows))
    closed = cv2.morphologyEx(dense.astype(np.uint8), cv2.MORPH_CLOSE, disc)
    _, regions, figures, _ = cv2.connectedComponentsWithStats(1 - closed, connectivity=4)
    small = figures[:, cv2.CC_STAT_AREA] * spacing[1] * spacing[2] <= LARGEST_HOLE_MM2
    filled: NDArray[np.bool_] = (closed > 0) | small[regions]
    return filled


def _without_small_parts(mask: NDArray[np.bool_], least_voxels: float) -> NDArray[np.bool_]:
    parts, count = ndimage.label(mask)
    size = np.bincount(parts.ravel(), minlength=count + 1)
    keep = size >= least_voxels
    keep[0] = False
    kept: NDArray[np.bool_] = keep[parts]
    return kept
