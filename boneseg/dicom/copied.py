"""What a DICOM SEG takes over from the headers of its CT: mended where one reading is certain, else left out.

Hospital files break DICOM's rules in many ways, and a file that is written must keep them. A value that is only
shortened or guessed would be another patient's or another order's: what cannot be mended is left out.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataelem import RawDataElement
from pydicom.valuerep import TEXT_VR_DELIMS

_UNREADABLE = "�"
_ESCAPE = b"\x1b"
_UID = re.compile(r"\d+(\.\d+)+")
_DATE = re.compile(r"(\d{4})(?:(\d{2})(\d{2})|([./-])(\d{1,2})\4(\d{1,2}))")
_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d+))?)?)?")
_NAME_DELIMITERS = TEXT_VR_DELIMS | {ord("^"), ord("=")}
_SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F", "O": "O", "OTHER": "O"}
_NAME_GROUPS, _NAME_PARTS, _GROUP_CHARACTERS = 3, 5, 64


def _uid(text: str) -> str | None:
    """Return a UID as it stands: with leading zeros it breaks a rule, but it is what the images are called."""
    return text if len(text) <= 64 and text.isascii() and _UID.fullmatch(text) else None


def _day(text: str) -> str | None:
    """Return a date as YYYYMMDD, also from the old YYYY.MM.DD; none where a part is missing or impossible."""
    found = _DATE.fullmatch(text) if text.isascii() else None
    if found is None:
        return None
    year, month, of_month = found[1], found[2] or found[5], found[3] or found[6]
    try:
        return date(int(year), int(month), int(of_month)).strftime("%Y%m%d").zfill(8)
    except ValueError:
        return None


def _clock(text: str) -> str | None:
    """Return a time as HHMMSS.FFFFFF or its beginning, also from the old HH:MM:SS; none where it is impossible."""
    found = _TIME.fullmatch(text) if text.isascii() else None
    if found is None or int(found[1]) > 23 or int(found[2] or 0) > 59 or int(found[3] or 0) > 59:
        return None
    return "".join(part or "" for part in found.groups()[:3]) + (f".{found[4][:6]}" if found[4] else "")


def _short(text: str) -> str | None:
    """Return a text of at most 16 characters, as an identifier of a study is."""
    return text if len(text) <= 16 else None


def _long(text: str) -> str | None:
    """Return a text of at most 64 characters, as an identifier of a patient is."""
    return text if len(text) <= 64 else None


def _person(text: str) -> str | None:
    """Return a person's name: at most three ways of writing it, each of at most 64 characters and five parts."""
    groups = text.split("=")
    fits = all(len(group) <= _GROUP_CHARACTERS and group.count("^") < _NAME_PARTS for group in groups)
    return text if fits and len(groups) <= _NAME_GROUPS else None


def _sex(text: str) -> str | None:
    """Return M, F or O; none for anything else."""
    return _SEXES.get(text.upper())


RULES: dict[str, Callable[[str], str | None]] = {
    "PatientID": _long,
    "PatientName": _person,
    "PatientBirthDate": _day,
    "PatientSex": _sex,
    "StudyInstanceUID": _uid,
    "StudyID": _short,
    "StudyDate": _day,
    "StudyTime": _clock,
    "AccessionNumber": _short,
    "FrameOfReferenceUID": _uid,
}
"""Tags that all files of a series share -> what mends them."""

_OF_THE_IMAGE = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
_PLACED_BY = ("ImagePositionPatient", "PerFrameFunctionalGroupsSequence", "SpecificCharacterSet")


@dataclass(frozen=True)
class Image:
    """What a SEG says of one source image; a UID that the file lacks or that is none is empty.

    Attributes:
        position: ImagePositionPatient, LPS mm; none where the file does not say.
        frame: number of the frame in a file of several, from 1; none for a file of one image.
    """

    sop_class: str
    instance: str
    series: str
    position: tuple[float, float, float] | None
    frame: int | None = None


@dataclass(frozen=True)
class Source:
    """What a SEG says of its source series.

    Attributes:
        values: of each tag in ``RULES``; empty where no file of the series has a value that can be written.
        left_out: tags that have a value which cannot be written.
        images: one a file, or one a frame, in the order of the files.
    """

    values: dict[str, str]
    left_out: tuple[str, ...]
    images: tuple[Image, ...]


def read_source(paths: Sequence[Path]) -> Source:
    """Read what a SEG takes over from its source series.

    Args:
        paths: the files of the series. Each tag is taken from the first file in which it can be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns by printing what it cannot decode
        return _read_source(paths)


def _read_source(paths: Sequence[Path]) -> Source:
    values: dict[str, str] = {}
    refused: set[str] = set()
    images = []
    for path in paths:
        wanted = [*RULES, *_OF_THE_IMAGE, *_PLACED_BY]
        data = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=wanted)
        for keyword, rule in RULES.items():
            if keyword not in values and (value := _mended(data, keyword, rule, refused)):
                values[keyword] = value
        sop_class, instance, series = (_mended(data, keyword, _uid, refused) or "" for keyword in _OF_THE_IMAGE)
        frames = data.get("PerFrameFunctionalGroupsSequence")
        if frames:
            places = [_frame_position(item) for item in frames]
            images += [Image(sop_class, instance, series, place, number) for number, place in enumerate(places, 1)]
        else:
            images.append(Image(sop_class, instance, series, _position(data)))
    left_out = [keyword for keyword in (*RULES, *_OF_THE_IMAGE) if keyword in refused and not values.get(keyword)]
    return Source({keyword: values.get(keyword, "") for keyword in RULES}, tuple(left_out), tuple(images))


def _mended(data: Any, keyword: str, rule: Callable[[str], str | None], refused: set[str]) -> str | None:
    """Return a tag's value as it may be written; none where there is none, or none that may (and note that)."""
    try:
        text = _text(data, keyword)
        value = text if not text else rule(text)
    except Exception:  # pydicom passes on whatever a damaged byte makes of its readers
        value = None
    if value is None:
        refused.add(keyword)
    return value or None


def _text(data: Any, keyword: str) -> str:
    """Return a tag's text without the blanks around it.

    Raises:
        ValueError: it is not one text, or not in the character set that the file declares, or holds control characters.
    """
    if keyword not in data:
        return ""
    element = data.get_item(keyword)
    if isinstance(element, RawDataElement):
        text = _decoded(element.value or b"", data, _NAME_DELIMITERS if keyword == "PatientName" else TEXT_VR_DELIMS)
    elif element.VR == "SQ" or not isinstance(element.value, str | None):
        raise ValueError(f"{keyword} holds no single text")
    else:
        text = str(element.value or "")
    text = text.strip(" \0")
    if "\\" in text or any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in text):
        raise ValueError(f"{keyword} holds several values or control characters")
    return text


def _decoded(raw: bytes, data: Any, delimiters: set[int]) -> str:
    if raw.isascii() and _ESCAPE not in raw:
        return raw.decode("ascii")
    try:
        text = _as_declared(raw, data, delimiters)
    except (LookupError, ValueError, TypeError):
        text = _UNREADABLE
    if _UNREADABLE in text or "\x1b" in text:
        return raw.decode("utf-8")
    return text


def _as_declared(raw: bytes, data: Any, delimiters: set[int]) -> str:
    declared = data.get("SpecificCharacterSet") or []
    names = [declared] if isinstance(declared, str) else [str(name or "") for name in declared]
    encodings = convert_encodings(names)
    if encodings == convert_encodings([""]):  # plain ASCII is declared, and these bytes are not
        raise ValueError("not ASCII")
    return str(decode_bytes(raw, encodings, delimiters))


def _frame_position(item: Any) -> tuple[float, float, float] | None:
    planes = item.get("PlanePositionSequence")
    return _position(planes[0]) if planes else None


def _position(data: Any) -> tuple[float, float, float] | None:
    try:
        x, y, z = (float(value) for value in data.ImagePositionPatient)
    except (AttributeError, TypeError, ValueError):
        return None
    return x, y, z
