"""What a NRRD header says of its volume, checked. Nothing in it is taken on trust, and no free text of it is kept.

The format: https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from boneseg.errors import SeriesError
from boneseg.geometry import LPS_TO_RAS, Affine, from_nifti
from boneseg.placing import check_place, damaged_header, guessed_place
from boneseg.slicer_segments import parse_segments
from boneseg.stored_voxels import Packing, VolumeHeader

FORM = "NRRD"
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|$)")
_MOST_SIZE = 1 << 20
_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_NUMBERS = {name: kind for kind, names in _TYPES.items() for name in names.split(", ")}
_PACKINGS = {
    "raw": Packing.RAW,
    "gzip": Packing.DEFLATE,
    "gz": Packing.DEFLATE,
    "bzip2": Packing.BZIP2,
    "bz2": Packing.BZIP2,
}
_ORDERS: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
_TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_TO_MM = {"mm": 1.0, "millimeter": 1.0, "millimetre": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "micron": 0.001}
_SPATIAL = {"domain", "space", "???", "none"}
_LISTS = {"list", "vector", "???", "none"}
_ALIASES = {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip"}


def is_nrrd(start: bytes) -> bool:
    """Say whether a file is NRRD by its first bytes."""
    return start.startswith(b"NRRD000")


def parse_header(start: bytes, name: str) -> VolumeHeader:
    """Read a header.

    Args:
        start: the file up to the end of its header or further.
        name: the file's name, for messages.

    Raises:
        SeriesError: cut short, contradictory, or not one volume of numbers.
    """
    fields, keys, end = _split(start, name)
    sizes, layers = _sizes(fields, name)
    kind = _number_kind(fields, name)
    packing = _packing(fields, name)
    data_file = _data_file(fields, name)
    if not data_file and end is None:
        raise damaged_header(name, FORM, "it has no end")
    affine, placed, warnings = _place(fields, sizes, layers is not None, name)
    segments = parse_segments(keys, layers or 1, name)
    if segments is None and (layers or 1) > 1:
        text = " x ".join(str(size) for size in (layers, *sizes))
        raise SeriesError(
            f"{name}: a volume must have 3 dimensions, this one has 4 ({text}) and is no segmentation of 3D Slicer; "
            "split it into one file a volume first"
        )
    if segments is not None and kind.kind == "f":
        raise SeriesError(f"{name}: a segmentation whose voxels are no whole numbers; save it again in 3D Slicer")
    skip = _byte_skip(fields, packing, name)
    return VolumeHeader(
        name=name,
        form=FORM,
        geometry=from_nifti((sizes[2], sizes[1], sizes[0]), LPS_TO_RAS @ affine),
        kind=kind,
        packing=packing,
        start=None if skip is None else 0 if data_file else end,
        skip=skip or 0,
        layers=layers or 1,
        data_file=data_file,
        segments=segments,
        warnings=tuple(warnings),
        placed=placed,
    )


def _split(start: bytes, name: str) -> tuple[dict[str, str], dict[str, str], int | None]:
    """Return fields, key/value pairs, and where the header's blank line ends; none where there is none."""
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    lines = _LINE.finditer(start)
    next(lines, None)
    last = 0
    for line in lines:
        text, last = line[1].decode("utf-8", "replace"), line.end()
        if not text:
            return fields, keys, last if line[2] else None
        if text.startswith("#"):
            continue
        where = re.search(r":=|: |:$", text)
        if where is None:
            raise damaged_header(name, FORM, "a line is no field")
        field, value = text[: where.start()], text[where.end() :]
        if where[0] == ":=":
            keys[field] = value.replace("\\n", "\n").replace("\\\\", "\\")
            continue
        field = _ALIASES.get(field.strip().lower(), field.strip().lower())
        if field in fields:
            raise damaged_header(name, FORM, "a field is there twice")
        fields[field] = value.strip()
        if field == "data file" and value.strip().upper().startswith("LIST"):
            break  # file names follow, which are not read
    return fields, keys, None


def _field(fields: dict[str, str], field: str, name: str) -> str:
    if not fields.get(field):
        raise damaged_header(name, FORM, f"it has no {field}")
    return fields[field]


def _sizes(fields: dict[str, str], name: str) -> tuple[tuple[int, int, int], int | None]:
    """Return voxels along i, j and k, and the layers; none where there is no axis of layers."""
    dimension, listed = _field(fields, "dimension", name), _field(fields, "sizes", name).split()
    if not dimension.isascii() or not dimension.isdigit() or len(listed) != int(dimension[:4]):
        raise damaged_header(name, FORM, "dimension and sizes do not agree")
    if not all(re.fullmatch(r"[0-9]{1,7}", text) and 0 < int(text) <= _MOST_SIZE for text in listed):
        raise damaged_header(name, FORM, f"sizes are no numbers from 1 to {_MOST_SIZE}")
    sizes = [int(text) for text in listed]
    kinds = [kind.lower() for kind in fields.get("kinds", "").split()] or ["???"] * len(sizes)
    if len(kinds) != len(sizes):
        raise damaged_header(name, FORM, "kinds and sizes do not agree")
    has_list = len(sizes) == 4 and kinds[0] in _LISTS
    axes = kinds[1:] if has_list else kinds
    if len(axes) != 3 or not _SPATIAL.issuperset(axes):
        text = " x ".join(listed)
        raise SeriesError(
            f"{name}: a volume must have 3 dimensions, each along the patient, this one has {len(sizes)} ({text}) of "
            "other kinds; split it into one file a volume first"
        )
    return (sizes[-3], sizes[-2], sizes[-1]), sizes[0] if has_list else None


def _number_kind(fields: dict[str, str], name: str) -> np.dtype[Any]:
    given = " ".join(_field(fields, "type", name).lower().split())
    if given not in _NUMBERS:
        raise SeriesError(f"{name}: its type is none of numbers that NRRD knows; store HU or whole label values")
    kind = np.dtype(_NUMBERS[given])
    if kind.itemsize == 1:
        return kind
    order = _ORDERS.get(_field(fields, "endian", name).lower())
    if order is None:
        raise damaged_header(name, FORM, "endian is neither little nor big")
    return kind.newbyteorder(order)


def _packing(fields: dict[str, str], name: str) -> Packing:
    given = _field(fields, "encoding", name).lower()
    if given not in _PACKINGS:
        raise SeriesError(f"{name}: its encoding is not raw, gzip or bzip2; save it in one of these")
    return _PACKINGS[given]


def _byte_skip(fields: dict[str, str], packing: Packing, name: str) -> int | None:
    """Return the bytes before the voxels; none = the voxels end with the file."""
    if fields.get("line skip", "0") != "0":
        raise SeriesError(f"{name}: line skip is not read; save it without other text before the voxels")
    given = fields.get("byte skip", "0")
    if given == "-1" and packing == Packing.RAW:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", given):
        raise damaged_header(name, FORM, "byte skip is no number of bytes")
    return int(given)


def _data_file(fields: dict[str, str], name: str) -> str:
    given = fields.get("data file", "")
    return beside(given, name) if "data file" in fields else ""


def beside(given: str, name: str) -> str:
    """Return the name of a file of voxels, which must lie beside its header.

    Raises:
        SeriesError: it is a path, a list or a pattern of files.
    """
    plain = given.removeprefix("./")
    listed = plain.upper() == "LIST" or plain.upper().startswith("LIST ") or "%" in plain
    if listed or not plain or plain in (".", "..") or any(mark in plain for mark in "/\\\0"):
        raise SeriesError(
            f"{name}: its voxels must be in one file in its own folder, the header names a path, a list or a pattern "
            "of files; save it as one file"
        )
    return plain


def _place(
    fields: dict[str, str], sizes: tuple[int, int, int], has_list: bool, name: str
) -> tuple[Affine, bool, list[str]]:
    """Return the affine from (i, j, k, 1) to LPS mm, whether the header gives it, and warnings."""
    to_lps = _TO_LPS.get(fields.get("space", "").lower())
    directions = _directions(fields, has_list, name)
    origin = _vectors(fields["space origin"], name) if "space origin" in fields else []
    to_mm, warnings = _unit(fields, directions is not None, name)
    if directions is not None and to_lps is not None and len(origin) == 1 and origin[0] is not None:
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = np.array(directions).T, origin[0]
        affine[:3] = np.array(to_lps)[:, None] * to_mm * affine[:3]
        check_place(affine, sizes, "space directions with space origin", name, FORM)
        return affine, True, warnings
    edges = np.linalg.norm(np.array(directions), axis=1) if directions is not None else _spacings(fields, name)
    affine = LPS_TO_RAS @ guessed_place(to_mm * edges, sizes)
    check_place(affine, sizes, "spacings" if directions is None else "space directions", name, FORM)
    return affine, False, [*warnings, "its header does not say where the voxels lie; left and right are a guess"]


def _directions(fields: dict[str, str], has_list: bool, name: str) -> list[NDArray[np.float64]] | None:
    """Return the steps along i, j and k in the header's own space; none where it gives none."""
    if "space directions" not in fields:
        return None
    given = _vectors(fields["space directions"], name)
    if len(given) != 3 + has_list or (has_list and given[0] is not None):
        raise damaged_header(name, FORM, "space directions and sizes do not agree")
    found = [vector for vector in given if vector is not None]
    if not found:
        return None
    if len(found) != 3:
        raise damaged_header(name, FORM, "space directions are missing for one axis")
    return found


def _vectors(text: str, name: str) -> list[NDArray[np.float64] | None]:
    found: list[NDArray[np.float64] | None] = []
    for part in re.findall(r"\([^()]*\)|\S+", text):
        if part.lower() == "none":
            found.append(None)
            continue
        numbers = numbers_in(part[1:-1].split(",")) if part.startswith("(") else None
        if numbers is None or len(numbers) != 3:
            raise damaged_header(name, FORM, "a vector of its space is no three numbers")
        found.append(np.array(numbers))
    return found


def _spacings(fields: dict[str, str], name: str) -> NDArray[np.float64]:
    if "spacings" not in fields:
        raise SeriesError(
            f"{name}: the NRRD header gives no voxel size (neither space directions nor spacings); convert the series "
            "again"
        )
    numbers = numbers_in(fields["spacings"].split()[-3:])
    if numbers is None or len(numbers) != 3:
        raise damaged_header(name, FORM, "spacings are no three numbers")
    return np.array([abs(number) for number in numbers])


def numbers_in(texts: Sequence[str]) -> list[float] | None:
    """Return finite numbers; none where one of the texts is none."""
    try:
        found = [float(text) for text in texts if "_" not in text]
    except ValueError:
        return None
    return found if len(found) == len(texts) and all(math.isfinite(number) for number in found) else None


def _unit(fields: dict[str, str], of_space: bool, name: str) -> tuple[float, list[str]]:
    given = re.findall(r'"([^"]*)"', fields.get("space units" if of_space else "units", ""))
    units = {unit.strip().lower().replace("µ", "u").replace("μ", "u") for unit in given[-3:]} - {"", "???"}
    if not units:
        return 1.0, []
    if len(units) > 1:
        raise damaged_header(name, FORM, "axes have different units of length")
    to_mm = _TO_MM.get(units.pop().removesuffix("s"))
    if to_mm is None:
        return 1.0, ["the unit of length is unknown; millimetres are assumed"]
    return to_mm, [] if to_mm == 1.0 else ["lengths are not in millimetres; they are converted to them"]
