"""What one file is, by its content: a CT slice, a CT volume, a label, or something else. Names play no part."""

from __future__ import annotations

import errno
import math
from enum import StrEnum
from pathlib import Path, PurePosixPath

from pydantic import Field

from boneseg.dicom.file import remains
from boneseg.dicom.header import CT_CLASSES, SECONDARY_CAPTURES, SEGMENTATIONS, SliceHeader, read_frames
from boneseg.dicom.marks import MARKS, TIMES, Marks, read_identity, read_marks
from boneseg.dicom.pixels import WINDOWED, is_windowed, read_planes
from boneseg.dicom.segmentation import what_is_drawn
from boneseg.dicom.segmentation_frames import read_seg_header
from boneseg.dicom.segments import read_segment_names
from boneseg.dicom.series import check_frames, read_slice, sort_slices
from boneseg.errors import BonesegError, LabelError, SeriesError, quoted
from boneseg.ingest.anatomy import best_name, known_words
from boneseg.ingest.formats import UNKNOWN, ZEROS, foreign_format
from boneseg.ingest.volumes import Survey, slice_print
from boneseg.nifti import is_nifti, read_pieces
from boneseg.nifti import read_header as read_nifti_header
from boneseg.storage.catalogue import FileKind, GeometryRecord, ObjectRef
from boneseg.storage.hashing import combine, pseudonym, sha256_array
from boneseg.storage.records import Record

FACTS_VERSION = 3
"""Rises when the same file gives other facts than before, so that old ones are not re-used."""

_MARK_DIGITS = 8
_START = 512
_DOCUMENTS = (b"%PDF", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"\xd0\xcf\x11\xe0")
"""How files start that are pictures and texts for people."""
_VOLUMES = (b"NRRD", b"ObjectType", b"NDims")
"""How volumes start whose headers are text."""
_LONGEST_MOVE_S = 100 * 365 * 86400
_OF_THE_MACHINE = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOSPC}
_MODALITIES = "CR DOC DX IVUS KO MG MR NM OCT OT PR PT REG RF RTDOSE RTIMAGE RTPLAN SC SEG SM SR US XA"
MODALITIES = frozenset(_MODALITIES.split())
"""What DICOM defines; other words in its place may be anybody's."""


class Kind(StrEnum):
    """What a file is to boneseg."""

    SLICE = "slice"
    VOLUME = "volume"
    LABEL = "label"
    IGNORED = "ignored"
    """Neither CT nor label; ``reason`` says what."""
    BROKEN = "broken"
    """Looks like CT or a label, but cannot be used; ``reason`` says why."""


class Plane(Record):
    """Where a DICOM slice lies; what the file does not say is None."""

    rows: int
    columns: int
    position: tuple[float, float, float] | None
    orientation: tuple[float, float, float, float, float, float] | None
    pixel_spacing: tuple[float, float] | None
    rescaled: bool

    @property
    def is_placed(self) -> bool:
        """Whether the file tells where in the patient the slice is."""
        spaced = self.pixel_spacing is not None and min(self.pixel_spacing) > 0
        return spaced and self.position is not None and self.orientation is not None


class ObjectFacts(Record):
    """What is known of one object. Identifiers are keyed hashes; where the file has none they are empty."""

    ref: ObjectRef
    kind: Kind
    file: FileKind | None = None
    reason: str = ""
    patient: str = ""
    study: str = ""
    series: str = ""
    series_number: int | None = None
    plane: Plane | None = None
    """Of a slice."""
    geometry: GeometryRecord | None = None
    """Of a volume or label; also of a damaged volume."""
    placed: bool = True
    """Of a NIfTI file: whether it says where its voxels lie; otherwise the geometry's place is a guess."""
    hu_range: tuple[int, int] | None = None
    values: tuple[int, ...] = ()
    """Label values above 0 that occur."""
    pixels: str = ""
    """Hash of the HU: of a slice, or of all slices of a volume in order; of a label: of what is drawn."""
    referenced_series: str = ""
    """Of a DICOM SEG: keyed hash of the series that it was drawn on, as ``series`` of that series' slices."""
    referenced_images: tuple[str, ...] = ()
    """Of a DICOM SEG: keyed hashes (``image``) of the SOPInstanceUIDs of the images that it was drawn on."""
    frame_of_reference: str = ""
    """Keyed hash (``frame``) of FrameOfReferenceUID."""
    image: str = ""
    """Of a slice: keyed hash of its SOPInstanceUID."""
    marks: tuple[str, ...] = ()
    """Of a slice: keyed hashes, 8 digits, of what says which pass it is of: ``marks.MARKS``; empty where not said."""
    orders: tuple[float | None, ...] = ()
    """Of a slice: ``marks.ORDERS``; times are moved by a keyed span, one for a study: only differences are kept."""
    images: int | None = None
    """Of a slice: how many images its acquisition has, where the file says so."""
    segments: dict[int, str] = Field(default_factory=dict)
    """Of a DICOM SEG: value -> what of the segment's name is a word of anatomy."""
    is_picture: bool = False
    """Whether a file that is not used shows a patient all the same: a label beside it may be drawn on it."""
    warnings: tuple[str, ...] = ()
    """What is odd about a volume or label that can be used."""
    prints: tuple[str, ...] = ()
    """Hash of the HU of each slice, however it is turned or mirrored; empty for a slice that shows next to nothing."""


def inspect(path: Path, ref: ObjectRef, secret: bytes) -> ObjectFacts:
    """Find out what a file is.

    Args:
        path: the file; its name plays no part.
        ref: the object that the file is a copy of.
        secret: of the keyed hashes that stand for patient, study and series.
    """
    broken = ObjectFacts(ref=ref, kind=Kind.BROKEN)
    try:
        if is_nifti(path):
            broken = broken.model_copy(update={"file": FileKind.NIFTI})
            return _nifti(path, ref)
        broken = broken.model_copy(update={"file": FileKind.DICOM})
        frames = read_frames(path)
        if frames is None:
            return _unrecognised(path, broken)
        return _dicom(path, ref, frames, secret)
    except (SeriesError, LabelError) as error:
        if broken.file == FileKind.DICOM:
            broken = _identified(path, broken, secret)
        # The local copy has a name of its own; people know the object by its key, which stands beside the reason.
        reason = str(error).removeprefix(f"{path.name}: ").replace(path.name, PurePosixPath(ref.key).name)
    except MemoryError:
        reason = "reading it takes more memory than there is; read it on a larger machine"
    except Exception as error:  # whatever one file makes of the libraries that read it, the others go on
        if isinstance(error, BonesegError) or (isinstance(error, OSError) and error.errno in _OF_THE_MACHINE):
            raise
        reason = f"cannot be read ({type(error).__name__}), though it looks whole; export it again, and report this"
    return broken.model_copy(update={"reason": reason})


def _unrecognised(path: Path, broken: ObjectFacts) -> ObjectFacts:
    reason = foreign_format(path, broken.ref.key)
    if reason == UNKNOWN and (damage := remains(path)):
        return broken.model_copy(update={"reason": damage})
    with path.open("rb") as file:
        start = file.read(_START)
    # What is no text may be an image in a format that is not read: a label beside it must go to no other series.
    binary = b"\0" in start and not start.startswith(_DOCUMENTS) and reason != ZEROS
    is_picture = binary or start.startswith(_VOLUMES)
    return ObjectFacts(ref=broken.ref, kind=Kind.IGNORED, reason=reason, is_picture=is_picture)


def _dicom(path: Path, ref: ObjectRef, frames: list[SliceHeader], secret: bytes) -> ObjectFacts:
    header = frames[0]
    if header.is_seg:
        seg = read_seg_header(path)
        values, pixels = what_is_drawn(path, seg)
        return ObjectFacts(
            ref=ref,
            kind=Kind.LABEL,
            file=FileKind.DICOM_SEG,
            geometry=GeometryRecord.of(seg.geometry),
            values=values,
            pixels=pixels,
            segments={value: known_words(best_name(*names)) for value, names in read_segment_names(path).items()},
            patient=_keyed(secret, "patient", header.patient_id),
            study=_keyed(secret, "study", header.study_uid),
            referenced_series=_keyed(secret, "series", seg.references.series),
            referenced_images=tuple(_keyed(secret, "image", uid) for uid in seg.references.images),
            frame_of_reference=_keyed(secret, "frame", seg.references.frame_of_reference),
        )
    reason = _not_ct(header)
    if reason is not None:
        is_picture = header.rows > 0 and header.position is not None
        return ObjectFacts(ref=ref, kind=Kind.IGNORED, reason=reason, is_picture=is_picture)
    marks = read_marks(path)
    if marks.localizer:
        return ObjectFacts(ref=ref, kind=Kind.IGNORED, reason="a localizer (scout) is no slice of a volume")
    if header.frames > 1:
        return _frames(path, ref, frames, secret)
    hu = read_slice(path)
    return ObjectFacts(
        ref=ref,
        kind=Kind.SLICE,
        file=FileKind.DICOM,
        patient=_keyed(secret, "patient", header.patient_id),
        study=_keyed(secret, "study", header.study_uid),
        series=_keyed(secret, "series", header.series_uid),
        series_number=header.series_number,
        plane=Plane(
            rows=header.rows,
            columns=header.columns,
            position=header.position,
            orientation=header.orientation,
            pixel_spacing=header.pixel_spacing,
            rescaled=header.rescaled,
        ),
        hu_range=(int(hu.min()), int(hu.max())),
        pixels=sha256_array(hu),
        frame_of_reference=_keyed(secret, "frame", header.frame_of_reference),
        image=_keyed(secret, "image", header.instance_uid),
        marks=tuple(_keyed(secret, name, text)[:_MARK_DIGITS] for name, text in zip(MARKS, marks.texts, strict=True)),
        orders=_moved(marks, secret, header.study_uid),
        images=marks.images,
        prints=(slice_print(hu),),
    )


def _moved(marks: Marks, secret: bytes, study: str) -> tuple[float | None, ...]:
    """Return numbers and times by which slices have an order, the times moved so that no date is left in them."""
    span = int(pseudonym(secret, "time", study), 16) % _LONGEST_MOVE_S
    return tuple(
        value if value is None or index not in TIMES else round(value - span, 3)
        for index, value in enumerate(marks.orders)
    )


def _identified(path: Path, broken: ObjectFacts, secret: bytes) -> ObjectFacts:
    """Add what a file that cannot be read still says of itself: a SEG is no CT, and a SEG may reference it."""
    identity = read_identity(path)
    return broken.model_copy(
        update={
            "file": FileKind.DICOM_SEG if identity.sop_class in SEGMENTATIONS else FileKind.DICOM,
            "patient": _keyed(secret, "patient", identity.patient),
            "study": _keyed(secret, "study", identity.study),
            "series": _keyed(secret, "series", identity.series),
            "image": _keyed(secret, "image", identity.image),
        }
    )


def _frames(path: Path, ref: ObjectRef, frames: list[SliceHeader], secret: bytes) -> ObjectFacts:
    """Return the facts of a file that holds a volume, frame by frame: Enhanced CT."""
    check_frames(path, frames)
    series = sort_slices(frames, max_gap=math.inf, max_tilt_degrees=90)
    low, high = math.inf, -math.inf
    hashes: list[str] = []
    prints: list[str] = []
    for hu in read_planes(path, frames):
        low, high = min(low, int(hu.min())), max(high, int(hu.max()))
        hashes.append(sha256_array(hu))
        prints.append(slice_print(hu))
    header = frames[0]
    return ObjectFacts(
        ref=ref,
        kind=Kind.VOLUME,
        file=FileKind.DICOM,
        patient=_keyed(secret, "patient", header.patient_id),
        study=_keyed(secret, "study", header.study_uid),
        series=_keyed(secret, "series", header.series_uid),
        series_number=header.series_number,
        geometry=GeometryRecord.of(series.geometry),
        hu_range=(int(low), int(high)),
        pixels=combine(hashes[index] for index in series.order),
        frame_of_reference=_keyed(secret, "frame", header.frame_of_reference),
        image=_keyed(secret, "image", header.instance_uid),
        prints=tuple(prints[index] for index in series.order),
    )


def _not_ct(header: SliceHeader) -> str | None:
    """Return why a DICOM file is no CT slice, in words; none where it is one."""
    captured = header.sop_class.startswith(SECONDARY_CAPTURES)
    if captured and (header.position is None or header.pixels is None or header.pixels.bits_stored <= 8):
        return "secondary captures (screenshots, pictures with a window applied) hold no HU; export the original CT"
    if header.sop_class in CT_CLASSES:
        return WINDOWED if is_windowed(header) else None
    return _other_object(header)


def _other_object(header: SliceHeader) -> str | None:
    if header.modality == "RTSTRUCT":
        return "RTSTRUCT contours are not read; convert them to DICOM SEG or NIfTI"
    if header.modality == "SEG":
        return "a segmentation of another kind than DICOM SEG; export it again as DICOM SEG or NIfTI"
    if header.modality and header.modality != "CT":
        return f"modality {header.modality if header.modality in MODALITIES else quoted(header.modality)} is not CT"
    if header.rows == 0:
        return "a DICOM file without an image (DICOMDIR, report or plan)"
    if header.position is None:
        return "images without a place in the patient (screenshots, dose reports) are not CT slices"
    return None if header.modality == "CT" else "images of unknown modality are not used"


def _keyed(secret: bytes, kind: str, identifier: str) -> str:
    return pseudonym(secret, kind, identifier) if identifier else ""


def _nifti(path: Path, ref: ObjectRef) -> ObjectFacts:
    header = read_nifti_header(path)
    geometry = GeometryRecord.of(header.geometry)
    known = ObjectFacts(ref=ref, kind=Kind.BROKEN, file=FileKind.NIFTI, geometry=geometry, placed=header.placed)
    survey = Survey()
    try:
        for piece in read_pieces(path, header):
            survey.add(piece.slice, header.geometry.shape[1], piece.values)
        warnings = (*header.warnings, *survey.warnings())
        if survey.is_label:
            values, pixels = survey.label_values(), survey.pixels()
            return known.model_copy(
                update={"kind": Kind.LABEL, "values": values, "pixels": pixels, "warnings": warnings}
            )
        hu_range = survey.hu_range()
    except SeriesError as error:
        # Where the file was CT, its place matters: its label must not go to a neighbour.
        reason = str(error).removeprefix(f"{path.name}: ")
        return known.model_copy(update={"reason": reason, **({} if survey.was_ct else {"geometry": None})})
    return known.model_copy(
        update={"kind": Kind.VOLUME, "hu_range": hu_range, "pixels": survey.pixels(), "warnings": warnings}
    ).model_copy(update={"prints": survey.prints()})
