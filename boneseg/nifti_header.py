"""What a NIfTI file says of itself, checked: number kind, scaling and place. Nothing in it is taken on trust.

nibabel gives the layout of the header; which values are believed is decided here, because libraries differ in it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from nibabel.nifti1 import header_dtype as nifti1_dtype
from nibabel.nifti2 import header_dtype as nifti2_dtype
from numpy.typing import NDArray

from boneseg.errors import SeriesError
from boneseg.geometry import SAME_PLACE_MM, Geometry, from_nifti
from boneseg.placing import check_place, damaged_header, guessed_place

HEADER_BYTES = 540
"""As many bytes as the longest header has."""
_FORM = "NIfTI"
_SAME_SIZE = 0.01
_SLOPES = (1e-7, 1e7)
_NUMBERS = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_OTHER_KINDS = {
    1: "single bits",
    32: "complex numbers",
    128: "colours",
    1536: "floats of 128 bits",
    1792: "complex numbers",
    2048: "complex numbers",
    2304: "colours",
}
Order = Literal["<", ">"]
_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNITS = {1: "metres", 2: "millimetres", 3: "micrometres"}
_CODES = 6
"""Codes of coordinate systems are below."""
_MAGICS = {1: b"n+1\0", 2: b"n+2\0\r\n\x1a\n"}


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What is needed to read a volume.

    Attributes:
        name: the file's name, for messages.
        geometry: of the voxels as (slice, row, column).
        kind: of the stored numbers, with their order of bytes.
        offset: where the voxels start in the unpacked file.
        slope: what stored numbers are multiplied with.
        inter: what is added then.
        warnings: what is odd but usable, one sentence each.
        placed: whether the file says where the voxels lie; otherwise the geometry's place and directions are a guess.
    """

    name: str
    geometry: Geometry
    kind: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    warnings: tuple[str, ...]
    placed: bool = True

    @property
    def scaled(self) -> bool:
        """Whether stored numbers are not yet the values."""
        return (self.slope, self.inter) != (1.0, 0.0)

    @property
    def end(self) -> int:
        """Bytes of the unpacked file."""
        return self.offset + math.prod(self.geometry.shape) * self.kind.itemsize


def version_of(start: bytes) -> int | None:
    """Say which version of NIfTI a file is by its first bytes; none where it is another format.

    One wrong byte in the mark is a damaged NIfTI file, not another format; ``parse_header`` refuses it.
    """
    for version, place, size in ((1, 344, 348), (2, 4, 540)):
        mark, right = start[place : place + 4], _MAGICS[version][:4]
        likeness = sum(one == two for one, two in zip(mark, right, strict=False))
        sized = size in _sizes(start)
        if mark == right or (likeness == 3 and sized and mark[:2] != b"ni"):
            return version
    return None


def parse_header(start: bytes, name: str) -> NiftiHeader:
    """Read a header.

    Args:
        start: the first 540 bytes of the unpacked file, or all there are.
        name: the file's name, for messages.

    Raises:
        SeriesError: not NIfTI, cut short, contradictory, or not one volume of numbers at a place in the patient.
    """
    version = version_of(start)
    if version is None:
        raise SeriesError(f"{name}: not a readable NIfTI file; copy it again or convert it")
    fields, order = _fields(start, version, name)
    sizes = _sizes_of_axes(fields, name)
    kind = _number_kind(fields, order, name)
    slope, inter, warnings = _scaling(fields, name)
    affine, more = _place(fields, sizes, name)
    geometry = _geometry(affine, sizes)
    placed = bool(fields["qform_code"]) or bool(fields["sform_code"])
    return NiftiHeader(name, geometry, kind, _offset(fields, version, name), slope, inter, (*warnings, *more), placed)


def shear_degrees(geometry: Geometry) -> float:
    """Return by how much the angle between two axes of a volume differs from 90 degrees, at most."""
    axes = geometry.affine[:3, :3] / np.linalg.norm(geometry.affine[:3, :3], axis=0)
    cosines = [abs(float(axes[:, one] @ axes[:, two])) for one, two in combinations(range(3), 2)]
    return float(np.degrees(np.arcsin(min(1.0, max(cosines)))))


def _sizes(start: bytes) -> tuple[int, ...]:
    return struct.unpack("<i", start[:4]) + struct.unpack(">i", start[:4]) if len(start) >= 4 else ()


def _fields(start: bytes, version: int, name: str) -> tuple[Any, Order]:
    """Return the header's fields and the order of bytes."""
    layout, place = (nifti1_dtype, 344) if version == 1 else (nifti2_dtype, 4)
    if len(start) < layout.itemsize:
        raise _damaged(name, f"the header ends after {len(start)} bytes")
    if start[place : place + len(_MAGICS[version])] != _MAGICS[version]:
        raise _damaged(name, "its mark is wrong")
    little, big = _sizes(start)
    if layout.itemsize not in (little, big):
        raise _damaged(name, f"sizeof_hdr is {little} where {layout.itemsize} is right")
    order: Order = "<" if little == layout.itemsize else ">"
    return np.frombuffer(start[: layout.itemsize], dtype=layout.newbyteorder(order))[0], order


def _sizes_of_axes(fields: Any, name: str) -> tuple[int, int, int]:
    count, *sizes = (int(value) for value in fields["dim"])
    if not 1 <= count <= 7 or min(sizes[:count]) < 1:
        raise _damaged(name, f"dim is {', '.join(str(value) for value in (count, *sizes))}")
    used = sizes[:count]
    while len(used) > 3 and used[-1] == 1:
        used.pop()
    if len(used) != 3:
        text = " x ".join(str(size) for size in used)
        raise SeriesError(
            f"{name}: a volume must have 3 dimensions, this one has {len(used)} ({text}); split it into one file a "
            "volume first"
        )
    return used[0], used[1], used[2]


def _number_kind(fields: Any, order: Order, name: str) -> np.dtype[Any]:
    code, bits = int(fields["datatype"]), int(fields["bitpix"])
    if code in _OTHER_KINDS:
        raise SeriesError(f"{name}: voxels are {_OTHER_KINDS[code]}; store HU or whole label values")
    if code not in _NUMBERS:
        raise _damaged(name, f"datatype {code} is unknown")
    kind = np.dtype(_NUMBERS[code]).newbyteorder(order)
    if bits != 8 * kind.itemsize:
        raise _damaged(name, f"datatype {code} has {8 * kind.itemsize} bits, bitpix says {bits}")
    return kind


def _offset(fields: Any, version: int, name: str) -> int:
    offset, least = float(fields["vox_offset"]), 352 if version == 1 else 544
    if not offset.is_integer() or not least <= offset < 2**40:
        raise _damaged(name, f"vox_offset is {offset:g}, the header ends at {least}")
    return int(offset)


def _scaling(fields: Any, name: str) -> tuple[float, float, list[str]]:
    """Return slope and intercept by the rules of NIfTI: a slope of 0 (or none) means that nothing is scaled."""
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or math.isnan(slope):
        if math.isfinite(inter) and inter != 0:
            return 1.0, 0.0, [f"scl_slope is {slope:g}, so scl_inter {inter:g} does not count"]
        return 1.0, 0.0, []
    if not math.isfinite(slope) or not math.isfinite(inter) or not _SLOPES[0] <= abs(slope) <= _SLOPES[1]:
        raise _damaged(name, f"scl_slope is {slope:g} and scl_inter {inter:g}")
    warnings = [f"scl_slope is {slope:g}: values are turned upside down"] if slope < 0 else []
    return slope, inter, warnings


def _place(fields: Any, sizes: tuple[int, int, int], name: str) -> tuple[NDArray[np.float64], list[str]]:
    """Return the RAS affine in mm, and warnings: sform where it is given, else qform, else the voxel size alone."""
    warnings = []
    unit = int(fields["xyzt_units"]) & 7
    if unit not in _TO_MM:
        warnings.append(f"the unit of length {unit} is unknown; millimetres are assumed")
    elif unit in (1, 3):
        warnings.append(f"lengths are in {_UNITS[unit]}; they are converted to millimetres")
    codes = int(fields["qform_code"]), int(fields["sform_code"])
    if not set(codes) <= set(range(_CODES)):
        raise _damaged(name, f"qform_code and sform_code are {codes[0]} and {codes[1]}")
    to_mm = np.diag([*[_TO_MM.get(unit, 1.0)] * 3, 1.0])
    sform = to_mm @ _sform(fields) if codes[1] else None
    qform = _qform(fields) if codes[0] else None
    qform = None if qform is None else to_mm @ qform
    unit_text = f" in {_UNITS[unit]}" if unit in _UNITS else ""
    if sform is not None:
        check_place(sform, sizes, f"sform{unit_text}", name, _FORM)
        if codes[0]:
            warnings += _compare(sform, qform, sizes, name)
        else:
            warnings += _compare_sizes(sform, to_mm @ _by_size(fields, sizes))
        return sform, warnings
    if codes[0]:
        if qform is None:
            raise _damaged(name, "qform is no rotation")
        check_place(qform, sizes, f"qform{unit_text}", name, _FORM)
        return qform, warnings
    affine = to_mm @ _by_size(fields, sizes)
    check_place(affine, sizes, f"pixdim{unit_text}", name, _FORM)
    return affine, [*warnings, "neither sform nor qform says where the voxels lie; left and right are a guess"]


def _sform(fields: Any) -> NDArray[np.float64]:
    rows = [fields["srow_x"], fields["srow_y"], fields["srow_z"], (0, 0, 0, 1)]
    return np.array([[float(value) for value in row] for row in rows])


def _qform(fields: Any) -> NDArray[np.float64] | None:
    """Return the affine of the quaternion; none where it is no rotation or sizes are not positive."""
    b, c, d = (float(fields[f"quatern_{letter}"]) for letter in "bcd")
    sign, *sizes = (float(value) for value in fields["pixdim"][:4])
    square = b * b + c * c + d * d
    if not square <= 1.001 or sign not in (-1, 0, 1) or not all(size > 0 for size in sizes):
        return None
    length = math.sqrt(max(1.0, square))
    b, c, d = b / length, c / length, d / length
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn * (sizes[0], sizes[1], sizes[2] * (sign or 1))
    affine[:3, 3] = [float(fields[f"qoffset_{axis}"]) for axis in "xyz"]
    return affine


def _by_size(fields: Any, sizes: tuple[int, int, int]) -> NDArray[np.float64]:
    return guessed_place(np.array([float(value) for value in fields["pixdim"][1:4]]), sizes)


def _compare(
    sform: NDArray[np.float64], qform: NDArray[np.float64] | None, sizes: tuple[int, int, int], name: str
) -> list[str]:
    """Refuse two voxel sizes; warn of two places."""
    if qform is None or not np.isfinite(qform).all():
        return ["qform is damaged; sform says where the voxels lie"]
    edges = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (sform, qform)]
    if np.abs(edges[0] / edges[1] - 1).max() > _SAME_SIZE:
        texts = [" x ".join(f"{edge:.3g}" for edge in some) for some in edges]
        raise SeriesError(
            f"{name}: voxels of {texts[0]} mm by sform, of {texts[1]} mm by qform and pixdim; correct the header, or "
            "convert the series again"
        )
    apart = _geometry(sform, sizes).apart_mm(_geometry(qform, sizes))
    if apart > SAME_PLACE_MM:
        return [f"sform and qform put the same voxel up to {apart:.3g} mm apart; sform is used"]
    return []


def _compare_sizes(sform: NDArray[np.float64], by_size: NDArray[np.float64]) -> list[str]:
    """Warn where voxel sizes that are not part of a qform differ; many programs leave 1 there."""
    mine, theirs = (np.linalg.norm(affine[:3, :3], axis=0) for affine in (sform, by_size))
    differ = not np.allclose(mine, theirs, rtol=_SAME_SIZE) and np.ptp(theirs) > 0
    return ["pixdim has other voxel sizes than sform; sform is used"] if differ else []


def _geometry(affine: NDArray[np.float64], sizes: tuple[int, int, int]) -> Geometry:
    return from_nifti((sizes[2], sizes[1], sizes[0]), affine)


def _damaged(name: str, why: str) -> SeriesError:
    return damaged_header(name, _FORM, why)
