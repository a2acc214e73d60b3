"""NIfTI volumes in and out (the only place that imports nibabel, with ``nifti_header``)."""

from __future__ import annotations

import gzip
import html
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from boneseg.atomic_write import atomic_write
from boneseg.errors import SeriesError
from boneseg.geometry import Geometry, to_nifti_affine
from boneseg.memory_budget import check_volume, claim
from boneseg.nifti_header import HEADER_BYTES, NiftiHeader, parse_header, version_of
from boneseg.pieces import BLOCK, DEFLATE_RATIO, PIECE_VOXELS, WORK_BYTES, Piece

_GZIP = b"\x1f\x8b"


_LONGEST_TABLE = 4_000_000
_HIGHEST_KEY = 65_535
_LABEL = re.compile(r'<Label\b[^>]*\bKey="(\d{1,5})"[^>]*>([^<]*)</Label>')


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
    if stored * (DEFLATE_RATIO if compressed else 1) < header.end:
        raise _cut(path.name, header)
    if not compressed and stored > header.end and stored % BLOCK:
        raise _longer(path.name, stored - header.end)


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
    some = max(1, min(rows, PIECE_VOXELS // columns))
    work = some * columns * (2 * header.kind.itemsize + WORK_BYTES)
    with claim(path.name, work), _stream(path) as stream, _named(path, stream, header.end):
        _skip(stream, header.offset, header)
        for index in range(slices):
            for row in range(0, rows, some):
                count = min(some, rows - row)
                stored = _exactly(stream, count * columns * header.kind.itemsize, header)
                raw = np.frombuffer(stored, dtype=header.kind).reshape(count, columns)
                yield Piece(index, row, _scaled(raw, header))
        size, zeros = header.end, True
        while rest := stream.read(PIECE_VOXELS):  # to the check sum where the file is compressed
            size, zeros = size + len(rest), zeros and not rest.strip(b"\0")
            if not zeros or size - header.end > BLOCK:
                raise _longer(path.name, size - header.end)
        if size > header.end and size % BLOCK:
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


def write_volume(
    path: Path,
    voxels: NDArray[Any],
    geometry: Geometry,
    placed: bool = True,
    names: Mapping[int, str] | None = None,
) -> None:
    """Write voxels (slice, row, column) as NIfTI; the file appears whole or not at all.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        voxels: of the volume.
        geometry: their place.
        placed: whether that is known; otherwise the file gives the size of voxels alone.
        names: of label values, for the header: ``read_label_table`` reads them back.
    """
    image = nib.Nifti1Image(voxels.transpose(2, 1, 0), to_nifti_affine(geometry))
    if not placed:
        image.set_sform(None, 0)
        image.set_qform(None, 0)
    image.header.set_xyzt_units("mm")
    image.header.extensions.extend(label_table(names or {}))
    with atomic_write(path, sole_writer=True) as partial:
        nib.save(image, partial)


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
    for start in range(0, size, PIECE_VOXELS):
        _exactly(stream, min(PIECE_VOXELS, size - start), header)


def label_table(names: Mapping[int, str]) -> list[nib.nifti1.Nifti1Extension]:
    """Return the header's extension that says what label values are called, in the form of ``read_label_table``."""
    if not names:
        return []
    rows = "".join(f'<Label Key="{value}">{html.escape(name)}</Label>' for value, name in names.items())
    table = f'<VolumeInformation Index="0"><LabelTable>{rows}</LabelTable></VolumeInformation>'
    text = f'<?xml version="1.0" encoding="UTF-8"?><CaretExtension>{table}</CaretExtension>'
    return [nib.nifti1.Nifti1Extension(0, text.encode())]


def read_label_table(path: Path) -> dict[int, str]:
    """Read what label values are called from the header's extension, where TotalSegmentator and Workbench write it.

    It is XML: ``<Label Key="75" ...>femur_left</Label>`` for each value, in a ``LabelTable``.

    Returns:
        Value -> name, those that do not occur among them; empty where the file has no such table.

    Raises:
        SeriesError: the header is damaged.
    """
    header = read_header(path)
    size = min(header.offset, _LONGEST_TABLE)
    with _stream(path) as stream, _named(path, stream):
        start = stream.read(size)
    if b"<LabelTable" not in start:
        return {}
    found = _LABEL.findall(start.decode(errors="replace"))
    return {int(key): html.unescape(name).strip() for key, name in found if 0 < int(key) <= _HIGHEST_KEY}


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
