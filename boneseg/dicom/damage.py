"""Where the structure of a DICOM file breaks off, in words: asked for only when pydicom could not read the file."""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from pydicom.datadict import keyword_for_tag
from pydicom.valuerep import VR

ITEM, END_OF_ITEMS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
UNDEFINED = 0xFFFFFFFF
PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
LONG_VR = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_VRS = frozenset(vr.encode() for vr in VR if len(vr) == 2)
_ITEM_TAG, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = (f"1.2.840.10008.1.2{end}" for end in ("", ".2", ".1.99"))
_SYNTAX = 0x00020010
_DEEPEST = 20


class _BrokenError(Exception):
    """The structure breaks off here; says how."""


def fault_in(stream: BinaryIO, size: int, *, data_set_only: bool = False) -> str:
    """Say where the elements of a file break off.

    Args:
        stream: the file, or what a deflated one unpacks to.
        size: bytes that it has.
        data_set_only: whether there is no header before the first element, as in a deflated data set.

    Returns:
        A clause such as "Rows at byte 820 claims 2000 bytes, of which 12 are there"; empty where nothing is broken.
    """
    walk = _Walk(stream, size)
    try:
        walk.file(data_set_only)
    except _BrokenError as broken:
        return str(broken)
    return "" if walk.has_pixels else f"it ends at byte {size}, after {walk.last}, without pixels"


def fragments_fault(stream: BinaryIO, place: int, size: int) -> tuple[int | None, str]:
    """Follow the fragments of compressed pixels, which start at ``place``.

    Returns:
        The byte after their end and nothing, or none and what is wrong: decoders may not notice that an end is missing.
    """
    count = 0
    while True:
        stream.seek(place)
        item = stream.read(8)
        if len(item) < 8:
            return None, f"the compressed pixels end at byte {size} without the mark of their end"
        if item[:4] == END_OF_ITEMS:
            return place + 8, ""
        if item[:4] != ITEM:
            return None, f"no fragment of the compressed pixels starts at byte {place}, where the one before ends"
        length = int(struct.unpack("<L", item[4:])[0])
        count += 1
        if place + 8 + length > size:
            there = max(size - place - 8, 0)
            return None, f"fragment {count} of the compressed pixels has {length} bytes, of which {there} are there"
        place += 8 + length


class _Walk:
    """Goes from element to element, by their lengths alone.

    Attributes:
        last: name of the last whole element.
        has_pixels: whether pixel data were found, and are whole.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size
        self.last, self.has_pixels = "its start", False
        self._order, self._explicit = "<", True

    def file(self, data_set_only: bool) -> None:
        start = 132 if not data_set_only and self._read(128, 4) == b"DICM" else 0
        syntax = ""
        place = start
        while not data_set_only and self._read(place, 2) == b"\x02\x00":  # the header is always explicit
            tag, vr, length, value = self._head(place)
            self._check_vr(place, vr)
            self._check_length(tag, place, length, value)
            if tag == _SYNTAX:
                syntax = self._read(value, length).strip(b"\0 ").decode("latin-1")
            place = value + length
            self.last = _name(tag)
        if syntax == _DEFLATED:  # what follows is packed
            self.has_pixels = True
            return
        self._order = ">" if syntax == _BIG_ENDIAN else "<"
        self._explicit = bool(re.fullmatch(rb"[A-Z]{2}", self._read(place + 4, 2))) if syntax != _IMPLICIT else False
        self._elements(place, 0)

    def _elements(self, place: int, depth: int) -> int:
        """Follow the elements of a data set or item to its end; returns where that is."""
        before = -1
        while place < self.size:
            tag, vr, length, value = self._head(place)
            if depth and tag in (_ITEM_END, _SEQUENCE_END):
                return value
            if tag <= before:
                raise _BrokenError(f"{_name(tag)} stands at byte {place}, where it cannot follow {_name(before)}")
            self._check_vr(place, vr)
            if length != UNDEFINED:
                self._check_length(tag, place, length, value)
                place = value + length
            elif tag in PIXELS:
                end, why = fragments_fault(self.stream, value, self.size)
                if end is None:
                    raise _BrokenError(why)
                place = end
            else:
                place = self._items(value, tag, vr, depth)
            self.has_pixels |= tag in PIXELS and depth == 0
            before, self.last = tag, _name(tag)
        if depth:
            raise _BrokenError(f"it ends at byte {self.size} within a sequence, after {self.last}")
        return place

    def _items(self, place: int, tag: int, vr: bytes, depth: int) -> int:
        """Follow the items of a sequence of undefined length."""
        if depth >= _DEEPEST:
            raise _BrokenError(f"{_name(tag)} at byte {place} is a sequence in {_DEEPEST} others")
        explicit, self._explicit = self._explicit, self._explicit and vr != b"UN"
        while True:
            head = self._read(place, 8)
            if len(head) < 8:
                raise _BrokenError(f"it ends at byte {self.size} within {_name(tag)}")
            group, element, length = struct.unpack(f"{self._order}HHL", head)
            item = group << 16 | element
            if item == _SEQUENCE_END:
                self._explicit = explicit
                return place + 8
            if item != _ITEM_TAG:
                raise _BrokenError(f"at byte {place}, within {_name(tag)}, something stands that is no item")
            place += 8
            if length == UNDEFINED:
                place = self._elements(place, depth + 1)
            else:
                self._check_length(tag, place - 8, length, place)
                place += length

    def _head(self, place: int) -> tuple[int, bytes, int, int]:
        """Return tag, VR, length and place of the value of an element."""
        head = self._read(place, 12)
        if len(head) < 8:
            raise _BrokenError(f"it ends at byte {self.size}, after {self.last}")
        group, element = struct.unpack(f"{self._order}HH", head[:4])
        tag = group << 16 | element
        if not self._explicit or group == 0xFFFE:
            return tag, b"", struct.unpack(f"{self._order}L", head[4:8])[0], place + 8
        vr = head[4:6]
        if vr in LONG_VR and len(head) == 12:
            return tag, vr, struct.unpack(f"{self._order}L", head[8:])[0], place + 12
        return tag, vr, struct.unpack(f"{self._order}H", head[6:8])[0], place + 8

    def _check_length(self, tag: int, place: int, length: int, value: int) -> None:
        if value + length > self.size:
            if not keyword_for_tag(tag) and not tag >> 16 & 1:
                raise self._no_element(place)
            there = max(self.size - value, 0)
            raise _BrokenError(f"{_name(tag)} at byte {place} claims {length} bytes, of which {there} are there")

    def _check_vr(self, place: int, vr: bytes) -> None:
        if self._explicit and vr not in _VRS:
            raise self._no_element(place)

    def _no_element(self, place: int) -> _BrokenError:
        return _BrokenError(
            f"at byte {place}, after {self.last}, no element starts: a length is wrong, or bytes were lost or added"
        )

    def _read(self, place: int, size: int) -> bytes:
        self.stream.seek(place)
        return self.stream.read(min(size, max(self.size - place, 0)))


def _name(tag: int) -> str:
    return keyword_for_tag(tag) or f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
