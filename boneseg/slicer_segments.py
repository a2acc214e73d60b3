"""Segments of a segmentation of 3D Slicer (``.seg.nrrd``): what its header says of them, and how it is written.

The format: https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html, "Segmentation labelmap
file format". A segment is a value in a layer; ``SegmentN_...`` key/value pairs name both. The NRRD fields place the
voxels; where these are a part of the reference image, ``Segmentation_ReferenceImageExtentOffset`` only repeats that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boneseg.errors import SeriesError
from boneseg.scheme import LabelClass, LabelScheme
from boneseg.scheme.builtin import BUILT_IN

MOST_VALUE = 65535
_KEY = re.compile(r"Segment(\d{1,4})_(\w+)")
_REPRESENTATIONS = ("Segmentation_SourceRepresentation", "Segmentation_MasterRepresentation")
_BINARY = "Binary labelmap"
_TERMINOLOGY = "TerminologyEntry:"
_KIND, _PARTS = 2, (2, 3, 5, 6)
"""Places in a terminology entry: of the type, and of type, its modifier, anatomic region and its modifier."""
_SAYS_NOTHING = ("85756007", "T-D0050")
"""Codes of "tissue", which Slicer gives to every new segment."""
_SIDES = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}
_MEANINGS = dict(_SIDES.values()) | {
    item.code.value: item.code.meaning for scheme in BUILT_IN.values() for item in scheme.classes if item.code
}
_CATEGORY = ("SCT", "123037004", "Anatomical Structure")
_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGIONS = "Anatomic codes - DICOM master list"


@dataclass(frozen=True)
class Segment:
    """One segment.

    Attributes:
        number: that no other segment of the file has, from 1 on: its label value, unless another layer has that too.
        name: what a person calls it.
        code: meaning of its codes and their sides; empty where there are none.
        layer: in which it is, from 0 on.
        value: that it has there.
    """

    number: int
    name: str
    code: str
    layer: int
    value: int


def parse_segments(keys: Mapping[str, str], layers: int, name: str) -> tuple[Segment, ...] | None:
    """Read the segments of a NRRD header.

    Args:
        keys: its key/value pairs.
        layers: how many layers it has.
        name: the file's name, for messages.

    Returns:
        The segments in their order; none where the file is no segmentation of 3D Slicer.

    Raises:
        SeriesError: another representation than a label map, or segments contradict each other.
    """
    described: dict[int, dict[str, str]] = {}
    for key, text in keys.items():
        if found := _KEY.fullmatch(key):
            described.setdefault(int(found[1]), {})[found[2]] = text
    if not described:
        return None
    stored = next((keys[key] for key in _REPRESENTATIONS if key in keys), _BINARY)
    if stored.strip().lower() != _BINARY.lower():
        raise SeriesError(
            f"{name}: a segmentation of 3D Slicer whose source representation is no binary labelmap; make that its "
            "source representation in Slicer and save it again"
        )
    segments = [_segment(number, fields, layers, name) for number, fields in sorted(described.items())]
    if len({(item.layer, item.value) for item in segments}) < len(segments):
        raise SeriesError(f"{name}: two segments have the same value in the same layer; save it again in 3D Slicer")
    apart = len({item.value for item in segments}) == len(segments)
    return tuple(
        Segment(item.value if apart else place, item.name, item.code, item.layer, item.value)
        for place, item in enumerate(segments, start=1)
    )


def _segment(number: int, fields: Mapping[str, str], layers: int, name: str) -> Segment:
    # Before Slicer 4.11 every segment had a layer of its own, and the value 1.
    layer = _whole(fields.get("Layer", str(number if layers > 1 else 0)))
    value = _whole(fields.get("LabelValue", "1"))
    if layer is None or value is None or layer >= layers or not 1 <= value <= MOST_VALUE:
        raise SeriesError(
            f"{name}: a segment has a layer that is not there, or no value from 1 to {MOST_VALUE}; save it again in 3D "
            "Slicer"
        )
    return Segment(0, fields.get("Name", ""), _coded(fields.get("Tags", "")), layer, value)


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\s*\d{1,6}\s*", text, re.ASCII) else None


def _coded(tags: str) -> str:
    """Return the meanings of the codes in a segment's tags, such as ``Femur Left``."""
    entry = next((tag for tag in tags.split("|") if tag.startswith(_TERMINOLOGY)), "")
    parts = [part.split("^") for part in entry.removeprefix(_TERMINOLOGY).split("~")]
    found = []
    for place in _PARTS:
        if place < len(parts) and len(parts[place]) == 3:
            _, code, meaning = parts[place]
            if place != _KIND or code not in _SAYS_NOTHING:
                found.append(meaning or _MEANINGS.get(code, ""))
    return " ".join(part.strip() for part in found if part.strip())


def describe_scheme(mask: NDArray[np.uint8], scheme: LabelScheme) -> dict[str, str]:
    """Return the key/value pairs of a segmentation in one layer, whose segments are the classes of a scheme.

    Args:
        mask: (slice, row, column), values of the scheme; 0 is no segment.
        scheme: names, colours and codes.
    """
    keys = {
        "Segmentation_ContainedRepresentationNames": f"{_BINARY}|",
        "Segmentation_ConversionParameters": "",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
        **dict.fromkeys(_REPRESENTATIONS, _BINARY),
    }
    for number, item in enumerate(scheme.classes[1:]):
        values = {
            "ID": f"Segment_{number + 1}",
            "Name": item.name,
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{channel / 255:.6f}" for channel in item.colour),
            "ColorAutoGenerated": "0",
            "LabelValue": str(number + 1),
            "Layer": "0",
            "Extent": _extent(mask == number + 1),
            "Tags": f"{_TERMINOLOGY}{_terminology(item)}|",
        }
        keys |= {f"Segment{number}_{key}": value for key, value in values.items()}
    return keys


def _extent(drawn: NDArray[np.bool_]) -> str:
    """Return first and last voxel along column, row and slice; 0 and -1 where there is none."""
    ends: list[int] = []
    for axis in (2, 1, 0):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(drawn.any(axis=others))
        ends += [int(places[0]), int(places[-1])] if places.size else [0, -1]
    return " ".join(map(str, ends))


def _terminology(item: LabelClass) -> str:
    code = ("SCT", item.code.value, item.code.meaning) if item.code else ("SCT", "272673000", "Bone")
    side = ("SCT", *_SIDES[item.side]) if item.side else ("", "", "")
    parts = ["^".join(part) for part in (_CATEGORY, code, side)]
    return "~".join([_CONTEXT, *parts, _REGIONS, "^^", "^^"])
