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

Many classes are measured in one pass over two volumes: it finds the box of every value, and each class is looked at in
the box of what either volume has of it. Outside that box neither mask has a voxel, hence no surface; a voxel at the
box's face has its neighbour outside the mask there as in the volume. Inside the box each distance is looked up in a
small window around the voxel that asks. A distance is taken where it is less than that to the window's edge, for then
no voxel outside can be nearer; for the others the window is widened until it is the box.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from boneseg.metrics.counts import Regions
from boneseg.scheme.labelling import take

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]
Spacing = tuple[float, float, float]
Box = tuple[slice, ...]
Indices = NDArray[np.intp]

TILE, MARGIN = 32, 3
"""Voxels along each axis that share a window, and by how many of the finest axis it reaches beyond them at first."""
WIDENING = 3
"""How many times larger both are for voxels whose nearest one was not surely in the window."""


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
    one = Regions(np.array([[False, True]]), np.array([[False, True]]), np.array([[True, False]]))
    return surfaces(reference.view(np.uint8), prediction.view(np.uint8), one, spacing, tolerance_mm)[0]


def surfaces(
    reference: Labels, prediction: Labels, regions: Regions, spacing: Spacing, tolerance_mm: float
) -> list[SurfaceMetrics]:
    """Measure many classes and groups of classes, each in its own box.

    Args:
        reference: value of each voxel, (slice, row, column).
        prediction: class of each voxel, the same shape.
        regions: a region has the voxels of the reference whose values are ``inside`` it and those of the prediction
            whose classes are ``picked``. Equal regions are measured once.
        spacing: mm between voxels as (slice, row, column).
        tolerance_mm: distance up to which a surface voxel counts as right.

    Returns:
        One a region, in their order.

    Raises:
        ValueError: the shapes differ.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"reference {reference.shape} and prediction {prediction.shape} differ in shape")
    volumes = reference, prediction
    boxes = [_boxes(volume) for volume in volumes]
    found: dict[bytes, SurfaceMetrics] = {}
    keys = []
    for tables in zip(regions.inside, regions.picked, strict=True):
        keys.append(b"".join(table.tobytes() for table in tables))
        if keys[-1] in found:
            continue
        there = [box for own, table in zip(boxes, tables, strict=True) for value, box in own.items() if table[value]]
        masks = []
        if there:
            around = _union(there)
            masks = [
                take(table.astype(np.uint8), volume[around]).view(np.bool_)
                for volume, table in zip(volumes, tables, strict=True)
            ]
        found[keys[-1]] = _measure(masks, reference.shape, spacing, tolerance_mm)
    return [found[key] for key in keys]


def _measure(masks: Sequence[Mask], shape: tuple[int, ...], spacing: Spacing, tolerance_mm: float) -> SurfaceMetrics:
    """Measure reference and prediction in their box; none = the volume, of this shape, has nothing of either."""
    there = [bool(mask.any()) for mask in masks]
    if not any(there):
        return SurfaceMetrics(np.nan, np.nan, np.nan)
    if not all(there):
        diagonal = float(np.linalg.norm(np.array(shape) * np.array(spacing)))
        return SurfaceMetrics(diagonal, diagonal, 0.0)
    reference, prediction = masks
    to_reference, back = surface_distances(reference, prediction, spacing)
    both = np.concatenate([to_reference, back])
    return SurfaceMetrics(
        hd95_mm=float(max(np.percentile(to_reference, 95), np.percentile(back, 95))),
        average_mm=float(both.mean()),
        normalised=float((both <= tolerance_mm).mean()),
    )


def surface_distances(
    reference: Mask, prediction: Mask, spacing: Spacing
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mm from each surface voxel of the prediction to the reference's surface, and the other way round."""
    edges = [_surface(mask) for mask in (reference, prediction)]
    return _distances(edges[1], edges[0], spacing), _distances(edges[0], edges[1], spacing)


def _boxes(volume: Labels) -> dict[int, Box]:
    """Return the box of every value that a volume has; that of 0 is the whole volume."""
    found = ndimage.find_objects(volume)
    boxes = {value: box for value, box in enumerate(found, start=1) if box is not None}
    return {0: tuple(slice(0, size) for size in volume.shape), **boxes}


def _union(boxes: Sequence[Box]) -> Box:
    axes = zip(*boxes, strict=True)
    return tuple(slice(min(part.start for part in axis), max(part.stop for part in axis)) for axis in axes)


def _surface(mask: Mask) -> Mask:
    surface: Mask = mask & ~ndimage.binary_erosion(mask)
    return surface


def _distances(start: Mask, target: Mask, spacing: Spacing) -> NDArray[np.float64]:
    """Return mm from each voxel of ``start`` to the nearest of ``target``, which has one, both on one grid."""
    points = np.argwhere(start)
    distances = np.zeros(len(points))
    unsure = np.flatnonzero(~target[start])
    tile, reach_mm = TILE, MARGIN * min(spacing)
    while unsure.size:
        left = [np.zeros(0, dtype=np.intp)]
        for part in _by_tile(points, unsure, tile):
            found, sure = _in_window(points[part], target, spacing, reach_mm)
            distances[part[sure]] = found[sure]
            left.append(part[~sure])
        unsure = np.concatenate(left)
        tile, reach_mm = tile * WIDENING, reach_mm * WIDENING
    return distances


def _by_tile(points: Indices, chosen: Indices, tile: int) -> Iterator[Indices]:
    """Divide the chosen of some points by the cube of a grid in which they lie."""
    cubes = points[chosen] // tile
    cube = np.ravel_multi_index(tuple(cubes.T), tuple(cubes.max(axis=0) + 1))
    order = np.argsort(cube, kind="stable")
    yield from np.split(chosen[order], np.flatnonzero(np.diff(cube[order])) + 1)


def _in_window(
    points: Indices, target: Mask, spacing: Spacing, reach_mm: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return mm from each point to the nearest target in a window around them all, and where that is surely right."""
    margin = np.ceil(reach_mm / np.array(spacing)).astype(np.intp)
    low = np.maximum(points.min(axis=0) - margin, 0)
    high = np.minimum(points.max(axis=0) + margin + 1, target.shape)
    window = target[tuple(map(slice, low, high))]
    if not window.any():
        return np.zeros(len(points)), np.zeros(len(points), dtype=bool)
    # Nearest indices alone take a third of the memory of scipy's distances; the distance is needed at few voxels.
    nearest = ndimage.distance_transform_edt(~window, sampling=spacing, return_distances=False, return_indices=True)
    squared, edge = np.zeros(len(points)), np.full(len(points), np.inf)
    inside = tuple((points - low).T)
    for axis, step in enumerate(spacing):
        squared += (step * (inside[axis] - nearest[axis][inside])) ** 2
        if low[axis] > 0:
            edge = np.minimum(edge, step * (inside[axis] + 1))
        if high[axis] < target.shape[axis]:
            edge = np.minimum(edge, step * (high[axis] - points[:, axis]))
    found = np.sqrt(squared)
    return found, found < edge
