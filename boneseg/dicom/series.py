"""CT series: slices decoded to HU and put in order by their place in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_modality_lut
from pydicom.uid import UID

from boneseg.dicom.header import SliceHeader, StoredPixels, damaged, read_header
from boneseg.errors import SeriesError
from boneseg.geometry import Geometry, from_dicom

AIR_HU = -1024
"""Lowest HU that is kept. What lies outside the scanner's field of view becomes air, whatever its padding value was."""
_HIGHEST_HU = 32767
_SAME_DIRECTION = 1e-3
_SAME_POSITION_MM = 1e-2


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
    header = read_header(path)
    if header is None:
        raise SeriesError(f"{path.name}: not a DICOM file; remove it from the series")
    return _read_hu(path, header)


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
    headers = [_series_header(path) for path in paths]
    series = sort_slices(headers, max_gap, max_tilt_degrees)
    volume = np.empty(series.geometry.shape, dtype=np.int16)
    for place, index in enumerate(series.order):
        volume[place] = _read_hu(paths[index], headers[index])
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
    without = sum(not header.rescaled for header in headers)
    if without:
        warnings.append(f"{without} slices have no RescaleSlope and RescaleIntercept; their values are taken as HU")
    geometry = from_dicom(positions, orientation, pixel_spacing, headers[0].rows, headers[0].columns)
    if geometry.uneven is not None:
        steps = np.diff(distances[order])
        warnings.append(
            f"slice distances vary from {steps.min():.2f} to {steps.max():.2f} mm: masks lie on the slices, "
            "but a NIfTI file, the network and distances in mm take the mean"
        )
    return SortedSeries(order, geometry, warnings)


def _series_header(path: Path) -> SliceHeader:
    header = read_header(path)
    if header is None:
        raise SeriesError(f"{path.name}: not a DICOM file; remove it from the series")
    return header


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
        positions.append(header.position)
        orientations.append(header.orientation)
        spacings.append(header.pixel_spacing)
    orientation, spacing = np.array(orientations), np.array(spacings)
    if np.abs(orientation - orientation[0]).max() > _SAME_DIRECTION:
        raise SeriesError("slices of mixed orientation; put scouts and reformatted slices into series of their own")
    if np.abs(spacing / spacing[0] - 1).max() > _SAME_DIRECTION or spacing.min() <= 0:
        raise SeriesError("slices of mixed or zero pixel spacing; split the series into one per reconstruction")
    return np.array(positions, dtype=np.float64), orientation[0], (float(spacing[0, 0]), float(spacing[0, 1]))


def _check_distances(names: list[str], distances: NDArray[np.float64], max_gap: float) -> None:
    """Refuse doubled and missing slices. Everything is in sorted order."""
    steps = np.diff(distances)
    narrowest, widest = int(steps.argmin()), int(steps.argmax())
    if steps[narrowest] < _SAME_POSITION_MM:
        pair = f"{names[narrowest]} and {names[narrowest + 1]}"
        raise SeriesError(f"{pair} lie at the same position; remove the doubled slices or split the series")
    median = float(np.median(steps))
    if steps[widest] > max_gap * median:
        pair = f"{names[widest]} and {names[widest + 1]}"
        gap = f"{steps[widest]:.2f} mm where {median:.2f} mm is usual"
        raise SeriesError(f"slices are missing between {pair} ({gap}); complete the series or raise prepare.max_gap")


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


def _read_hu(path: Path, header: SliceHeader) -> NDArray[np.int16]:
    pixels = header.pixels
    if pixels is None:
        raise SeriesError(f"{header.name}: holds no image; remove it from the series")
    if header.frames != 1:
        raise SeriesError(f"{header.name}: holds {header.frames} frames; convert it to single-frame CT or to NIfTI")
    if pixels.samples != 1:
        raise SeriesError(f"{header.name}: is a colour image, not CT; remove it from the series")
    raw = _raw(path, header, pixels)
    if pixels.lookup:
        hu = np.asarray(apply_modality_lut(raw, pydicom.dcmread(path, stop_before_pixels=True, force=True)))
    elif header.slope == 1 and header.intercept.is_integer():
        hu = np.add(raw, int(header.intercept), dtype=np.int32)
    else:
        hu = np.rint(raw * header.slope + header.intercept)
    np.clip(hu, AIR_HU, _HIGHEST_HU, out=hu)
    if pixels.padding is not None:
        hu[(raw >= pixels.padding[0]) & (raw <= pixels.padding[1])] = AIR_HU
    return hu.astype(np.int16)


def _raw(path: Path, header: SliceHeader, pixels: StoredPixels) -> NDArray[np.integer]:
    """Return stored values (rows, columns); plain 16-bit pixels come straight from their place in the file."""
    if pixels.offset is None or pixels.bits_allocated != 16:
        return _decoded(path, header)
    kind = np.dtype(("i" if pixels.signed else "u") + "2").newbyteorder(">" if pixels.big_endian else "<")
    values = np.fromfile(path, dtype=kind, count=header.rows * header.columns, offset=pixels.offset)
    if values.size != header.rows * header.columns:
        raise damaged(path)
    raw = values.astype(kind.newbyteorder("="), copy=False).reshape(header.rows, header.columns)
    if pixels.bits_stored < 16:
        # Bits above the stored ones may hold overlays: drop them, and carry the sign down again.
        raw = (raw << (15 - pixels.high_bit)) >> (16 - pixels.bits_stored)
    return raw


def _decoded(path: Path, header: SliceHeader) -> NDArray[np.integer]:
    try:
        raw: NDArray[np.integer] = pydicom.dcmread(path, force=True).pixel_array
    except NotImplementedError as error:
        name = UID(header.transfer_syntax).name
        raise SeriesError(f"{header.name}: compressed as {name}, which cannot be decoded; decompress it") from error
    except Exception as error:  # each decoder has errors of its own for damaged data
        raise damaged(path) from error
    if raw.shape != (header.rows, header.columns):
        raise damaged(path)
    return raw
