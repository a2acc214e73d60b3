"""Distances between the surfaces of two masks, in millimetres.

A mask's surface is its voxels that have a face neighbour outside the mask or outside the volume. Each surface voxel of
one mask has a distance to the nearest surface voxel of the other. Of these two sets of distances

- HD95 is the larger of the two 95th percentiles (Maier-Hein et al., Metrics Reloaded, 2024; MONAI and DeepMind's
  surface-distance take the same maximum; some packages take one percentile of both sets together, which is lower),
- the average surface distance is the mean of both sets together (average symmetric surface distance),
- the normalised surface distance is the share of both sets within a tolerance (Nikolov et al. 2021, by voxel count).

A mask without a voxel has no surface. If one of the two is empty, both distances are the volume's diagonal and the
normalised surface distance is 0: a missed bone is the worst there is, not a perfect score. If both are empty there is
nothing to measure and all three are NaN, to be left out and counted.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class SurfaceMetrics:
    """How far two surfaces are apart."""

    hd95_mm: float
    average_mm: float
    normalised: float
    """Share of both surfaces, 0..1, that lies within the tolerance of the other."""


def surface_metrics(reference: Mask, prediction: Mask, spacing: Spacing, tolerance_mm: float) -> SurfaceMetrics:
    """Measure HD95, average surface distance and normalised surface distance of two masks.

    Args:
        reference: (slice, row, column).
        prediction: the same shape.
        spacing: mm between voxels as (slice, row, column).
        tolerance_mm: distance up to which a surface voxel counts as right.

    Raises:
        ValueError: the shapes differ.
    """
    has_reference, has_prediction = bool(reference.any()), bool(prediction.any())
    if reference.shape != prediction.shape:
        raise ValueError(f"reference {reference.shape} and prediction {prediction.shape} differ in shape")
    if not has_reference and not has_prediction:
        return SurfaceMetrics(np.nan, np.nan, np.nan)
    if not has_reference or not has_prediction:
        diagonal = float(np.linalg.norm(np.array(reference.shape) * np.array(spacing)))
        return SurfaceMetrics(diagonal, diagonal, 0.0)
    there, back = surface_distances(reference, prediction, spacing)
    both = np.concatenate([there, back])
    return SurfaceMetrics(
        hd95_mm=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        average_mm=float(both.mean()),
        normalised=float((both <= tolerance_mm).mean()),
    )


def surface_distances(
    reference: Mask, prediction: Mask, spacing: Spacing
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mm from each surface voxel of the prediction to the reference's surface, and the other way round."""
    box = _bounding_box(reference | prediction)
    edges = [_surface(mask[box]) for mask in (reference, prediction)]
    return _distances(edges[1], edges[0], spacing), _distances(edges[0], edges[1], spacing)


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        used = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def _surface(mask: Mask) -> Mask:
    surface: Mask = mask & ~ndimage.binary_erosion(mask)
    return surface


def _distances(start: Mask, target: Mask, spacing: Spacing) -> NDArray[np.float64]:
    """Return mm from each voxel of ``start`` to the nearest of ``target``, both on one grid."""
    # Nearest indices alone take a third of the memory of scipy's distances; the distance is needed at few voxels.
    nearest = ndimage.distance_transform_edt(~target, sampling=spacing, return_distances=False, return_indices=True)
    points = np.nonzero(start)
    squared = np.zeros(len(points[0]))
    for axis, step in enumerate(spacing):
        squared += (step * (points[axis] - nearest[axis][points])) ** 2
    distances: NDArray[np.float64] = np.sqrt(squared)
    return distances
