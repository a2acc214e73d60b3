"""What a DICOM SEG says of its segments and frames, checked before any pixel is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.dicom import tags
from boneseg.dicom.file import open_dicom
from boneseg.dicom.header import SliceHeader, StoredPixels, read_header
from boneseg.dicom.segmentation_references import References, references_of
from boneseg.dicom.series import check_place
from boneseg.dicom.tags import TagError
from boneseg.errors import LabelError, SeriesError
from boneseg.geometry import Geometry, from_dicom

BINARY, FRACTIONAL, LABELMAP = "BINARY", "FRACTIONAL", "LABELMAP"
_PER_FRAME, _SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
_TAGS = [
    "SegmentationType",
    "SegmentSequence",
    "MaximumFractionalValue",
    "InConcatenationTotalNumber",
    "NumberOfFrames",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "ReferencedSeriesSequence",
    "StudiesContainingOtherReferencedInstancesSequence",
    "SourceImageSequence",
    "DerivationImageSequence",
    _PER_FRAME,
    _SHARED,
]
_GREY = ("MONOCHROME2", "PALETTE COLOR")
_SAME_PLACE_MM = 0.1
_SAME_DIRECTION = 1e-3
_SHIFT = 0.2
"""How far, in pixels, frames may lie beside the line on which they are stacked."""
_MOST_SEGMENTS = np.iinfo(np.uint8).max


@dataclass(frozen=True, eq=False)
class SegHeader:
    """A SEG without its pixels.

    Attributes:
        header: size and kind of the frames.
        pixels: how they are kept.
        kind: BINARY, FRACTIONAL or LABELMAP.
        names: label of each segment; without the background, which label maps may name.
        numbers: segment of each frame, in the order of the file; 0 in a label map.
        slices: which slice of the geometry each frame lies on.
        geometry: of the slices that have frames, sorted along the frames' normal; uneven where some are left out.
        threshold: stored value from which on a voxel is inside.
        references: what the SEG was drawn on.
    """

    header: SliceHeader
    pixels: StoredPixels
    kind: str
    names: dict[int, str]
    numbers: NDArray[np.int64]
    slices: NDArray[np.int64]
    geometry: Geometry
    threshold: float
    references: References


@dataclass(frozen=True)
class _Frame:
    number: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, float]
    distance: float


def read_seg_header(path: Path) -> SegHeader:
    """Read and check all that a SEG says of its frames.

    Raises:
        LabelError: not a SEG, damaged, or its frames are not parallel slices of segments that it describes.
    """
    try:
        header = read_header(path)
        if header is None or not header.is_seg:
            raise LabelError(f"{path.name}: not a DICOM SEG file")
        file = open_dicom(path, _TAGS)
        if header.problem or header.pixels is None or file is None:
            raise TagError(header.problem or "holds no frames")
        if header.pixels.big_endian:
            raise TagError("is big endian, which SEG files must not be")
        return _checked(path, header, header.pixels, file.data)
    except TagError as error:
        text = str(error)
        raise LabelError(text if text.startswith(path.name) else f"{path.name}: {text}; export it again") from error
    except SeriesError as error:
        raise LabelError(str(error)) from error


def _checked(path: Path, header: SliceHeader, pixels: StoredPixels, data: Any) -> SegHeader:
    kind = tags.text(data, "SegmentationType")
    if kind not in (BINARY, FRACTIONAL, LABELMAP):
        raise TagError(f"has a SegmentationType that is none of {BINARY}, {FRACTIONAL} and {LABELMAP}")
    if header.photometric not in _GREY:
        raise TagError("has a PhotometricInterpretation that SEG files must not have")
    if pixels.samples != 1 or pixels.signed:
        raise TagError("holds colours or signed numbers, which SEG files must not")
    if (parts := tags.optional_integer(data, "InConcatenationTotalNumber") or 1) > 1:
        raise TagError(f"is one of {parts} files of a concatenation, which are not put together; join them first")
    names = _names(data)
    references = references_of(data)  # before the frames, which are forgotten one by one
    frames = _frames(data, header.frames, set(names), kind)
    names.pop(0, None)
    slices, geometry = _stack(path, header, frames)
    numbers = np.array([frame.number for frame in frames], dtype=np.int64)
    (number, where), times = Counter(zip(numbers.tolist(), slices.tolist(), strict=True)).most_common(1)[0]
    if times > 1:
        place = ", ".join(f"{value:g}" for value in geometry.to_patient(np.array([[where, 0.0, 0.0]]))[0])
        of = f" of segment {number}" if number else ""
        raise TagError(f"holds {times} frames{of} at one place ({place}); split it into one file a point in time")
    return SegHeader(header, pixels, kind, names, numbers, slices, geometry, _threshold(data, kind, pixels), references)


def _names(data: Any) -> dict[int, str]:
    names: dict[int, str] = {}
    for item in tags.items(data, "SegmentSequence"):
        number = tags.integer(item, "SegmentNumber")
        if number is None or not 0 <= number <= _MOST_SEGMENTS:
            raise TagError(f"has a segment number of {number}, where 1 to {_MOST_SEGMENTS} is read")
        if number in names:
            raise TagError(f"describes segment {number} twice")
        names[number] = tags.text(item, "SegmentLabel")
    if not names.keys() - {0}:
        raise TagError("describes no segment")
    return names


def _threshold(data: Any, kind: str, pixels: StoredPixels) -> float:
    if kind != FRACTIONAL:
        if kind == BINARY and pixels.bits_allocated not in (1, 8):
            raise TagError(f"holds {pixels.bits_allocated} bits a pixel, where a {BINARY} file has 1")
        return 1
    most = tags.integer(data, "MaximumFractionalValue")
    if most is None or not 1 <= most < 1 << pixels.bits_allocated:
        raise TagError(f"has a MaximumFractionalValue of {most}, so one half is unknown")
    return most / 2


def _frames(data: Any, count: int, known: set[int], kind: str) -> list[_Frame]:
    """Read the functional groups of the frames; each is forgotten when it was read, for parsed they are large."""
    shared = (tags.items(data, _SHARED) or [None])[0]
    groups = tags.items(data, _PER_FRAME)
    data.pop(_PER_FRAME, None)
    if len(groups) != count:
        raise TagError(f"holds {count} frames and says of {len(groups)} where they are")
    found = []
    for index in range(count):
        group, groups[index] = groups[index], None
        found.append(_frame(f"frame {index + 1}", group, shared, known, kind))
    return found


def _frame(which: str, group: Any, shared: Any, known: set[int], kind: str) -> _Frame:
    position = tags.numbers(_macro(group, shared, "PlanePositionSequence"), "ImagePositionPatient", 3)
    orientation = tags.numbers(_macro(group, shared, "PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    measures = _macro(group, shared, "PixelMeasuresSequence")
    spacing = tags.numbers(measures, "PixelSpacing", 2)
    for value, name in ((position, "position"), (orientation, "orientation"), (spacing, "pixel spacing")):
        if value is None:
            raise TagError(f"{which} has no {name}, so its place is unknown")
    number = 0
    if kind != LABELMAP:
        segment = tags.integer(_macro(group, shared, "SegmentIdentificationSequence"), "ReferencedSegmentNumber")
        if segment is None:
            raise TagError(f"{which} names no segment")
        if segment == 0 or segment not in known:
            raise TagError(f"{which} is of segment {segment}, which the file does not describe")
        number = segment
    distances = (tags.number(measures, name) for name in ("SpacingBetweenSlices", "SliceThickness"))
    return _Frame(number, position, orientation, spacing, next((abs(value) for value in distances if value), 1.0))


def _macro(group: Any, shared: Any, keyword: str) -> Any:
    """Return the first item of a functional group, which stands at the frame or is shared; else an empty one."""
    for place in (group, shared):
        found = [] if place is None else tags.items(place, keyword)
        if found:
            return found[0]
    return {}


def _stack(path: Path, header: SliceHeader, frames: list[_Frame]) -> tuple[NDArray[np.int64], Geometry]:
    """Return the slice that each frame lies on, and the geometry of the slices."""
    first = frames[0]
    for index, frame in enumerate(frames):
        if frame.orientation != first.orientation or frame.pixel_spacing != first.pixel_spacing or index == 0:
            check_place(f"{path.name}: frame {index + 1}", frame.position, frame.orientation, frame.pixel_spacing)
            turned = max(abs(a - b) for a, b in zip(frame.orientation, first.orientation, strict=True))
            scaled = max(abs(a / b - 1) for a, b in zip(frame.pixel_spacing, first.pixel_spacing, strict=True))
            if max(turned, scaled) > _SAME_DIRECTION:
                raise TagError("has frames that are not parallel or not of one pixel spacing")
        elif max(map(abs, frame.position)) > 1e5:
            raise TagError(f"frame {index + 1} lies farther away than 100 m")
    orientation = np.array(first.orientation).reshape(2, 3)
    orientation /= np.linalg.norm(orientation, axis=1, keepdims=True)
    positions = np.array([frame.position for frame in frames], dtype=np.float64)
    distances = positions @ np.cross(*orientation)
    order = np.argsort(distances, kind="stable")
    slices = np.zeros(len(frames), dtype=np.int64)
    slices[order[1:]] = np.cumsum(np.diff(distances[order]) > _SAME_PLACE_MM)
    starts = order[np.unique(slices[order], return_index=True)[1]]
    places = positions[starts]
    line = places[-1] - places[0]
    shares = (distances - distances[order[0]]) / max(float(np.ptp(distances)), 1e-9)
    off = np.abs(positions - places[0] - shares[:, np.newaxis] * line).max()
    if off > max(_SAME_PLACE_MM, _SHIFT * min(first.pixel_spacing)):
        raise TagError(f"has frames that are shifted against each other by {off:.1f} mm")
    geometry = from_dicom(places, orientation.ravel(), first.pixel_spacing, header.rows, header.columns, first.distance)
    return slices, geometry
