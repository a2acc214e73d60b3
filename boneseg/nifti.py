"""NIfTI volumes in and out (the only place that imports nibabel, with ``nifti_header``)."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from boneseg.budget import check_volume, claim
from boneseg.errors import SeriesError
from boneseg.geometry import Geometry, to_nifti_affine
from boneseg.nifti_header import HEADER_BYTES, NiftiHeader, parse_header, version_of

_PIECE_VOXELS = 1 << 18
_WORK_BYTES = 40
"""What a voxel takes while it is scaled, rounded and compared."""
_DEFLATE_RATIO = 1032
"""No deflated byte unpacks to more."""
_BLOCK = 512
"""Media and archives pad files with zeros to a multiple of this."""
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, eq=False)
class Piece:
    """Some rows of one slice.

    Attributes:
        slice: which slice they are of.
        row: the first of them.
        values: (rows, columns), scaled as the header says, and as they are stored where it does not scale.
    """

    slice: int
    row: int
    values: NDArray[Any]


def is_nifti(path: Path) -> bool:
    """Say whether a file is a NIfTI volume (.nii or .nii.gz) by its content; its name plays no part."""
    try:
        with _stream(path) as stream:
            return version_of(stream.read(HEADER_BYTES)) is not None
    except (OSError, EOFError, zlib.error):
        return False


def read_header(path: Path) -> NiftiHeader:
    """Read and check the header of a NIfTI volume.

    Raises:
        SeriesError: not NIfTI, damaged, not three-dimensional, at no possible place, or too large.
    """
    with _stream(path) as stream, _named(path, stream):
        header = parse_header(stream.read(HEADER_BYTES), path.name)
    check_volume(path.name, 2 * math.prod(header.geometry.shape))
    return header


def check_length(path: Path, header: NiftiHeader) -> None:
    """Refuse a file that cannot hold what its header says, before room for it is made.

    Raises:
        SeriesError: it is cut short, or longer than its header says.
    """
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
    stored = path.stat().st_size
    if stored * (_DEFLATE_RATIO if compressed else 1) < header.end:
        raise _cut(path.name, header)
    if not compressed and stored > header.end and stored % _BLOCK:
        raise _longer(path.name, stored - header.end)


def read_geometry(path: Path) -> Geometry:
    """Read the geometry of a NIfTI volume without its voxels.

    Raises:
        SeriesError: as ``read_header``.
    """
    return read_header(path).geometry


def read_pieces(path: Path, header: NiftiHeader) -> Iterator[Piece]:
    """Read the voxels piece by piece, in order, in little memory; the last piece comes before the file is proven whole.

    Args:
        path: the file.
        header: as ``read_header`` gave it.

    Raises:
        SeriesError: the file is damaged, cut short, or longer than its header says. The check of a compressed file
            is at its very end, so nothing that was read counts before the iteration has ended.
    """
    slices, rows, columns = header.geometry.shape
    some = max(1, min(rows, _PIECE_VOXELS // columns))
    work = some * columns * (2 * header.kind.itemsize + _WORK_BYTES)
    with claim(path.name, work), _stream(path) as stream, _named(path, stream, header.end):
        _skip(stream, header.offset, header)
        for index in range(slices):
            for row in range(0, rows, some):
                count = min(some, rows - row)
                stored = _exactly(stream, count * columns * header.kind.itemsize, header)
                raw = np.frombuffer(stored, dtype=header.kind).reshape(count, columns)
                yield Piece(index, row, _scaled(raw, header))
        size, zeros = header.end, True
        while rest := stream.read(_PIECE_VOXELS):  # to the check sum where the file is compressed
            size, zeros = size + len(rest), zeros and not rest.strip(b"\0")
            if not zeros or size - header.end > _BLOCK:
                raise _longer(path.name, size - header.end)
        if size > header.end and size % _BLOCK:
            raise _longer(path.name, size - header.end)


def read_volume(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a NIfTI volume.

    Returns:
        Voxels as (slice, row, column), scaled as the header says and kept integral where they are, and the geometry.

    Raises:
        SeriesError: as ``read_header`` and ``read_pieces``.
    """
    header = read_header(path)
    check_length(path, header)
    kind = np.dtype(np.float64) if header.scaled else header.kind.newbyteorder("=")
    voxels = np.empty(header.geometry.shape, dtype=kind)
    for piece in read_pieces(path, header):
        voxels[piece.slice, piece.row : piece.row + len(piece.values)] = piece.values
    return voxels, header.geometry


def write_volume(path: Path, voxels: NDArray[Any], geometry: Geometry) -> None:
    """Write voxels (slice, row, column) as NIfTI; the file appears whole or not at all."""
    image = nib.Nifti1Image(voxels.transpose(2, 1, 0), to_nifti_affine(geometry))
    image.header.set_xyzt_units("mm")
    suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    partial = path.with_name(f".{path.name}.partial{suffix}")
    try:
        nib.save(image, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _stream(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
    return cast(BinaryIO, gzip.open(path)) if compressed else path.open("rb")


def _scaled(raw: NDArray[Any], header: NiftiHeader) -> NDArray[Any]:
    if not header.scaled:
        return raw.astype(header.kind.newbyteorder("="), copy=False)
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is found among the values
        values: NDArray[np.float64] = raw.astype(np.float64)
        values *= header.slope
        values += header.inter
    return values


def _exactly(stream: BinaryIO, size: int, header: NiftiHeader) -> bytearray:
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise _cut(header.name, header)
        filled += count
    return data


def _skip(stream: BinaryIO, size: int, header: NiftiHeader) -> None:
    for start in range(0, size, _PIECE_VOXELS):
        _exactly(stream, min(_PIECE_VOXELS, size - start), header)


@contextmanager
def _named(path: Path, stream: BinaryIO, size: int = 0) -> Iterator[None]:
    """Say of a compressed file what is wrong with it."""
    try:
        yield
    except EOFError as error:
        of = f", after about {stream.tell()} of the {size} bytes that they should unpack to" if size else ""
        raise _damaged(path.name, f"the compressed data end too early{of}") from error
    except zlib.error as error:
        of = f" after about {stream.tell()} of the {size} bytes that they should come to" if size else ""
        raise _damaged(path.name, f"the compressed data cannot be unpacked{of}") from error
    except gzip.BadGzipFile as error:
        follows = "Not a gzipped file" in str(error)
        why = "something else follows the compressed data" if follows else "the compressed data fail their check sum"
        raise _damaged(path.name, why) from error


def _cut(name: str, header: NiftiHeader) -> SeriesError:
    return _damaged(name, f"the header speaks of {header.end} bytes, the file has fewer")


def _longer(name: str, much: int) -> SeriesError:
    return _damaged(name, f"it goes on for {much} bytes or more after the voxels of which its header speaks")


def _damaged(name: str, why: str) -> SeriesError:
    return SeriesError(f"{name}: the NIfTI file is damaged or cut short ({why}); copy it again or convert it again")
