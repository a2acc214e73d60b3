"""Voxels as NRRD and MetaImage files store them, plain or packed: read piece by piece, and proven whole at their end.

Unpacked here and not by ITK: SimpleITK 2.5 has no bzip2, gives garbage for damaged zlib data without an error, and
ends the process on some damaged MetaImage headers. The tests compare with SimpleITK and pynrrd on sound files.
"""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import numpy as np

from boneseg.errors import SeriesError
from boneseg.geometry import Geometry
from boneseg.memory_budget import claim
from boneseg.pieces import BLOCK, DEFLATE_RATIO, PIECE_VOXELS, WORK_BYTES, Piece
from boneseg.slicer_segments import Segment

_READ_BYTES = 1 << 16
_ZLIB_OR_GZIP = 47
"""For zlib: 15 bits of window, and whichever of the two headers is there."""


class Packing(StrEnum):
    """How voxels are stored."""

    RAW = "raw"
    DEFLATE = "gzip or zlib"
    BZIP2 = "bzip2"


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """What a NRRD or MetaImage header says of its volume, checked.

    Attributes:
        name: the header's file name, for messages.
        form: NRRD or MetaImage.
        geometry: of the voxels as (slice, row, column).
        kind: of the stored numbers, with their order of bytes.
        packing: how they are stored.
        start: byte of the file at which they start; none = raw voxels that end with the file.
        skip: unpacked bytes before them.
        layers: volumes that are stored voxel by voxel beside each other.
        data_file: name of the file beside the header that holds the voxels; empty where they follow the header.
        segments: of a segmentation of 3D Slicer, what its values mean; none = it is none.
        warnings: what is odd but usable, one sentence each.
        placed: whether the file says where the voxels lie; otherwise the geometry's place and directions are a guess.
    """

    name: str
    form: str
    geometry: Geometry
    kind: np.dtype[Any]
    packing: Packing
    start: int | None
    skip: int = 0
    layers: int = 1
    data_file: str = ""
    segments: tuple[Segment, ...] | None = None
    warnings: tuple[str, ...] = ()
    placed: bool = True

    @property
    def size(self) -> int:
        """Bytes of the voxels, unpacked."""
        return math.prod(self.geometry.shape) * self.layers * self.kind.itemsize


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Member(Protocol):
    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Unpacked:
    """A file's unpacked bytes; packed data may have several members, one after the other."""

    def __init__(self, file: BinaryIO, header: VolumeHeader) -> None:
        self._file, self._header = file, header
        self._member, self._kept = self._new(), b""

    def read(self, size: int) -> bytes:
        """Return bytes, at most ``size``; none at the end."""
        while not (self._member.eof and self._is_last()):
            given, ended = self._input()
            data = self._member.decompress(given, size)
            self._kept = getattr(self._member, "unconsumed_tail", b"")  # zlib gives back what it did not take
            if data:
                return data
            if ended and not self._member.eof:
                raise EOFError
        return b""

    def _new(self) -> _Member:
        if self._header.packing == Packing.BZIP2:
            return cast(_Member, bz2.BZ2Decompressor())
        return cast(_Member, zlib.decompressobj(_ZLIB_OR_GZIP))

    def _input(self) -> tuple[bytes, bool]:
        """Return what to unpack next, and whether that is nothing because the file has ended."""
        if self._kept:
            return self._kept, False
        if not getattr(self._member, "needs_input", True):  # bzip2 keeps what it did not take
            return b"", False
        given = self._file.read(_READ_BYTES)
        return given, not given

    def _is_last(self) -> bool:
        rest = self._member.unused_data or self._file.read(_READ_BYTES)
        if rest.startswith((b"\x1f\x8b", b"BZh")):
            self._member, self._kept = self._new(), rest
            return False
        if rest.strip(b"\0") or len(rest) > BLOCK:
            raise _damaged(self._header, "something else follows the compressed data")
        return True


def check_length(path: Path, header: VolumeHeader) -> None:
    """Refuse a file that cannot hold what its header says, before room for it is made.

    Args:
        path: the file with the voxels.
        header: what it should hold.

    Raises:
        SeriesError: it is cut short, or longer than its header says.
    """
    there = path.stat().st_size - (header.start or 0)
    needed = header.skip + header.size
    if header.packing == Packing.RAW:
        if there < needed:
            raise _cut(header, f"{there} are there")
        if header.start is not None and there > needed + BLOCK:
            raise _longer(header, there - needed)
    elif header.packing == Packing.DEFLATE and there * DEFLATE_RATIO < needed:
        raise _cut(header, "what is there cannot unpack to as many")


def read_pieces(path: Path, header: VolumeHeader) -> Iterator[Piece]:
    """Read the voxels piece by piece, in order, in little memory; the last piece comes before the file is proven whole.

    Args:
        path: the file with the voxels.
        header: what it holds.

    Raises:
        SeriesError: the file is damaged, cut short, or longer than its header says. The check of compressed data is at
            their very end, so nothing that was read counts before the iteration has ended.
    """
    check_length(path, header)
    slices, rows, columns = header.geometry.shape
    across = columns * header.layers
    some = max(1, min(rows, PIECE_VOXELS // across))
    work = some * across * (2 * header.kind.itemsize + WORK_BYTES)
    shape = (columns, header.layers) if header.layers > 1 else (columns,)
    with claim(header.name, work), path.open("rb") as file, _named(header):
        file.seek(path.stat().st_size - header.size if header.start is None else header.start)
        source: _Source = file if header.packing == Packing.RAW else _Unpacked(file, header)
        for place in range(0, header.skip, PIECE_VOXELS):
            _exactly(source, min(PIECE_VOXELS, header.skip - place), header)
        for index in range(slices):
            for row in range(0, rows, some):
                count = min(some, rows - row)
                stored = _exactly(source, count * across * header.kind.itemsize, header)
                values = np.frombuffer(stored, dtype=header.kind).reshape(count, *shape)
                yield Piece(index, row, values.astype(header.kind.newbyteorder("="), copy=False))
        rest = source.read(BLOCK + 1)
        if rest.strip(b"\0") or len(rest) > BLOCK:
            raise _longer(header, len(rest))
        while rest:
            rest = source.read(BLOCK + 1)


def _exactly(source: _Source, size: int, header: VolumeHeader) -> bytearray:
    data = bytearray()
    while len(data) < size:
        more = source.read(size - len(data))
        if not more:
            raise _cut(header, "the data end before")
        data += more
    return data


@contextmanager
def _named(header: VolumeHeader) -> Iterator[None]:
    """Say of compressed data what is wrong with them."""
    try:
        yield
    except EOFError as error:
        raise _damaged(header, "the compressed data end too early") from error
    except zlib.error as error:
        raise _damaged(header, "the compressed data cannot be unpacked, or fail their check sum") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(header, "the compressed data cannot be unpacked, or fail their check sum") from error


def _cut(header: VolumeHeader, found: str) -> SeriesError:
    return _damaged(header, f"the header speaks of {header.skip + header.size} bytes of voxels, {found}")


def _longer(header: VolumeHeader, much: int) -> SeriesError:
    return _damaged(header, f"it goes on for {much} bytes or more after the voxels of which its header speaks")


def _damaged(header: VolumeHeader, why: str) -> SeriesError:
    where = "'s file of voxels" if header.data_file else ""
    return SeriesError(
        f"{header.name}: the {header.form}{where} is damaged or cut short ({why}); copy it again or convert it again"
    )
