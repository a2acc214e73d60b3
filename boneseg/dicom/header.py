"""What a DICOM file says about itself, read without its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydicom.uid import UID, AllTransferSyntaxes, DeflatedExplicitVRLittleEndian

from boneseg.dicom import tags
from boneseg.dicom.file import NATIVE, DicomFile, PixelElement, broken, broken_because, open_dicom
from boneseg.dicom.frames import GROUPS, TOTAL_PARTS, Place, Rescale, has_groups, place, places, rescale
from boneseg.dicom.sop_classes import CT_CLASSES, SEGMENTATIONS, STRUCTURE_SETS
from boneseg.dicom.tags import TagError
from boneseg.errors import SeriesError

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
    "RescaleType",
    "ModalityLUTSequence",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    TOTAL_PARTS,
    *GROUPS,
]
_RAW_DATA = "1.2.840.10008.5.1.4.1.1.66"
_PIXEL_DATA = 0x7FE00010
_LONGEST_UID = 64
_SLOPES, _MOST_INTERCEPT = (1e-4, 1e4), 1e5
_OTHER_UNITS = ("OD", "MGML", "Z_EFF", "ED", "EDW", "PCT")
"""Rescale types that are not HU: optical density, and maps of dual-energy CT."""
_BITS = (1, 8, 16, 32)


@dataclass(frozen=True)
class StoredPixels:
    """How a file keeps its pixels.

    Attributes:
        offset: where the first pixel of the frame is, in the file or in what it unpacks to; none where each frame is
            compressed by itself.
        big_endian: byte order of plain pixels.
        samples: values a pixel has, 1 for greyscale.
        padding: stored values, lowest and highest, that mean "nothing was measured here".
        lookup: whether a Modality LUT Sequence takes the place of slope and intercept.
        deflated: whether the whole data set is packed.
        size: bytes that are unpacked, of a deflated file when it is; 0 of plain pixels.
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
    deflated: bool = False
    size: int = 0


@dataclass(frozen=True)
class SliceHeader:
    """The tags of a picture that boneseg uses; texts are empty and numbers None where a file does not say.

    Attributes:
        name: the file's name, and the frame's number where it holds several, for messages.
        position: ImagePositionPatient, LPS mm.
        orientation: ImageOrientationPatient: direction cosines along a row, then along a column.
        pixel_spacing: mm between rows, mm between columns.
        thickness: SliceThickness in mm; says nothing about the distance of slices.
        rescaled: whether the file has slope and intercept; without them 1 and 0 stand here.
        pixels: none for an object that is no image, and for an image whose values cannot be told.
        frame: which picture of its file this is, from 0.
        stack: which of several volumes of a file a frame is of.
        photometric: PhotometricInterpretation.
        problem: why the values cannot be read as HU; empty where they can.
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
    frame: int = 0
    stack: tuple[str, ...] = ()
    photometric: str = ""
    problem: str = ""

    @property
    def is_seg(self) -> bool:
        """Whether the file is a DICOM SEG."""
        return self.sop_class in SEGMENTATIONS

    @property
    def is_rtstruct(self) -> bool:
        """Whether the file is a DICOM RTSTRUCT."""
        return self.sop_class == STRUCTURE_SETS or self.modality == "RTSTRUCT"


def read_header(path: Path) -> SliceHeader | None:
    """Read the header of a file, of its first frame where it holds several.

    Returns:
        The header, or None where the file is not DICOM.

    Raises:
        SeriesError: it is DICOM but cut short or damaged, or unpacks to more than is allowed.
    """
    frames = read_frames(path)
    return None if frames is None else frames[0]


def read_frames(path: Path) -> list[SliceHeader] | None:
    """Read one header a frame: one for a plain CT slice, many for an Enhanced CT volume.

    What is wrong with the values of a picture is told by ``problem``, for other objects than CT may well lack them.

    Returns:
        Headers in the order of the file, never empty, or None where the file is not DICOM.

    Raises:
        SeriesError: as ``read_header``.
    """
    file = open_dicom(path, _TAGS)
    if file is None:
        return None
    try:
        return _headers(path, file)
    except TagError as error:
        raise SeriesError(f"{path.name}: {error}; export it again") from error
    except SeriesError:
        raise
    except Exception as error:  # pydicom passes on whatever a damaged byte makes of its readers
        raise broken(path, file) from error


def _headers(path: Path, file: DicomFile) -> list[SliceHeader]:
    data = file.data
    sop_class = tags.text(data, "SOPClassUID") or tags.text(file.meta, "MediaStorageSOPClassUID")
    if len(sop_class) > _LONGEST_UID:  # a length that is damaged swallows what follows
        raise broken_because(path, f"SOPClassUID has {len(sop_class)} characters, where {_LONGEST_UID} are the most")
    modality = tags.text(data, "Modality")
    is_ct = sop_class in CT_CLASSES or (modality == "CT" and sop_class != _RAW_DATA)
    rows, columns = (tags.optional_integer(data, name) or 0 for name in ("Rows", "Columns"))
    is_image = rows > 0 and columns > 0
    # A file cut within its header ends before it says what it is, or before its size.
    if not is_image and (is_ct or not (sop_class or modality)):
        if file.element is not None and not file.element.fault:
            raise TagError("holds pixels but no usable Rows and Columns")
        raise broken(path, file)
    frames, problem = 1, ""
    pixels: StoredPixels | None = None
    if is_image:
        if file.element is None:
            raise broken(path, file)
        if file.element.fault:
            raise broken_because(path, file.element.fault + _unlike(data, file.element, rows, columns))
        try:
            frames = _frames(data)
            pixels = _stored_pixels(file, rows, columns, frames)
        except TagError as error:
            problem = str(error)
    where, scales, problem = _where(data, sop_class, frames, problem)
    base = SliceHeader(
        name=path.name,
        sop_class=sop_class,
        instance_uid=tags.text(data, "SOPInstanceUID"),
        series_uid=tags.text(data, "SeriesInstanceUID"),
        study_uid=tags.text(data, "StudyInstanceUID"),
        patient_id=tags.text(data, "PatientID"),
        frame_of_reference=tags.text(data, "FrameOfReferenceUID"),
        modality=modality,
        series_number=tags.optional_integer(data, "SeriesNumber"),
        instance_number=tags.optional_integer(data, "InstanceNumber"),
        rows=rows,
        columns=columns,
        frames=frames,
        position=where[0].position,
        orientation=where[0].orientation,
        pixel_spacing=where[0].pixel_spacing,
        thickness=where[0].thickness,
        slope=scales[0].slope,
        intercept=scales[0].intercept,
        rescaled=scales[0].given,
        transfer_syntax=str(file.syntax),
        pixels=pixels,
        stack=where[0].stack,
        photometric=tags.text(data, "PhotometricInterpretation"),
        problem=problem,
    )
    if len(where) == 1:
        return [base]
    return [_frame(base, index, *found) for index, found in enumerate(zip(where, scales, strict=True))]


def _frame(base: SliceHeader, index: int, where: Place, scale: Rescale) -> SliceHeader:
    pixels = base.pixels
    if pixels is not None and pixels.offset is not None:
        pixels = replace(pixels, offset=pixels.offset + index * base.rows * base.columns * pixels.bits_allocated // 8)
    return replace(
        base,
        name=f"{base.name} frame {index + 1}",
        instance_number=index + 1,
        position=where.position,
        orientation=where.orientation,
        pixel_spacing=where.pixel_spacing,
        thickness=where.thickness,
        slope=scale.slope,
        intercept=scale.intercept,
        rescaled=scale.given,
        pixels=pixels,
        frame=index,
        stack=where.stack,
    )


def _where(data: Any, sop_class: str, frames: int, problem: str) -> tuple[list[Place], list[Rescale], str]:
    """Return place and rescale of each frame of a CT, of one where they are not told, and the first problem."""
    grouped = sop_class in CT_CLASSES and has_groups(data)
    try:
        found, scales = places(data, frames) if grouped else ([place(data)], [rescale(data)])
        for scale in scales:
            _check_rescale(scale)
    except TagError as error:
        return [place(data)], [Rescale(1.0, 0.0, False, "")], problem or str(error)
    parts = tags.optional_integer(data, TOTAL_PARTS) or 1
    if parts > 1:
        problem = problem or f"is one of {parts} files of a concatenation, which are not put together; join them first"
    if len(found) < frames and sop_class not in SEGMENTATIONS:
        problem = problem or f"holds {frames} frames without their places; convert it to single-frame CT or to NIfTI"
    return found, scales, problem


def _check_rescale(scale: Rescale) -> None:
    if not _SLOPES[0] <= scale.slope <= _SLOPES[1]:
        raise TagError(f"has a RescaleSlope of {scale.slope:g}, which no CT has")
    if abs(scale.intercept) > _MOST_INTERCEPT:
        raise TagError(f"has a RescaleIntercept of {scale.intercept:g}, which no CT has")
    if scale.unit in _OTHER_UNITS:
        raise TagError(f"holds values of RescaleType {scale.unit}, not HU")


def _frames(data: Any) -> int:
    frames = tags.integer(data, "NumberOfFrames")
    if frames is not None and frames < 0:
        raise TagError(f"has a NumberOfFrames of {frames}")
    return frames or 1


def _stored_pixels(file: DicomFile, rows: int, columns: int, frames: int) -> StoredPixels:
    """Read how pixels are kept, and check that the file's numbers agree with each other and with its length."""
    data, element = file.data, file.element
    assert element is not None
    allocated, stored, sign = (
        _needed(data, keyword) for keyword in ("BitsAllocated", "BitsStored", "PixelRepresentation")
    )
    high = tags.integer(data, "HighBit")
    high = stored - 1 if high is None else high
    samples = tags.integer(data, "SamplesPerPixel") or 1
    compressed, deflated = _is_compressed(file.syntax), file.syntax == DeflatedExplicitVRLittleEndian
    if sign not in (0, 1):
        raise TagError(f"has a PixelRepresentation of {sign}, where 0 or 1 is allowed")
    if allocated not in _BITS or not 1 <= stored <= allocated:
        raise TagError(f"has BitsAllocated {allocated} and BitsStored {stored}, which do not go together")
    if not stored - 1 <= high < allocated:
        raise TagError(f"has HighBit {high} with BitsStored {stored} of {allocated}")
    if element.tag != _PIXEL_DATA:
        raise TagError("holds floating point pixels, which CT images do not have")
    if compressed != (element.length is None):
        held = "compressed" if element.length is None else "plain"
        raise TagError(f"says its pixels are {UID(file.syntax).name}, but they are {held}")
    if element.length is not None:
        _check_length(element.length, rows, columns, frames, samples * allocated)
    if element.rest:
        raise TagError(f"has {element.rest} bytes after its pixels that belong to nothing; its content was changed")
    return StoredPixels(
        offset=None if compressed else element.offset,
        big_endian=not file.little,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=sign == 1,
        samples=samples,
        padding=_padding(data, allocated, sign == 1),
        lookup=_has_lookup(data),
        deflated=deflated,
        size=file.size if compressed or deflated else 0,
    )


def _check_length(length: int, rows: int, columns: int, frames: int, bits: int) -> None:
    """Compare the length of plain pixel data with what rows, columns, frames and bits a pixel come to."""
    needed = math.ceil(rows * columns * frames * bits / 8)
    # Some exporters add a few bytes; a row or a column more means that one of the numbers is wrong.
    spare = max(1, min(rows, columns) * bits // 8 - 1)
    if not needed <= length <= needed + spare:
        raise TagError(f"has {length} bytes of pixels where Rows, Columns, frames and bits come to {needed}")


def _unlike(data: Any, element: PixelElement, rows: int, columns: int) -> str:
    """Say what the pixels should come to where they claim another length: then it is the length that is damaged."""
    parts = [tags.optional_integer(data, name) for name in ("NumberOfFrames", "SamplesPerPixel", "BitsAllocated")]
    frames, samples, bits = (part or 1 for part in parts)
    needed = math.ceil(rows * columns * frames * samples * bits / 8)
    if element.length is None or parts[2] is None or element.length in (needed, needed + 1):
        return ""
    return f", where Rows, Columns, frames and bits come to {needed}"


def _is_compressed(syntax: UID) -> bool:
    if syntax in NATIVE:
        return False
    if syntax not in AllTransferSyntaxes:
        raise TagError("has a transfer syntax that is not known")
    return True


def _has_lookup(data: Any) -> bool:
    try:
        return bool(data.get("ModalityLUTSequence"))
    except Exception as error:  # as in read_frames
        raise TagError("has a ModalityLUTSequence that cannot be read") from error


def _padding(data: Any, bits: int, signed: bool) -> tuple[int, int] | None:
    """Return the padding values as the pixels have them: files write the same bits with a sign or without."""
    value, limit = (tags.optional_integer(data, f"PixelPadding{name}") for name in ("Value", "RangeLimit"))
    if value is None:
        return None
    ends = sorted(_as_stored(end, bits, signed) for end in (value, value if limit is None else limit))
    return ends[0], ends[1]


def _as_stored(value: int, bits: int, signed: bool) -> int:
    value %= 1 << bits
    return value - (1 << bits) if signed and value >= 1 << (bits - 1) else value


def _needed(data: Any, keyword: str) -> int:
    value = tags.integer(data, keyword)
    if value is None:
        raise TagError(f"does not say its {keyword}")
    return value
