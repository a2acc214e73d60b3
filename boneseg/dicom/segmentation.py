"""Label volumes as DICOM SEG: reading. ``segmentation_write`` writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from boneseg.dicom.header import damaged, read_header
from boneseg.dicom.segmentation_references import References, references_of
from boneseg.errors import LabelError, SeriesError
from boneseg.geometry import Geometry, from_dicom

_SAME_POSITION_MM = 0.1
_FRACTION = 0.5


@dataclass(frozen=True)
class _Frames:
    """What the functional groups say, frame by frame; a label map has segment 0 for all frames."""

    segments: NDArray[np.int64]
    positions: NDArray[np.float64]
    orientation: NDArray[np.float64]
    pixel_spacing: tuple[float, float]
    distance: float


def read_segmentation(path: Path) -> tuple[NDArray[np.uint8], Geometry, dict[int, str]]:
    """Read a DICOM SEG of type BINARY, FRACTIONAL (counted from one half) or LABELMAP.

    Files may leave out empty frames: the volume reaches from the first frame to the last, and what is missing
    between is background. Where segments overlap, the smaller one is kept: bone inside a body outline stays bone.

    Returns:
        Segment numbers (slice, row, column) sorted along the frames' normal, their geometry, and segment names.

    Raises:
        LabelError: not a segmentation of parallel, evenly spaced frames, or damaged.
    """
    data = _open(path)
    names = {int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in data.SegmentSequence}
    names.pop(0, None)
    if any(number > np.iinfo(np.uint8).max for number in names):
        raise LabelError(f"{path.name}: has segment numbers above 255; write fewer segments")
    frames = _frames(path, data)
    places, geometry = _grid(path, data, frames)
    try:
        stored = data.pixel_array.reshape(len(frames.segments), data.Rows, data.Columns)
    except Exception as error:  # each decoder has errors of its own for damaged data
        raise LabelError(str(damaged(path))) from error
    volume = np.zeros(geometry.shape, dtype=np.uint8)
    if data.SegmentationType == "LABELMAP":
        volume[places] = stored
        return volume, geometry, names
    threshold = _FRACTION * int(data.MaximumFractionalValue) if data.SegmentationType == "FRACTIONAL" else _FRACTION
    inside = stored >= threshold
    sizes = {number: int(inside[frames.segments == number].sum()) for number in names}
    for number in sorted(names, key=lambda segment: -sizes[segment]):
        for frame in np.flatnonzero(frames.segments == number):
            volume[places[frame]][inside[frame]] = number
    return volume, geometry, names


def read_references(path: Path) -> References:
    """Read which series and images a DICOM SEG was drawn on, without its frames.

    Raises:
        LabelError: not a DICOM SEG, or damaged.
    """
    return references_of(_open(path, stop_before_pixels=True))


def _open(path: Path, stop_before_pixels: bool = False) -> Any:
    try:
        header = read_header(path)
    except SeriesError as error:
        raise LabelError(str(error)) from error
    if header is None or not header.is_seg:
        raise LabelError(f"{path.name}: not a DICOM SEG file")
    return pydicom.dcmread(path, force=True, stop_before_pixels=stop_before_pixels)


def _frames(path: Path, data: Any) -> _Frames:
    per_frame = data.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    shared = (data.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    try:
        planes = [_group(frame, shared, "PlanePositionSequence").ImagePositionPatient for frame in per_frame]
        turns = [_group(frame, shared, "PlaneOrientationSequence").ImageOrientationPatient for frame in per_frame]
        measures = _group(per_frame[0], shared, "PixelMeasuresSequence")
        if data.SegmentationType == "LABELMAP":
            numbers = [0] * len(planes)
        else:
            identities = [_group(frame, shared, "SegmentIdentificationSequence") for frame in per_frame]
            numbers = [int(identity.ReferencedSegmentNumber) for identity in identities]
        rows, columns = (float(value) for value in measures.PixelSpacing)
        positions = np.array(planes, dtype=np.float64).reshape(-1, 3)
        orientations = np.array(turns, dtype=np.float64).reshape(-1, 6)
    except (KeyError, AttributeError, ValueError, TypeError) as error:
        raise LabelError(f"{path.name}: a frame has no position, orientation, spacing or segment ({error})") from error
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        raise LabelError(f"{path.name}: frames are not parallel; write the segmentation on the slices of its series")
    distance = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1.0
    return _Frames(np.array(numbers), positions, orientations[0], (rows, columns), float(distance))


def _group(frame: Any, shared: Any, keyword: str) -> Any:
    """Return the first item of a functional group, which stands at the frame or is shared by all frames."""
    return (frame.get(keyword) or shared[keyword].value)[0]


def _grid(path: Path, data: Any, frames: _Frames) -> tuple[NDArray[np.int64], Geometry]:
    """Return the slice that each frame belongs to, and the geometry from the first slice to the last."""
    normal = np.cross(frames.orientation[:3], frames.orientation[3:])
    distances = frames.positions @ normal
    order = np.argsort(distances, kind="stable")
    gaps = np.diff(distances[order])
    real = gaps[gaps > _SAME_POSITION_MM]
    step = float(np.median(real[real < 1.5 * real.min()])) if real.size else frames.distance
    multiples = np.rint(gaps / step)
    if np.abs(gaps - multiples * step).max(initial=0.0) > max(_SAME_POSITION_MM, 0.1 * step):
        raise LabelError(f"{path.name}: frames are unevenly spaced; write the segmentation on the slices of its series")
    places = np.zeros(len(distances), dtype=np.int64)
    places[order[1:]] = np.cumsum(multiples)
    count = int(places.max()) + 1
    first, last = frames.positions[order[0]], frames.positions[order[-1]]
    corners = np.linspace(first, last, count) if count > 1 else first[np.newaxis]
    return places, from_dicom(
        corners, frames.orientation, frames.pixel_spacing, int(data.Rows), int(data.Columns), frames.distance
    )
