"""What a DICOM RTSTRUCT holds: regions with their names and contours, and what they were drawn on."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement

from boneseg.dicom import tags
from boneseg.dicom.damage import UNDEFINED
from boneseg.dicom.file import open_dicom
from boneseg.dicom.segmentation_references import References
from boneseg.dicom.sop_classes import STRUCTURE_SETS
from boneseg.dicom.tags import TagError, numbered
from boneseg.errors import LabelError, SeriesError
from boneseg.memory_budget import claim

Contour = NDArray[np.float64]
"""Corners of a closed polygon, (N, 3): LPS mm."""

_TAGS = [
    "SpecificCharacterSet",
    "SOPClassUID",
    "Modality",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "ReferencedFrameOfReferenceSequence",
    "StructureSetROISequence",
    "ROIContourSequence",
    "RTROIObservationsSequence",
]
_XOR = "CLOSEDPLANAR_XOR"
_CLOSED = ("CLOSED_PLANAR", _XOR)
_NOT_CLOSED = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")
_TARGETS = ("GTV", "CTV", "PTV", "TREATED_VOLUME", "IRRAD_VOLUME", "DOSE_REGION", "BOLUS")
"""Interpreted types of regions that are no organ, whatever they are named after."""
_FARTHEST_MM = 1e5
_SAME_MM = 1e-3
_MOST = int(np.iinfo(np.uint16).max)
_BYTES_A_BYTE = 8
"""Memory that a byte of the file takes at most: it, its copies on the way, and 8 bytes a number of two letters."""
_NUMBERS = re.compile(rb"[^\\]+")


@dataclass(frozen=True, eq=False)
class Region:
    """A region of interest.

    Attributes:
        number: ROINumber; where that is below 1 or above 65535, the lowest that no other region has.
        name: ROIName.
        code: meaning of its code, else its interpreted type such as EXTERNAL; empty where the file does not say.
        is_target: whether its type is that of a volume of a plan, whatever it is named after: a CTV called "sacrum" is
            not the sacrum.
        contours: those that are closed, in the order of the file; each once.
        frame: FrameOfReferenceUID of the contours.
    """

    number: int
    name: str
    code: str
    is_target: bool
    contours: tuple[Contour, ...]
    frame: str


@dataclass(frozen=True, eq=False)
class StructureSet:
    """An RTSTRUCT.

    Attributes:
        regions: by number, in the order of the file.
        references: what it was drawn on.
        warnings: what of it is not used, one sentence each.
    """

    regions: Mapping[int, Region]
    references: References
    warnings: tuple[str, ...]

    @property
    def drawn(self) -> tuple[int, ...]:
        """Numbers of the regions that have closed contours, rising."""
        return tuple(sorted(number for number, region in self.regions.items() if region.contours))

    def content(self) -> str:
        """Return a hash of what is drawn: numbers and contours to 0.01 mm, in whatever order; names play no part."""
        digest = hashlib.sha256()
        for number in self.drawn:
            shapes = (np.rint(contour * 100).astype("<i8").tobytes() for contour in self.regions[number].contours)
            parts = sorted(hashlib.sha256(shape).digest() for shape in shapes)
            digest.update(f"{number} {len(parts)} ".encode() + b"".join(parts))
        return digest.hexdigest()

    def outermost(self) -> NDArray[np.float64]:
        """Return the points of contours that lie outermost in 26 directions, each once: (N, 3) LPS mm."""
        contours = [contour for region in self.regions.values() for contour in region.contours]
        found: dict[tuple[float, ...], None] = {}
        ways = np.array([way for way in np.ndindex(3, 3, 3) if way != (1, 1, 1)], dtype=np.float64) - 1
        best = np.full(len(ways), -math.inf)
        points = np.zeros((len(ways), 3))
        for contour in contours:
            along = contour @ ways.T
            farther = along.max(axis=0) > best
            best = np.maximum(best, along.max(axis=0))
            points[farther] = contour[along.argmax(axis=0)[farther]]
        for point in points if contours else ():
            found[tuple(point.tolist())] = None
        return np.array(list(found), dtype=np.float64).reshape(-1, 3)


def read_structures(path: Path) -> StructureSet:
    """Read an RTSTRUCT.

    Only closed contours enclose anything: points and open ones are left out with a warning.

    Raises:
        LabelError: not an RTSTRUCT, damaged, or its contours lie in several frames of reference.
    """
    try:
        file = open_dicom(path, _TAGS)
        if file is None or (
            tags.text(file.data, "SOPClassUID") != STRUCTURE_SETS and tags.text(file.data, "Modality") != "RTSTRUCT"
        ):
            raise LabelError(f"{path.name}: not a DICOM RTSTRUCT file")
        with claim(path.name, _BYTES_A_BYTE * file.size):
            return _checked(file.data)
    except TagError as error:
        raise LabelError(f"{path.name}: {error}; export it again") from error
    except SeriesError as error:
        raise LabelError(str(error)) from error
    except LabelError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OSError, IndexError, NotImplementedError) as error:
        # what damaged bytes make of pydicom's readers
        raise LabelError(f"{path.name}: its sequences cannot be read; copy it again from its source") from error


def _checked(data: Any) -> StructureSet:
    if "StructureSetROISequence" not in data:
        raise TagError("has no StructureSetROISequence, so its regions are unknown")
    described = _described(data)
    values = _values(list(described))
    said = _observed(data)
    images: dict[str, None] = {}
    odd: Counter[str] = Counter()
    contours = _contours(data, set(described), images, odd)
    regions = {}
    for number, (name, frame) in described.items():
        code, kind = said.get(number, ("", ""))
        value = values[number]
        regions[value] = Region(value, name, code or kind, kind in _TARGETS, contours.get(number, ()), frame)
        odd["number"] += value != number
    frames = {region.frame for region in regions.values() if region.contours and region.frame}
    if len(frames) > 1:
        raise TagError(f"holds contours in {len(frames)} frames of reference, where a file of one is needed")
    references = _references(data, tuple(images), next(iter(frames), ""))
    return StructureSet(regions, references, tuple(_sentence(*item) for item in sorted((+odd).items())))


def _values(numbers: list[int]) -> dict[int, int]:
    """Return the value that stands for each region in a mask: its number where that can be one, else a free one."""
    kept = {number for number in numbers if 1 <= number <= _MOST}
    free = (value for value in range(1, _MOST + 1) if value not in kept)
    try:
        return {number: number if number in kept else next(free) for number in numbers}
    except StopIteration:
        raise TagError(f"has more than {_MOST} regions") from None


def _described(data: Any) -> dict[int, tuple[str, str]]:
    """Return name and frame of reference of each region, by number."""
    found: dict[int, tuple[str, str]] = {}
    for item in _items(data, "StructureSetROISequence"):
        number = tags.integer(item, "ROINumber")
        if number is None:
            raise TagError("has a region without a number")
        if number in found:
            raise TagError(f"describes region {number} twice")
        found[number] = (tags.text(item, "ROIName"), tags.text(item, "ReferencedFrameOfReferenceUID"))
    return found


def _observed(data: Any) -> dict[int, tuple[str, str]]:
    """Return the meaning of the code and the interpreted type of each region; what cannot be read is not said."""
    found: dict[int, tuple[str, str]] = {}
    for item in tags.items(data, "RTROIObservationsSequence"):
        number = tags.optional_integer(item, "ReferencedROINumber")
        codes = tags.items(item, "RTROIIdentificationCodeSequence")
        code = " ".join(tags.text(each, "CodeMeaning") for each in codes).strip()
        if number is not None:
            found.setdefault(number, (code, tags.text(item, "RTROIInterpretedType").upper()))
    return found


def _contours(data: Any, known: set[int], images: dict[str, None], odd: Counter[str]) -> dict[int, tuple[Contour, ...]]:
    """Read the contours of each region; each item is forgotten when it was read, for parsed they are large."""
    found: dict[int, tuple[Contour, ...]] = {}
    regions = _items(data, "ROIContourSequence")
    data.pop("ROIContourSequence", None)
    for index in range(len(regions)):
        region, regions[index] = regions[index], None
        number = tags.integer(region, "ReferencedROINumber")
        if number is None:
            raise TagError("has contours of a region without a number")
        if number not in known:
            raise TagError(f"has contours of region {number}, which it does not describe")
        if number in found:
            raise TagError(f"has two lists of contours of region {number}")
        kept: dict[bytes, Contour] = {}
        items = _items(region, "ContourSequence")
        for place in range(len(items)):
            item, items[place] = items[place], None
            kind = tags.text(item, "ContourGeometricType")
            if kind not in (*_CLOSED, *_NOT_CLOSED):
                raise TagError(f"has a contour of region {number} whose ContourGeometricType is none that is known")
            points = _points(item, number)
            content = np.rint(points / _SAME_MM).astype(np.int64).tobytes()
            if kind == _XOR:  # two that are the same cancel each other
                content += b"%d" % place
            if kind in _NOT_CLOSED:
                odd["not closed"] += 1
            elif kept.setdefault(content, points) is not points:
                odd["twice"] += 1
            else:
                for image in tags.items(item, "ContourImageSequence"):
                    if uid := tags.text(image, "ReferencedSOPInstanceUID"):
                        images[uid] = None
        found[number] = tuple(kept.values())
    return found


def _points(item: Any, number: int) -> Contour:
    """Read the points of a contour from its text: as objects of pydicom they would take twenty times the memory."""
    tag = numbered("ContourData")
    element = item.get_item(tag) if tag in item else None
    value = None if element is None else element.value
    if isinstance(element, RawDataElement) and element.length not in (UNDEFINED, len(value or b"")):
        raise TagError(f"has a contour of region {number} that is cut short")
    if not isinstance(value, bytes):
        value = b"\\".join(str(part).encode() for part in value or ())
    value = value.strip(b" \0")
    count = value.count(b"\\") + 1
    try:
        flat = np.fromiter((float(match[0]) for match in _NUMBERS.finditer(value)), dtype=np.float64)
    except ValueError as error:
        raise TagError(f"has a contour of region {number} with something that is no number") from error
    said = tags.optional_integer(item, "NumberOfContourPoints")
    if len(flat) != count or count % 3 or said not in (None, count // 3):
        raise TagError(f"has a contour of region {number} with {len(flat)} numbers where it says {said} points")
    if not (np.abs(flat) <= _FARTHEST_MM).all():
        raise TagError(f"has a contour of region {number} that lies farther away than 100 m")
    return flat.reshape(-1, 3)


def _references(data: Any, drawn_on: tuple[str, ...], frame: str) -> References:
    """Return what the contours were drawn on; a part that is missing or malformed counts as not said."""
    named: dict[str, list[str]] = {}
    frames: dict[str, None] = {}
    for item in tags.items(data, "ReferencedFrameOfReferenceSequence"):
        own = tags.text(item, "FrameOfReferenceUID")
        if frame and own and own != frame:
            continue
        frames.update({own: None} if own else {})
        for study in tags.items(item, "RTReferencedStudySequence"):
            for series in tags.items(study, "RTReferencedSeriesSequence"):
                images = (
                    tags.text(image, "ReferencedSOPInstanceUID") for image in tags.items(series, "ContourImageSequence")
                )
                if uid := tags.text(series, "SeriesInstanceUID"):
                    named.setdefault(uid, []).extend(image for image in images if image)
    # Several series stand there where a planning system lists all that it has; the contours say which it was.
    of_contours = [uid for uid, images in named.items() if not set(drawn_on).isdisjoint(images)]
    series_uids = list(named) if len(named) == 1 else of_contours
    listed = dict.fromkeys(image for images in named.values() for image in images)
    if not frame:
        frame = next(iter(frames)) if len(frames) == 1 else tags.text(data, "FrameOfReferenceUID")
    return References(
        series=series_uids[0] if len(series_uids) == 1 else "",
        images=drawn_on or tuple(listed),
        frame_of_reference=frame,
        study=tags.text(data, "StudyInstanceUID"),
    )


def _items(data: Any, keyword: str) -> list[Any]:
    """Return the items of a sequence; none where it is absent.

    Raises:
        TagError: it is cut short or no sequence: nothing of it may be passed over without a word.
    """
    tag = numbered(keyword)
    if tag not in data:
        return []
    element = data.get_item(tag)
    if isinstance(element, RawDataElement) and element.length not in (UNDEFINED, len(element.value or b"")):
        there = len(element.value or b"")
        raise TagError(f"is cut short: {keyword} claims {element.length} bytes, of which {there} are there")
    try:
        value = data[tag].value
        found = [] if value is None else list(value)
    except Exception as error:  # pydicom passes on whatever a damaged byte makes of its readers
        raise TagError(f"is damaged: {keyword} cannot be read") from error
    if isinstance(value, str | bytes) or not all(hasattr(item, "get_item") for item in found):
        raise TagError(f"is damaged: {keyword} is no sequence")
    return found


def _sentence(what: str, count: int) -> str:
    several = count > 1
    if what == "twice":
        return f"{count} contour{'s are' if several else ' is'} there twice; the copies are not used"
    if what == "number":
        numbers = "numbers of regions are" if several else "number of a region is"
        return f"{count} {numbers} below 1 or above {_MOST}; the lowest free ones stand for them"
    return (
        f"{count} point{'s' if several else ''} or open contour{'s' if several else ''} "
        f"enclose{'' if several else 's'} nothing and {'are' if several else 'is'} not used"
    )
