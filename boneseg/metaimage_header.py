"""What a MetaImage header says of its volume, checked. Nothing in it is taken on trust, and no free text of it is kept.

The format: https://itk.org/Wiki/ITK/MetaIO/Documentation. Coordinates are LPS, as ITK takes them.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from boneseg.errors import SeriesError
from boneseg.geometry import LPS_TO_RAS, Affine, from_nifti
from boneseg.nrrd_header import beside, numbers_in
from boneseg.placing import check_place, damaged_header, guessed_place
from boneseg.stored_voxels import Packing, VolumeHeader

FORM = "MetaImage"
_START = re.compile(rb"\s*(ObjectType\s*=\s*Image\s|NDims\s*=)")
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|$)")
_MOST_SIZE = 1 << 20
_NUMBERS = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_FALSE, _TRUE = ("false", "f", "0"), ("true", "t", "1")
_TOWARDS = {
    "R": (1, 0, 0),
    "L": (-1, 0, 0),
    "A": (0, 1, 0),
    "P": (0, -1, 0),
    "I": (0, 0, 1),
    "S": (0, 0, -1),
}
"""AnatomicalOrientation says where an axis starts: from the right an index grows to the left, which is LPS."""
_NOT_A_ROTATION = 0.01


def is_metaimage(start: bytes) -> bool:
    """Say whether a file is a MetaImage by its first bytes."""
    return _START.match(start) is not None


def parse_header(start: bytes, name: str) -> VolumeHeader:
    """Read a header.

    Args:
        start: the file up to the end of its header or further.
        name: the file's name, for messages.

    Raises:
        SeriesError: cut short, contradictory, or not one volume of numbers.
    """
    fields, end = _split(start, name)
    sizes = _sizes(fields, name)
    kind = _number_kind(fields, name)
    affine, placed, warnings = _place(fields, sizes, name)
    packing = Packing.DEFLATE if _is_true(fields, "CompressedData", "False", name) else Packing.RAW
    data_file = "" if fields["ElementDataFile"].upper() == "LOCAL" else beside(_one_name(fields, name), name)
    skip = fields.get("HeaderSize", "0")
    if skip != "0" and (not data_file or not re.fullmatch(r"-1|[0-9]{1,12}", skip)):
        raise damaged_header(name, FORM, "HeaderSize is no number of bytes in a file of voxels")
    from_end = skip == "-1" and packing == Packing.RAW
    before = max(int(skip), 0)
    return VolumeHeader(
        name=name,
        form=FORM,
        geometry=from_nifti((sizes[2], sizes[1], sizes[0]), LPS_TO_RAS @ affine),
        kind=kind,
        packing=packing,
        start=None if from_end else before if data_file else end,
        data_file=data_file,
        warnings=tuple(warnings),
        placed=placed,
    )


def _split(start: bytes, name: str) -> tuple[dict[str, str], int]:
    """Return the fields, of which ElementDataFile is the last, and where they end."""
    fields: dict[str, str] = {}
    for line in _LINE.finditer(start):
        text = line[1].decode("utf-8", "replace")
        if not text.strip():
            continue
        field, equals, value = text.partition("=")
        field = field.strip()
        if not equals:
            raise damaged_header(name, FORM, "a line is no field")
        if field in fields and field != "Comment":
            raise damaged_header(name, FORM, "a field is there twice")
        fields[field] = value.strip()
        if field == "ElementDataFile":
            return fields, line.end()
    raise damaged_header(name, FORM, "it has no ElementDataFile")


def _one_name(fields: dict[str, str], name: str) -> str:
    given = fields["ElementDataFile"]
    if re.search(r"\s[0-9]+\s+[0-9]+(\s+[0-9]+)?$", given):  # a pattern's first, last and step
        return beside("LIST", name)
    return given


def _is_true(fields: dict[str, str], field: str, default: str, name: str) -> bool:
    given = fields.get(field, default).lower()
    if given not in (*_FALSE, *_TRUE):
        raise damaged_header(name, FORM, f"{field} is neither True nor False")
    return given in _TRUE


def _sizes(fields: dict[str, str], name: str) -> tuple[int, int, int]:
    listed = fields.get("DimSize", "").split()
    if fields.get("NDims") != str(len(listed)):
        raise damaged_header(name, FORM, "NDims and DimSize do not agree")
    if not all(re.fullmatch(r"[0-9]{1,7}", text) and 0 < int(text) <= _MOST_SIZE for text in listed):
        raise damaged_header(name, FORM, f"DimSize is no numbers from 1 to {_MOST_SIZE}")
    if len(listed) != 3:
        text = " x ".join(listed)
        raise SeriesError(
            f"{name}: a volume must have 3 dimensions, this one has {len(listed)} ({text}); split it into one file a "
            "volume first"
        )
    first, second, third = (int(text) for text in listed)
    return first, second, third


def _number_kind(fields: dict[str, str], name: str) -> np.dtype[Any]:
    if not _is_true(fields, "BinaryData", "False", name):
        raise SeriesError(f"{name}: its voxels are written as text; save it with BinaryData = True")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise SeriesError(f"{name}: voxels have several channels; store HU or whole label values")
    scaling = [numbers_in([fields.get(f"ElementToIntensityFunction{part}", "")]) for part in ("Slope", "Offset")]
    if scaling[0] not in (None, [1.0]) or scaling[1] not in (None, [0.0]):
        raise SeriesError(f"{name}: ElementToIntensityFunction is not read; store HU themselves")
    given = fields.get("ElementType", "")
    if given not in _NUMBERS:
        raise SeriesError(f"{name}: its ElementType is none of single numbers; store HU or whole label values")
    orders = [field for field in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB") if field in fields]
    big = _is_true(fields, orders[0], "False", name) if orders else False
    return np.dtype(_NUMBERS[given]).newbyteorder(">" if big else "<")


def _place(fields: dict[str, str], sizes: tuple[int, int, int], name: str) -> tuple[Affine, bool, list[str]]:
    """Return the affine from (i, j, k, 1) to LPS mm, whether the header gives it, and warnings."""
    edges = np.array(_numbers(fields, ("ElementSpacing", "ElementSize"), 3, name) or ())
    if not edges.size:
        raise SeriesError(f"{name}: the MetaImage header has no ElementSpacing; convert the series again")
    edges = np.abs(edges)
    turn, origin = _turn(fields, name), _numbers(fields, ("Offset", "Position", "Origin"), 3, name)
    if turn is not None and origin is not None:
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = turn * edges, origin
        check_place(affine, sizes, "TransformMatrix with ElementSpacing and Offset", name, FORM)
        return affine, True, []
    affine = LPS_TO_RAS @ guessed_place(edges, sizes)
    check_place(affine, sizes, "ElementSpacing", name, FORM)
    return affine, False, ["its header does not say where the voxels lie; left and right are a guess"]


def _turn(fields: dict[str, str], name: str) -> Affine | None:
    """Return the directions of i, j and k as columns: by the matrix, else by the letters; none where neither tells."""
    matrix = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), 9, name)
    if matrix is not None:
        turn = np.array(matrix).reshape(3, 3).T  # stored one axis after the other
        if np.abs(np.linalg.norm(turn, axis=0) - 1).max() > _NOT_A_ROTATION:
            raise damaged_header(name, FORM, "TransformMatrix holds no directions")
        return turn
    letters = fields.get("AnatomicalOrientation", "").upper()
    vectors = [_TOWARDS.get(letter) for letter in letters]
    if len(vectors) != 3 or None in vectors:
        return None
    turn = np.array(vectors, dtype=np.float64).T
    return turn if np.linalg.matrix_rank(turn) == 3 else None


def _numbers(fields: dict[str, str], names: tuple[str, ...], count: int, name: str) -> list[float] | None:
    """Return the numbers of the first of some fields that is there."""
    field = next((field for field in names if field in fields), None)
    if field is None:
        return None
    found = numbers_in(fields[field].split())
    if found is None or len(found) != count:
        raise damaged_header(name, FORM, f"{field} is no {count} numbers")
    return found
