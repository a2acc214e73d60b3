"""A DICOM file opened: its tags by pydicom, where its pixel data are, and what is wrong with either.

pydicom decides how a file is encoded, not its transfer syntax alone: files lie about it. Only where the pixel data
start is noted here, so that plain pixels can be read from their place without pydicom.
"""

from __future__ import annotations

import io
import logging
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
import pydicom.config
from pydicom.filereader import read_dataset, read_partial
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from boneseg.dicom.damage import ITEM, LONG_VR, PIXELS, UNDEFINED, fault_in, fragments_fault
from boneseg.dicom.tags import numbered
from boneseg.errors import SeriesError
from boneseg.memory_budget import check_read, claim

# Real files break value rules in harmless ways; pydicom's warnings would print their UIDs and names into a log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\b")

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
"""Transfer syntaxes whose pixels are not compressed by themselves."""

_PIECE = 1 << 20
_COPIES = 3
"""How often what is unpacked is held at the same time."""
_FEW_ITEMS_BYTES, _BYTES_AN_ITEM = 600 * 2**10, 1500
"""A file that is smaller cannot hold too many items; what pydicom takes for one, which may be empty."""
_BLOCK = 512
"""Media and archives pad files with zeros to a multiple of this."""
_DICOM_UID = b"1.2.840.10008."


class DamagedError(SeriesError):
    """A part of the file is missing or wrong."""


def damaged(path: Path, what: str) -> DamagedError:
    """Return the error for a file of which a part is missing or wrong."""
    return DamagedError(f"{path.name}: {what}; copy it again from its source")


def broken(path: Path, file: DicomFile | None = None) -> DamagedError:
    """Return the error for a file that cannot be read, with what its structure tells of the cause.

    Args:
        path: the file.
        file: as it was opened, if it could be.
    """
    if file is not None and file.element is not None and file.element.fault:
        return broken_because(path, file.element.fault)
    if file is not None and file.syntax == DeflatedExplicitVRLittleEndian:
        with claim(path.name, _COPIES * file.size):
            return broken_because(path, fault_in(io.BytesIO(inflated(path, file.size)), file.size, data_set_only=True))
    with path.open("rb") as stream:
        return broken_because(path, fault_in(stream, os.fstat(stream.fileno()).st_size))


def broken_because(path: Path, why: str) -> DamagedError:
    """Return the error for a file that cannot be read, with the cause where it is known."""
    return damaged(path, f"the DICOM file is cut short or damaged{f': {why}' if why else ''}")


@dataclass(frozen=True)
class PixelElement:
    """Where a file keeps its pixel data.

    Attributes:
        tag: Pixel Data, or its floating point kinds.
        offset: of the value, in the file or in what a deflated file unpacks to.
        length: of the value in bytes; None where it consists of fragments.
        fault: what is missing of the value; empty where the file holds all of it.
        rest: how many bytes follow that belong to nothing.
    """

    tag: int
    offset: int
    length: int | None
    fault: str
    rest: int


@dataclass(frozen=True)
class DicomFile:
    """The tags of a file.

    Attributes:
        data: pydicom's data set of the tags that were asked for.
        syntax: transfer syntax; where the file does not say, as it was found to be encoded.
        little: whether numbers and plain pixels are little endian.
        element: none where there are no pixel data.
        size: bytes of the file, of a deflated one of its unpacked data set.
    """

    data: Any
    meta: Any
    syntax: UID
    little: bool
    element: PixelElement | None
    size: int


class _DeflatedError(Exception):
    """The data set is deflated: pydicom would unpack it whatever its size."""


class _Reader(io.BufferedReader):
    """A file for pydicom: it neither reads to the end at once nor makes room for more than there is."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise _DeflatedError
        return super().read(size if size < _PIECE else min(size, max(self.size - self.tell(), 0)))


def open_dicom(path: Path, tags: list[str]) -> DicomFile | None:
    """Read tags of a file.

    Args:
        path: the file.
        tags: keywords of what is wanted.

    Returns:
        The tags, or None where the file is not DICOM.

    Raises:
        DamagedError: it is DICOM, but its structure is broken.
        SeriesError: it unpacks to more than is allowed.
        OSError: the file cannot be opened.
    """
    with _Reader(path) as file:
        if not _looks_like_dicom(file.read(132), file.size):
            return None
        file.seek(0)
        _check_items(path, file)
        try:
            return _parse(file, [int(numbered(tag)) for tag in tags])
        except _DeflatedError:
            start = file.tell()
        except SeriesError:
            raise
        except Exception as error:  # pydicom passes on whatever a damaged byte makes of its readers
            raise broken(path) from error
    return _parse_deflated(path, start, [int(numbered(tag)) for tag in tags])


def _check_items(path: Path, file: _Reader) -> None:
    """Refuse a file that holds so many items of sequences that they would fill the memory: eight bytes are enough."""
    if file.size > _FEW_ITEMS_BYTES:
        count, tail = 0, b""
        while piece := file.read(_PIECE):
            count += (tail + piece).count(ITEM)
            tail = piece[-len(ITEM) + 1 :]
        file.seek(0)
        check_read(path.name, count * _BYTES_AN_ITEM)


def inflated(path: Path, size: int) -> bytes:
    """Return the data set of a deflated file, whose size is known from ``open_dicom`` and claimed by the caller.

    Raises:
        DamagedError: the data cannot be unpacked.
    """
    with _Reader(path) as file:
        try:
            read_partial(file, stop_when=lambda *_: True, force=True)
        except _DeflatedError:
            data = b"".join(_pieces(path, file.tell()))
            if len(data) == size:
                return data
    raise damaged(path, "the deflated data are not what they were a moment ago")


def remains(path: Path) -> str | None:
    """Say what is wrong with a file that is not recognised but was DICOM once, or None where nothing tells that."""
    with path.open("rb") as file:
        start = file.read(1 << 16)
    if not start:
        return None
    if _DICOM_UID in start:
        return "the start of the DICOM file is missing or damaged; copy it again from its source"
    if len(start) < 132 + 8 and not start[:128].strip(b"\0") and len(start) >= 4:
        return "the DICOM file is cut short; copy it again from its source"
    return None


def _looks_like_dicom(start: bytes, size: int) -> bool:
    if start[128:132] == b"DICM":
        return True
    # Files of before the Part 10 format, and those of exporters that leave out the preamble, start with an element.
    if len(start) < 10:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", start[:4])
        if group not in (0x0002, 0x0008) or element > 0x2000:
            continue
        if re.fullmatch(rb"[A-Z]{2}", start[4:6]):
            return True
        length = struct.unpack(f"{order}L", start[4:8])[0]
        if order == "<" and (length == UNDEFINED or (length <= 4096 and length < size)):
            return True
    return False


def _parse(file: _Reader, tags: list[int]) -> DicomFile:
    watch = _Watch(file)
    data = read_partial(file, stop_when=watch, force=True, specific_tags=list(tags))
    little = bool(data.original_encoding[1])
    named = str(data.file_meta.get("TransferSyntaxUID") or "").strip("\0 ")
    if not named:
        # Which of the explicit ones is only a name here: pydicom has read the file as it is.
        named = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    return DicomFile(data, data.file_meta, UID(named), little, watch.element(file.size, little), file.size)


def _parse_deflated(path: Path, start: int, tags: list[int]) -> DicomFile:
    with path.open("rb") as file:
        meta = read_partial(io.BytesIO(file.read(start)), force=True).file_meta
    with claim(path.name, _COPIES * _inflated_size(path, start)):
        content = b"".join(_pieces(path, start))
        stream = io.BytesIO(content)
        watch = _Watch(stream)
        try:
            data = read_dataset(stream, False, True, stop_when=watch, specific_tags=list(tags))
            element = watch.element(len(content), little=True)
        except SeriesError:
            raise
        except Exception as error:  # as in open_dicom
            raise broken_because(path, fault_in(stream, len(content), data_set_only=True)) from error
    return DicomFile(data, meta, DeflatedExplicitVRLittleEndian, True, element, len(content))


def _inflated_size(path: Path, start: int) -> int:
    """Measure what a file unpacks to, before any of it is kept."""
    size = 0
    try:
        for piece in _pieces(path, start):
            size += len(piece)
            check_read(path.name, _COPIES * size)
    except zlib.error as error:
        raise damaged(path, "the deflated data cannot be unpacked") from error
    return size


def _pieces(path: Path, start: int) -> Iterator[bytes]:
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as file:
        file.seek(start)
        while not unpack.eof:
            packed = unpack.unconsumed_tail or file.read(_PIECE)
            piece = unpack.decompress(packed, _PIECE)
            if not packed and not piece:
                raise zlib.error("the stream ends too early")
            yield piece


class _Watch:
    """Ends pydicom's reading at the pixel data, and notes where their value starts."""

    def __init__(self, file: BinaryIO | io.BytesIO) -> None:
        self._file = file
        self._found: tuple[int, str | None, int, int] | None = None

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        if tag not in PIXELS:
            return False
        self._found = (int(tag), vr, length, self._file.tell())
        return True

    def element(self, end: int, little: bool) -> PixelElement | None:
        """Return the pixel data element of a file or buffer that ends there."""
        if self._found is None:
            return None
        tag, vr, length, offset = self._found
        if length == UNDEFINED:
            after, fault = fragments_fault(self._file, offset, end)
            return PixelElement(tag, offset, None, fault, self._rest(after, end, vr, little) if after else 0)
        if offset + length > end:
            fault = f"its pixels take {length} bytes, of which {max(end - offset, 0)} are there"
            return PixelElement(tag, offset, length, fault, 0)
        return PixelElement(tag, offset, length, "", self._rest(offset + length, end, vr, little))

    def _rest(self, place: int, end: int, vr: str | None, little: bool) -> int:
        """Return how many bytes after the pixel data are neither tags nor padding: the sign of a shifted picture."""
        start, order = place, "<" if little else ">"
        while end - place >= 8:
            self._file.seek(place)
            head = self._file.read(12)
            length, size = struct.unpack(f"{order}L", head[4:8])[0], 8
            if vr is not None:
                if not re.fullmatch(rb"[A-Z]{2}", head[4:6]):
                    break
                length = struct.unpack(f"{order}H", head[6:8])[0]
                if head[4:6] in LONG_VR and len(head) == 12:
                    length, size = struct.unpack(f"{order}L", head[8:12])[0], 12
            elif head[:4] == b"\0\0\0\0":
                break
            if length == UNDEFINED:
                return 0
            place += size + length
        if place == end:
            return 0
        self._file.seek(start)
        padding = end % _BLOCK == 0 and not self._file.read(_PIECE).strip(b"\0")
        return 0 if padding else end - start
