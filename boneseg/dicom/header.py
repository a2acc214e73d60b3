"""What a DICOM file says about itself, read without its pixels."""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
import pydicom.config
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from boneseg.errors import SeriesError

# Real files break value rules in harmless ways; pydicom's warnings would print their UIDs and names into a log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage."""

_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "PatientID",
    "FrameOfReferenceUID",
    "Modality",
    "SeriesNumber",
    "InstanceNumber",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
]
_PIXEL_GROUP = 0x7FE0
_ITEM = b"\xfe\xff\x00\xe0"


@dataclass(frozen=True)
class StoredPixels:
    """How a file keeps its pixels.

    Attributes:
        offset: where the first pixel is in the file; none where pixels are compressed.
        samples: values a pixel has, 1 for greyscale.
        padding: stored values, lowest and highest, that mean "nothing was measured here".
        lookup: whether a Modality LUT Sequence takes the place of slope and intercept.
    """

    offset: int | None
    big_endian: bool
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    samples: int
    padding: tuple[int, int] | None
    lookup: bool


@dataclass(frozen=True)
class SliceHeader:
    """The tags of a DICOM file that boneseg uses; texts are empty and numbers None where a file does not say.

    Attributes:
        name: the file's name, for messages.
        position: ImagePositionPatient, LPS mm.
        orientation: ImageOrientationPatient: direction cosines along a row, then along a column.
        pixel_spacing: mm between rows, mm between columns.
        thickness: SliceThickness in mm; says nothing about the distance of slices.
        rescaled: whether the file has a slope or an intercept; without them 1 and 0 stand here.
        pixels: none for an object that is no image.
    """

    name: str
    sop_class: str
    instance_uid: str
    series_uid: str
    study_uid: str
    patient_id: str
    frame_of_reference: str
    modality: str
    series_number: int | None
    instance_number: int | None
    rows: int
    columns: int
    frames: int
    position: tuple[float, float, float] | None
    orientation: tuple[float, float, float, float, float, float] | None
    pixel_spacing: tuple[float, float] | None
    thickness: float | None
    slope: float
    intercept: float
    rescaled: bool
    transfer_syntax: str
    pixels: StoredPixels | None

    @property
    def is_seg(self) -> bool:
        """Whether the file is a DICOM SEG."""
        return self.sop_class in SEGMENTATIONS


def read_header(path: Path) -> SliceHeader | None:
    """Read the header of a file.

    Returns:
        The header, or None where the file is not DICOM.

    Raises:
        SeriesError: it is DICOM but cut short or damaged.
    """
    with path.open("rb") as file:
        if not _looks_like_dicom(file):
            return None
        try:
            data = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
            return _header(path, data, file)
        except SeriesError:
            raise
        except InvalidDicomError:
            return None
        except Exception as error:  # pydicom passes on whatever a damaged byte makes of its readers
            raise damaged(path) from error


def damaged(path: Path) -> SeriesError:
    """Return the error for a file of which a part is missing or wrong."""
    return SeriesError(f"{path.name}: the DICOM file is cut short or damaged; copy it again from its source")


def _looks_like_dicom(file: BinaryIO) -> bool:
    start = file.read(132)
    file.seek(0)
    if start[128:132] == b"DICM":
        return True
    # Files of before the Part 10 format start with an element of group 0008.
    return len(start) == 132 and start[:2] == b"\x08\x00" and start[2:4] in (b"\x00\x00", b"\x01\x00", b"\x05\x00")


def _header(path: Path, data: Any, file: BinaryIO) -> SliceHeader:
    meta = data.file_meta
    syntax = UID(str(meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian))
    sop_class = _text(data, "SOPClassUID") or str(meta.get("MediaStorageSOPClassUID") or "")
    rows, columns = _integer(data, "Rows") or 0, _integer(data, "Columns") or 0
    modality = _text(data, "Modality")
    is_image = rows > 0 and columns > 0
    # A file cut within its header ends before it says what it is, or before its size.
    if not is_image and (sop_class == CT_IMAGE or not (sop_class or modality)):
        raise damaged(path)
    slope, intercept = _number(data, "RescaleSlope"), _number(data, "RescaleIntercept")
    frames = _integer(data, "NumberOfFrames") or 1
    return SliceHeader(
        name=path.name,
        sop_class=sop_class,
        instance_uid=_text(data, "SOPInstanceUID"),
        series_uid=_text(data, "SeriesInstanceUID"),
        study_uid=_text(data, "StudyInstanceUID"),
        patient_id=_text(data, "PatientID"),
        frame_of_reference=_text(data, "FrameOfReferenceUID"),
        modality=modality,
        series_number=_integer(data, "SeriesNumber"),
        instance_number=_integer(data, "InstanceNumber"),
        rows=rows,
        columns=columns,
        frames=frames,
        position=_numbers(data, "ImagePositionPatient", 3),
        orientation=_numbers(data, "ImageOrientationPatient", 6),
        pixel_spacing=_numbers(data, "PixelSpacing", 2),
        thickness=_number(data, "SliceThickness"),
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        rescaled=slope is not None or intercept is not None,
        transfer_syntax=str(syntax),
        pixels=_stored_pixels(path, data, file, syntax, rows * columns * frames) if is_image else None,
    )


def _stored_pixels(path: Path, data: Any, file: BinaryIO, syntax: UID, values: int) -> StoredPixels:
    allocated = _integer(data, "BitsAllocated") or 16
    stored = _integer(data, "BitsStored") or allocated
    high = _integer(data, "HighBit")
    samples = _integer(data, "SamplesPerPixel") or 1
    padding, limit = _integer(data, "PixelPaddingValue"), _integer(data, "PixelPaddingRangeLimit")
    offset = None
    if syntax != DeflatedExplicitVRLittleEndian:
        offset = _pixel_offset(path, file, syntax)
        end = os.fstat(file.fileno()).st_size
        size = (values * samples * allocated + 7) // 8
        whole = _fragments_end(file, offset) <= end if syntax.is_compressed else offset + size <= end
        if not whole:
            raise damaged(path)
    return StoredPixels(
        offset=None if syntax.is_compressed else offset,
        big_endian=not syntax.is_little_endian,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1 if high is None else high,
        signed=bool(_integer(data, "PixelRepresentation")),
        samples=samples,
        padding=None if padding is None else _ordered(padding, padding if limit is None else limit),
        lookup=bool(data.get("ModalityLUTSequence")),
    )


def _pixel_offset(path: Path, file: BinaryIO, syntax: UID) -> int:
    """Return where the value of the pixel data element starts; pydicom left the file at the element's tag."""
    order = "<" if syntax.is_little_endian else ">"
    start = file.read(12)
    if len(start) < 12 or struct.unpack(f"{order}H", start[:2])[0] != _PIXEL_GROUP:
        raise damaged(path)
    return file.tell() - (4 if syntax.is_implicit_VR else 0)


def _fragments_end(file: BinaryIO, offset: int) -> int:
    """Return where the last fragment of compressed pixels ends; decoders may not notice that its end is missing."""
    place = offset
    while True:
        file.seek(place)
        item = file.read(8)
        if len(item) < 8 or item[:4] != _ITEM:
            return place
        place += 8 + int(struct.unpack("<L", item[4:])[0])


def _ordered(first: int, second: int) -> tuple[int, int]:
    return min(first, second), max(first, second)


def _text(data: Any, keyword: str) -> str:
    return str(data.get(keyword) or "").strip()


def _integer(data: Any, keyword: str) -> int | None:
    value = data.get(keyword)
    return None if value in (None, "") else int(value)


def _number(data: Any, keyword: str) -> float | None:
    value = data.get(keyword)
    return None if value in (None, "") else float(value)


def _numbers(data: Any, keyword: str, count: int) -> Any:
    """Return ``count`` finite numbers as a tuple, or None; a tuple of fixed length has no simple static type."""
    value = data.get(keyword)
    if value is None or isinstance(value, str | float) or len(value) != count:
        return None
    numbers = tuple(float(part) for part in value)
    return numbers if all(math.isfinite(number) for number in numbers) else None
