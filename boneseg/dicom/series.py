"""CT series: slices decoded to HU and put in order by their place in the patient."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boneseg.dicom.header import SliceHeader, read_frames
from boneseg.dicom.pixels import check_picture, read_planes
from boneseg.errors import SeriesError
from boneseg.geometry import Geometry, from_dicom
from boneseg.memory_budget import check_volume

__all__ = ["SortedSeries", "check_frames", "check_places", "read_series", "read_slice", "sort_slices"]

_SAME_DIRECTION = 1e-3
_SAME_POSITION_MM = 1e-2
_UNIT_LENGTH = 1e-2
_RIGHT_ANGLE = 1e-3
_PIXEL_MM = (0.01, 20.0)
_STEP_MM = 100.0
_FARTHEST_MM = 1e5
_WIDE = 1.2
_FEW = 9
_ODD_HU = 15.0
"""Median distance of two neighbouring slices from which on their rescale may be wrong."""


@dataclass(frozen=True)
class SortedSeries:
    """Slices in order along their normal.

    Attributes:
        order: which of the given slices comes first, second and so on.
        geometry: of the sorted slices.
        warnings: what is unusual but does not forbid using the series.
    """

    order: list[int]
    geometry: Geometry
    warnings: list[str]


def read_slice(path: Path) -> NDArray[np.int16]:
    """Read one CT slice.

    Returns:
        HU, (rows, columns): decoded, rescaled, rounded, and not below -1024 (padding becomes air).

    Raises:
        SeriesError: not a single-frame greyscale DICOM image, cut short, or compressed in an unknown way.
    """
    headers = _frames_of(path)
    if headers[0].frames != 1:
        raise SeriesError(f"{path.name}: holds {headers[0].frames} frames; it is a volume, not a slice")
    (hu,) = read_planes(path, headers)
    return hu


def read_series(
    paths: Sequence[Path], max_gap: float = 1.5, max_tilt_degrees: float = 1.0
) -> tuple[NDArray[np.int16], Geometry, list[str]]:
    """Read the slices of one series, given in any order.

    Args:
        paths: one file a slice.
        max_gap: largest distance of neighbouring slices in units of the median distance.
        max_tilt_degrees: largest angle between the slices' normal and the line along which they are stacked.

    Returns:
        HU (slice, row, column) sorted along the normal but not yet in axial order, their geometry, and warnings.

    Raises:
        SeriesError: a slice cannot be read, or the slices do not form one volume; says why.
    """
    files = [_frames_of(path) for path in paths]
    headers = [header for frames in files for header in frames]
    series = sort_slices(headers, max_gap, max_tilt_degrees)
    check_volume(f"the series of {paths[0].name}", 2 * math.prod(series.geometry.shape))
    volume = np.empty(series.geometry.shape, dtype=np.int16)
    places = iter(np.argsort(series.order))
    for path, frames in zip(paths, files, strict=True):
        for plane in read_planes(path, frames):
            volume[next(places)] = plane
    _check_odd_rescales([headers[index] for index in series.order], volume)
    return volume, series.geometry, series.warnings


def sort_slices(headers: Sequence[SliceHeader], max_gap: float, max_tilt_degrees: float) -> SortedSeries:
    """Find the order of slices by position along their normal; file names and InstanceNumber play no part.

    Args:
        headers: one header a slice, in any order.
        max_gap: see ``read_series``.
        max_tilt_degrees: see ``read_series``.

    Raises:
        SeriesError: one slice only, missing position tags, mixed sizes, orientations or pixel spacings, two slices at
            one position, a gap, or a tilted gantry.
    """
    if len(headers) < 2:
        raise SeriesError("the series has only one slice; a volume needs two or more")
    positions, orientation, pixel_spacing = _common_plane(headers)
    normal = np.cross(orientation[:3], orientation[3:])
    distances = positions @ normal
    order = [int(index) for index in np.argsort(distances, kind="stable")]
    _check_distances([headers[index].name for index in order], distances[order], max_gap)
    positions = positions[order]
    warnings = _check_stacking(positions, normal, max_tilt_degrees, max(pixel_spacing))
    warnings += _missing_numbers([headers[index] for index in order], distances[order])
    warnings += _check_rescales(headers)
    geometry = from_dicom(positions, orientation, pixel_spacing, headers[0].rows, headers[0].columns)
    if geometry.uneven is not None:
        steps = np.diff(distances[order])
        warnings.append(
            f"slice distances vary from {steps.min():.2f} to {steps.max():.2f} mm: masks lie on the slices, "
            "but a NIfTI file, the network and distances in mm take the mean"
        )
    return SortedSeries(order, geometry, warnings)


def check_frames(path: Path, headers: Sequence[SliceHeader]) -> None:
    """Refuse a file whose pictures are not HU, or not of one volume.

    Raises:
        SeriesError: says why.
    """
    for header in headers:
        check_picture(header)
    stacks = {header.stack for header in headers}
    if len(stacks) > 1:
        raise SeriesError(
            f"{path.name}: holds {len(stacks)} volumes (stacks, phases or passes) in one file; export them one by one"
        )


def check_places(headers: Sequence[SliceHeader]) -> None:
    """Refuse slices whose places are missing, impossible or not of one volume.

    Raises:
        SeriesError: says why.
    """
    _common_plane(headers)


def _frames_of(path: Path) -> list[SliceHeader]:
    headers = read_frames(path)
    if headers is None:
        raise SeriesError(f"{path.name}: not a DICOM file; remove it from the series")
    check_frames(path, headers)
    return headers


def _missing_numbers(ordered: Sequence[SliceHeader], distances: NDArray[np.float64]) -> list[str]:
    """Warn where a wide step goes with an InstanceNumber that is left out: a slice was lost there."""
    steps, usual = np.diff(distances), float(np.median(np.diff(distances)))
    for index, (one, two) in enumerate(pairwise(ordered)):
        if one.instance_number is None or two.instance_number is None:
            return []
        missing = abs(two.instance_number - one.instance_number) - 1
        if 1 <= missing <= _FEW and steps[index] > _WIDE * usual:
            return [
                f"{missing} InstanceNumbers are missing between {one.name} and {two.name}: slices may be lost there"
            ]
    return []


def _common_plane(
    headers: Sequence[SliceHeader],
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """Return positions (slices, 3), and the orientation and pixel spacing that all slices must share."""
    first = headers[0]
    positions, orientations, spacings = [], [], []
    for header in headers:
        if header.position is None or header.orientation is None or header.pixel_spacing is None:
            missing = "ImagePositionPatient, ImageOrientationPatient or PixelSpacing"
            raise SeriesError(f"{header.name}: {missing} is missing, so its place is unknown; export the series again")
        if (header.rows, header.columns) != (first.rows, first.columns):
            sizes = f"{first.rows}x{first.columns} and {header.rows}x{header.columns}"
            raise SeriesError(f"slices of mixed sizes ({sizes}); put scouts and other images into series of their own")
        check_place(header.name, header.position, header.orientation, header.pixel_spacing)
        positions.append(header.position)
        orientations.append(header.orientation)
        spacings.append(header.pixel_spacing)
    orientation, spacing = np.array(orientations), np.array(spacings)
    if np.abs(orientation - orientation[0]).max() > _SAME_DIRECTION:
        raise SeriesError("slices of mixed orientation; put scouts and reformatted slices into series of their own")
    if np.abs(spacing / spacing[0] - 1).max() > _SAME_DIRECTION:
        raise SeriesError("slices of mixed pixel spacing; split the series into one per reconstruction")
    unit = orientation[0].reshape(2, 3)
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).ravel()
    return np.array(positions, dtype=np.float64), unit, (float(spacing[0, 0]), float(spacing[0, 1]))


def check_place(
    name: str,
    position: Sequence[float],
    orientation: Sequence[float],
    spacing: Sequence[float],
) -> None:
    """Refuse places that no scanner writes: they would stretch or shear the volume."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > _UNIT_LENGTH:
        said = f"directions of length {lengths[0]:.3g} and {lengths[1]:.3g}, where 1 is right"
        raise SeriesError(f"{name}: ImageOrientationPatient has {said}; export the series again")
    if abs(float(row @ column)) > _RIGHT_ANGLE:
        angle = math.degrees(math.acos(float(np.clip(row @ column, -1, 1))))
        raise SeriesError(f"{name}: rows and columns meet at {angle:.1f} degrees, not 90; export the series again")
    if not (_PIXEL_MM[0] <= min(spacing) and max(spacing) <= _PIXEL_MM[1]):
        said = " x ".join(f"{value:g}" for value in spacing)
        raise SeriesError(f"{name}: PixelSpacing is {said} mm, which no CT has; export the series again")
    if max(abs(value) for value in position) > _FARTHEST_MM:
        raise SeriesError(f"{name}: ImagePositionPatient is farther than 100 m; export the series again")


def _check_distances(names: list[str], distances: NDArray[np.float64], max_gap: float) -> None:
    """Refuse doubled and missing slices. Everything is in sorted order."""
    steps = np.diff(distances)
    narrowest, widest = int(steps.argmin()), int(steps.argmax())
    if steps[narrowest] < _SAME_POSITION_MM:
        pair = f"{names[narrowest]} and {names[narrowest + 1]}"
        raise SeriesError(f"{pair} lie at the same position; remove the doubled slices or split the series")
    median = float(np.median(steps))
    if median > _STEP_MM:
        raise SeriesError(f"slices are {median:g} mm apart, which no CT has; export the series again")
    if steps[widest] > max_gap * median:
        pair = f"{names[widest]} and {names[widest + 1]}"
        gap = f"{steps[widest]:.2f} mm where {median:.2f} mm is usual"
        raise SeriesError(f"slices are missing between {pair} ({gap}); complete the series or raise prepare.max_gap")


def _check_rescales(headers: Sequence[SliceHeader]) -> list[str]:
    without = [header for header in headers if not header.rescaled]
    if 0 < len(without) < len(headers):
        few = f"{without[0].name} and others" if len(without) > 1 else without[0].name
        raise SeriesError(
            f"{few}: {len(without)} of {len(headers)} slices have no RescaleSlope and RescaleIntercept; export the "
            "series again"
        )
    if without:
        return [f"{len(without)} slices have no RescaleSlope and RescaleIntercept; their values are taken as HU"]
    return []


def _check_odd_rescales(ordered: Sequence[SliceHeader], volume: NDArray[np.int16]) -> None:
    """Refuse slices whose rescale is not that of the others and whose HU do not go on those of their neighbours.

    Scanners may rescale each slice in its own way; then the HU agree all the same.

    Raises:
        SeriesError: names the first such slice.
    """
    scales = [(header.slope, header.intercept) for header in ordered]
    (usual, count), *others = Counter(scales).most_common()
    if not others or 2 * count <= len(scales):
        return
    normal = [index for index, scale in enumerate(scales) if scale == usual]
    for index, (slope, intercept) in enumerate(scales):
        if (slope, intercept) == usual:
            continue
        near = min(normal, key=lambda other: abs(other - index))
        own = volume[index, ::2, ::2].astype(np.float64)
        expected = volume[near, ::2, ::2]
        alike = (own - intercept) / slope * usual[0] + usual[1]
        off, off_as_usual = (float(np.median(np.abs(values - expected))) for values in (own, alike))
        if off > _ODD_HU and (off_as_usual < off / 2 or own.min() == own.max()):
            raise SeriesError(
                f"{ordered[index].name}: has a RescaleSlope of {slope:g} and a RescaleIntercept of {intercept:g}, but "
                f"only with those of the others ({usual[0]:g} and {usual[1]:g}) its values go on theirs; correct it or "
                "export the series again"
            )


def _check_stacking(
    positions: NDArray[np.float64], normal: NDArray[np.float64], max_tilt_degrees: float, pixel_mm: float
) -> list[str]:
    """Refuse a tilted gantry and slices that are shifted within their plane; a small tilt stays in the affine."""
    line = positions[-1] - positions[0]
    length = float(np.linalg.norm(line))
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(np.cross(normal, line)), normal @ line)))
    if tilt > max_tilt_degrees:
        reason = f"the gantry is tilted by {tilt:.1f} degrees, {max_tilt_degrees:g} are allowed"
        raise SeriesError(f"{reason}; resample the series or raise prepare.max_tilt_degrees")
    offsets = np.linalg.norm(np.cross(positions - positions[0], line / length), axis=1)
    if offsets.max() > pixel_mm:
        raise SeriesError(
            f"slices are shifted against each other by up to {offsets.max():.1f} mm; split or resample the series"
        )
    return [f"the gantry is tilted by {tilt:.2f} degrees; masks keep the tilt"] if tilt > 0.1 else []
