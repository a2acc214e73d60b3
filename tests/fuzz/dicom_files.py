"""CT files of every encoding, and ways of damaging them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.sop_classes import CT_CLASSES
from boneseg.geometry import axial
from tests.ct_files import body

SHAPE = (4, 40, 44)
SPACING = (3.0, 0.9, 0.8)


def originals(folder: Path) -> dict[str, bytes]:
    """Return one slice in every encoding that can be written here, and one Enhanced CT volume; by name."""
    paths = write_ct_series(folder / "plain", body(1, SHAPE)[0], axial(SHAPE, SPACING), identity="a")
    plain = paths[1]
    made = {"plain": plain.read_bytes()}
    for name, syntax in (("rle", RLELossless), ("jpeg-ls", JPEGLSLossless)):
        data = pydicom.dcmread(plain)
        data.compress(syntax, generate_instance_uid=False)
        made[name] = _bytes(data)
    for name, syntax in (("implicit", ImplicitVRLittleEndian), ("deflated", DeflatedExplicitVRLittleEndian)):
        data = pydicom.dcmread(plain)
        data.file_meta.TransferSyntaxUID = syntax
        made[name] = _bytes(data)
    made["big-endian"] = _big_endian(plain)
    made["signed"] = _signed(plain)
    made["enhanced"] = _bytes(enhanced(paths))
    return made


def enhanced(paths: list[Path]) -> Dataset:
    """Return one Enhanced CT file of some plain slices."""
    slices = [pydicom.dcmread(path) for path in paths]
    data = pydicom.dcmread(paths[0])
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CT_CLASSES[1]
    own = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SliceLocation")
    rescale = ("RescaleIntercept", "RescaleSlope", "RescaleType")
    data.SharedFunctionalGroupsSequence = Sequence(
        [
            item(
                PixelMeasuresSequence=[item(PixelSpacing=data.PixelSpacing, SliceThickness=data.SliceThickness)],
                PlaneOrientationSequence=[item(ImageOrientationPatient=data.ImageOrientationPatient)],
                PixelValueTransformationSequence=[item(**{name: data[name].value for name in rescale})],
            )
        ]
    )
    data.PerFrameFunctionalGroupsSequence = Sequence(
        [
            item(
                PlanePositionSequence=[item(ImagePositionPatient=one.ImagePositionPatient)],
                FrameContentSequence=[item(StackID="1", InStackPositionNumber=index + 1)],
            )
            for index, one in enumerate(slices)
        ]
    )
    for name in (*own, *rescale):
        delattr(data, name)
    data.NumberOfFrames = len(slices)
    data.PixelData = b"".join(one.PixelData for one in slices)
    return data


def item(**tags: Any) -> Dataset:
    data = Dataset()
    for name, value in tags.items():
        setattr(data, name, Sequence(value) if name.endswith("Sequence") else value)
    return data


def mutate(content: bytes, random: np.random.Generator) -> tuple[str, bytes]:
    """Damage a file in one way; returns the way and the file."""
    ways: list[tuple[str, Callable[[bytes, np.random.Generator], bytes]]] = [
        ("flipped bits", flip),
        ("flipped bits in the header", flip_header),
        ("cut", lambda data, random: data[: int(random.integers(0, len(data)))]),
        ("inserted", insert),
        ("removed", remove),
        ("zeroed", zero),
        ("other tag", change_tag),
        ("huge length", huge_length),
        ("deleted tag", delete_tag),
        ("other VR", other_vr),
    ]
    name, way = ways[int(random.integers(0, len(ways)))]
    return name, way(content, random)


def flip(content: bytes, random: np.random.Generator) -> bytes:
    data = bytearray(content)
    for _ in range(int(random.integers(1, 8))):
        data[int(random.integers(0, len(data)))] ^= 1 << int(random.integers(0, 8))
    return bytes(data)


def flip_header(content: bytes, random: np.random.Generator) -> bytes:
    data = bytearray(content)
    end = min(len(data), 1400)
    for _ in range(int(random.integers(1, 4))):
        data[int(random.integers(0, end))] ^= 1 << int(random.integers(0, 8))
    return bytes(data)


def insert(content: bytes, random: np.random.Generator) -> bytes:
    place = int(random.integers(0, len(content)))
    return content[:place] + random.bytes(int(random.integers(1, 40))) + content[place:]


def remove(content: bytes, random: np.random.Generator) -> bytes:
    place = int(random.integers(0, len(content)))
    return content[:place] + content[place + int(random.integers(1, 40)) :]


def zero(content: bytes, random: np.random.Generator) -> bytes:
    place, size = int(random.integers(0, len(content))), int(random.integers(1, 600))
    size = min(size, len(content) - place)
    return content[:place] + bytes(size) + content[place + size :]


_TEXTS = ["", "0", "1", "-1", "1e30", "nan", "inf", "1e-30", "0.5", "x", "1\\2", "99999999999999999999", "12.5"]
_NUMBERS = [0, 1, 2, 7, 8, 11, 12, 13, 15, 16, 17, 32, 39, 41, 255, 4095, 32768, 65535]
_TAGS = [
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    *("NumberOfFrames", "RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImagePositionPatient"),
    *("ImageOrientationPatient", "PhotometricInterpretation", "SOPClassUID", "Modality", "InstanceNumber"),
    *("SeriesNumber", "SliceThickness", "PixelPaddingValue", "TransferSyntaxUID", "RescaleType", "SeriesInstanceUID"),
    *("PatientID", "ImageType", "PixelPaddingRangeLimit", "PlanarConfiguration"),
]


def change_tag(content: bytes, random: np.random.Generator) -> bytes:
    """Give a tag another value, by its bytes: pydicom would not write most of them."""
    data, tag = _read(content), _TAGS[int(random.integers(0, len(_TAGS)))]
    place = _tag_of(data, tag)
    vr = pydicom.datadict.dictionary_VR(tag)
    if vr.startswith("US"):
        value: bytes = struct.pack(_order(data) + "H", _NUMBERS[int(random.integers(0, len(_NUMBERS)))])
    else:
        value = _TEXTS[int(random.integers(0, len(_TEXTS)))].encode()
        value += b" " * (len(value) % 2)
    implicit, little = _encoding(data)
    place[pydicom.tag.Tag(tag)] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(tag), "US" if vr.startswith("US") else vr, len(value), value, 0, implicit, little
    )
    return _bytes(data)


def delete_tag(content: bytes, random: np.random.Generator) -> bytes:
    data, tag = _read(content), _TAGS[int(random.integers(0, len(_TAGS)))]
    _tag_of(data, tag).pop(pydicom.tag.Tag(tag), None)
    return _bytes(data)


def huge_length(content: bytes, random: np.random.Generator) -> bytes:
    """Let an element claim far more bytes than the file has."""
    places = _places_of_tags(content)
    place = places[int(random.integers(0, len(places)))]
    size = int(random.choice([0xFFFFFFFE, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000000, 0xFFFF]))
    return content[: place + 4] + struct.pack("<L", size) + content[place + 8 :]


def other_vr(content: bytes, random: np.random.Generator) -> bytes:
    places = _places_of_tags(content)
    place = places[int(random.integers(0, len(places)))]
    vr = [b"UN", b"SQ", b"OB", b"LO", b"DS", b"IS", b"US", b"UT", b"FD", b"ZZ", b"\0\0"][int(random.integers(0, 11))]
    return content[: place + 4] + vr + content[place + 6 :]


def reference(path: Path) -> NDArray[np.float64] | None:
    """Read a file by pydicom alone: HU of all frames, or None where pydicom cannot."""
    try:
        data = pydicom.dcmread(path, force=True)
        if not data.file_meta.get("TransferSyntaxUID"):
            data.file_meta.TransferSyntaxUID = (
                ImplicitVRLittleEndian
                if data.original_encoding[0]
                else ("1.2.840.10008.1.2.1" if data.original_encoding[1] else ExplicitVRBigEndian)
            )
        if "PhotometricInterpretation" not in data:  # pydicom wants it, though no value depends on it
            data.PhotometricInterpretation = "MONOCHROME2"
        if "SamplesPerPixel" not in data:
            data.SamplesPerPixel = 1
        raw = data.pixel_array
        groups = data.get("SharedFunctionalGroupsSequence")
        scale = groups[0].PixelValueTransformationSequence[0] if groups else data
        hu = np.rint(raw * float(scale.get("RescaleSlope", 1)) + float(scale.get("RescaleIntercept", 0)))
    except Exception:
        return None
    return np.clip(hu, -1024, 32767)


def _read(content: bytes) -> Any:
    return pydicom.dcmread(io.BytesIO(content), force=True)


def _bytes(data: Any) -> bytes:
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=False)
    return buffer.getvalue()


def _tag_of(data: Any, keyword: str) -> dict[Any, Any]:
    """Return the data set in which a tag is: the file's, its meta, or that of all frames."""
    if keyword == "TransferSyntaxUID":
        return data.file_meta._dict
    groups = data.get("SharedFunctionalGroupsSequence")
    for name, value in [(element.keyword, element.value) for element in groups[0]] if groups else []:
        if name and keyword in value[0]:
            return value[0]._dict
    return data._dict


def _encoding(data: Any) -> tuple[bool, bool]:
    syntax = UID(data.file_meta.TransferSyntaxUID)
    return syntax.is_implicit_VR, syntax.is_little_endian


def _order(data: Any) -> str:
    return "<" if _encoding(data)[1] else ">"


def _places_of_tags(content: bytes) -> list[int]:
    """Return where elements start, as far as the content shows without being parsed."""
    tags = [(0x28, element) for element in (0x10, 0x11, 0x100, 0x101, 0x103, 0x1052, 0x1053, 0x30)]
    tags += [(8, 5), (8, 8), (8, 0x16), (0x20, 0x32), (0x20, 0x37), (0x7FE0, 0x10)]
    marks = [struct.pack("<HH", *tag) for tag in tags]
    return [place for mark in marks if (place := content.find(mark)) >= 0] or [132]


def _big_endian(path: Path) -> bytes:
    data = pydicom.dcmread(path)
    data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, little_endian=False, implicit_vr=False)
    return buffer.getvalue()


def _signed(path: Path) -> bytes:
    data = pydicom.dcmread(path)
    hu = np.frombuffer(data.PixelData, "<u2").astype(np.int32) - 1024
    data.PixelData = hu.astype("<i2").tobytes()
    data.PixelRepresentation, data.BitsStored, data.HighBit, data.RescaleIntercept = 1, 16, 15, "0"
    return _bytes(data)


def deflate_bomb(path: Path, megabytes: int) -> bytes:
    """Return a small deflated file that unpacks to very much."""
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    content = _bytes(data)
    start = 144 + int(struct.unpack("<L", content[140:144])[0])  # where the meta header ends, by its own length
    head = zlib.decompressobj(-15).decompress(content[start:])
    head = head[: head.index(struct.pack("<HH", 0x7FE0, 0x10))]
    head += struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, megabytes << 20)
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = [pack.compress(head), *(pack.compress(bytes(1 << 20)) for _ in range(megabytes)), pack.flush()]
    return content[:start] + b"".join(packed)
