"""Functional groups: what a multi-frame file says of each of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from boneseg.dicom import tags
from boneseg.dicom.tags import TagError

GROUPS = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
TOTAL_PARTS = "InConcatenationTotalNumber"

_POSITION, _ORIENTATION, _MEASURES = "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"
_RESCALE, _CONTENT = "PixelValueTransformationSequence", "FrameContentSequence"
_STACK = ("StackID", "TemporalPositionIndex", "FrameAcquisitionNumber")


@dataclass(frozen=True)
class Place:
    """Where one frame, or the one picture of a plain file, lies; what the file does not say is None.

    Attributes:
        stack: which of several volumes of a file a frame is of; empty where there is one.
    """

    position: tuple[float, float, float] | None
    orientation: tuple[float, float, float, float, float, float] | None
    pixel_spacing: tuple[float, float] | None
    thickness: float | None
    stack: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rescale:
    """How stored values become HU.

    Attributes:
        given: whether the file has slope and intercept; without them 1 and 0 stand here.
        unit: RescaleType, empty where the file has none.
    """

    slope: float
    intercept: float
    given: bool
    unit: str


def has_groups(data: Any) -> bool:
    """Say whether a file describes its frames in functional groups."""
    return any(data.get(keyword) is not None for keyword in GROUPS)


def places(data: Any, frames: int) -> tuple[list[Place], list[Rescale]]:
    """Read the functional groups of each frame; what they do not hold is taken from the file's own tags.

    Raises:
        TagError: there is not one group a frame, or a number in it is none.
    """
    shared = (tags.items(data, GROUPS[0]) or [None])[0]
    each = tags.items(data, GROUPS[1])
    if len(each) != frames:
        raise TagError(f"holds {frames} frames and says of {len(each)} where they are")
    found = []
    for frame in each:
        position, orientation, measures, content = (
            _macro(data, shared, frame, name) for name in (_POSITION, _ORIENTATION, _MEASURES, _CONTENT)
        )
        stack = tuple(tags.text(content, keyword) for keyword in _STACK)
        found.append(Place(*_plane(position, orientation, measures), stack))
    return found, [rescale(_macro(data, shared, frame, _RESCALE)) for frame in each]


def place(data: Any) -> Place:
    """Read where the one picture of a plain file lies."""
    return Place(*_plane(data, data, data))


def rescale(data: Any) -> Rescale:
    """Read slope and intercept.

    Raises:
        TagError: one is missing, one is no number, or the slope turns or flattens all values.
    """
    slope, intercept = tags.number(data, "RescaleSlope"), tags.number(data, "RescaleIntercept")
    if (slope is None) != (intercept is None):
        missing, there = ("Slope", "Intercept") if slope is None else ("Intercept", "Slope")
        raise TagError(f"has a Rescale{there} but no Rescale{missing}, so its values are not known in HU")
    unit = tags.text(data, "RescaleType")
    return Rescale(
        1.0 if slope is None else slope, 0.0 if intercept is None else intercept, slope is not None, unit.upper()
    )


def _macro(data: Any, shared: Any, frame: Any, name: str) -> Any:
    """Return the item that holds a group of tags for a frame: its own, the one for all, or the file itself."""
    for place in (frame, shared):
        found = [] if place is None else tags.items(place, name)
        if found:
            return found[0]
    return data


def _plane(position: Any, orientation: Any, measures: Any) -> tuple[Any, Any, Any, float | None]:
    try:
        thickness = tags.number(measures, "SliceThickness")
    except TagError:
        thickness = None
    return (
        tags.numbers(position, "ImagePositionPatient", 3),
        tags.numbers(orientation, "ImageOrientationPatient", 6),
        tags.numbers(measures, "PixelSpacing", 2),
        thickness,
    )
