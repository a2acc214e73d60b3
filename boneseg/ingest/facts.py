"""What one file is, by its content: a CT slice, a CT volume, a label, or something else. Names play no part."""

from __future__ import annotations

import errno
import math
from pathlib import Path, PurePosixPath

import numpy as np

from boneseg.dicom.contours import read_structures
from boneseg.dicom.file import remains
from boneseg.dicom.header import SliceHeader, read_frames
from boneseg.dicom.marks import MARKS, TIMES, Marks, read_identity, read_marks
from boneseg.dicom.pixels import WINDOWED, is_windowed, read_planes
from boneseg.dicom.segmentation import what_is_drawn
from boneseg.dicom.segmentation_frames import read_seg_header
from boneseg.dicom.segmentation_references import References
from boneseg.dicom.segments import read_segment_names
from boneseg.dicom.series import check_frames, read_slice, sort_slices
from boneseg.dicom.sop_classes import CT_CLASSES, SECONDARY_CAPTURES, SEGMENTATIONS, STRUCTURE_SETS
from boneseg.errors import BonesegError, LabelError, SeriesError, quoted
from boneseg.ingest.anatomy import best_name
from boneseg.ingest.formats import UNKNOWN, ZEROS, foreign_format
from boneseg.ingest.label_names import read_names
from boneseg.ingest.object_facts import Kind, ObjectFacts, Plane
from boneseg.ingest.rtstruct_regions import region_names
from boneseg.ingest.slicer_label import what_is_drawn as what_segments_draw
from boneseg.ingest.volume_files import VolumeFile, open_volume, volume_kind
from boneseg.ingest.volumes import Survey, slice_print
from boneseg.nifti import read_label_table
from boneseg.png import is_png, read_png
from boneseg.storage.catalogue import FileKind, GeometryRecord, ObjectRef
from boneseg.storage.hashing import combine, pseudonym, sha256_array

FACTS_VERSION = 4
"""Rises when the same file gives other facts than before, so that old ones are not re-used."""

_MARK_DIGITS = 8
_START = 512
_MOST_SHADES = 256
_DOCUMENTS = (b"%PDF", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"\xd0\xcf\x11\xe0")
"""How files start that are pictures and texts for people."""
_LONGEST_MOVE_S = 100 * 365 * 86400
_OF_THE_MACHINE = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOSPC}
_MODALITIES = "CR DOC DX IVUS KO MG MR NM OCT OT PR PT REG RF RTDOSE RTIMAGE RTPLAN SC SEG SM SR US XA"
MODALITIES = frozenset(_MODALITIES.split())
"""What DICOM defines; other words in its place may be anybody's."""


def inspect(path: Path, ref: ObjectRef, secret: bytes, data: tuple[Path, ObjectRef] | None = None) -> ObjectFacts:
    """Find out what a file is.

    Args:
        path: the file; its name plays no part.
        ref: the object that the file is a copy of.
        secret: of the keyed hashes that stand for patient, study and series.
        data: of a detached header, the file with its voxels; without it such a header cannot be used.
    """
    broken = ObjectFacts(ref=ref, kind=Kind.BROKEN, data=data[1] if data is not None else None)
    try:
        if (kind := volume_kind(path)) is not None:
            broken = broken.model_copy(update={"file": kind})
            return _volume(open_volume([path, *([data[0]] if data is not None else [])]), broken)
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
    if names := read_names(path):
        return ObjectFacts(ref=broken.ref, kind=Kind.NAMES, segments=names)
    reason = foreign_format(path, broken.ref.key)
    if reason == UNKNOWN and (damage := remains(path)):
        return broken.model_copy(update={"reason": damage})
    if is_png(path):
        return _picture(path, broken.ref, reason)
    with path.open("rb") as file:
        start = file.read(_START)
    # What is no text may be an image in a format that is not read: a label beside it must go to no other series.
    binary = b"\0" in start and not start.startswith(_DOCUMENTS) and reason != ZEROS
    return ObjectFacts(ref=broken.ref, kind=Kind.IGNORED, reason=reason, is_picture=binary)


def _picture(path: Path, ref: ObjectRef, reason: str) -> ObjectFacts:
    """Return what a slice or a mask may be made of, if the settings say where it lies."""
    try:
        grey = read_png(path)
    except SeriesError as error:
        return ObjectFacts(ref=ref, kind=Kind.IGNORED, reason=str(error).removeprefix(f"{path.name}: "))
    values: list[int] = np.unique(grey).tolist()
    return ObjectFacts(
        ref=ref,
        kind=Kind.IGNORED,
        reason=reason,
        grey_shape=(grey.shape[0], grey.shape[1], 8 * grey.dtype.itemsize),
        shades=len(values),
        values=tuple(values) if len(values) <= _MOST_SHADES else (values[0], values[-1]),
        pixels=sha256_array(grey),
    )


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
            segments={value: best_name(*names) for value, names in read_segment_names(path).items()},
            patient=_keyed(secret, "patient", header.patient_id),
            study=_keyed(secret, "study", header.study_uid),
            referenced_series=_keyed(secret, "series", seg.references.series),
            referenced_images=tuple(_keyed(secret, "image", uid) for uid in seg.references.images),
            listed_images=_listed(seg.references, secret),
            frame_of_reference=_keyed(secret, "frame", seg.references.frame_of_reference),
        )
    if header.is_rtstruct:
        return _structures(path, ref, header, secret)
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


def _listed(references: References, secret: bytes) -> tuple[str, ...]:
    more = len(references.listed) > len(references.images)
    return tuple(_keyed(secret, "image", uid) for uid in references.listed) if more else ()


def _structures(path: Path, ref: ObjectRef, header: SliceHeader, secret: bytes) -> ObjectFacts:
    """Return the facts of an RTSTRUCT."""
    found = read_structures(path)
    if not found.drawn:
        reason = "an RTSTRUCT without closed contours, such as one of points for a plan, marks no bone"
        return ObjectFacts(ref=ref, kind=Kind.IGNORED, reason=reason)
    return ObjectFacts(
        ref=ref,
        kind=Kind.LABEL,
        file=FileKind.RTSTRUCT,
        outermost=tuple((x, y, z) for x, y, z in found.outermost().round(2).tolist()),
        values=found.drawn,
        pixels=found.content(),
        segments=region_names(found.regions),
        patient=_keyed(secret, "patient", header.patient_id),
        study=_keyed(secret, "study", header.study_uid),
        referenced_series=_keyed(secret, "series", found.references.series),
        referenced_images=tuple(_keyed(secret, "image", uid) for uid in found.references.images),
        frame_of_reference=_keyed(secret, "frame", found.references.frame_of_reference),
        warnings=found.warnings,
    )


def _moved(marks: Marks, secret: bytes, study: str) -> tuple[float | None, ...]:
    """Return numbers and times by which slices have an order, the times moved so that no date is left in them."""
    span = int(pseudonym(secret, "time", study), 16) % _LONGEST_MOVE_S
    return tuple(
        value if value is None or index not in TIMES else round(value - span, 3)
        for index, value in enumerate(marks.orders)
    )


def _identified(path: Path, broken: ObjectFacts, secret: bytes) -> ObjectFacts:
    """Add what a file that cannot be read still says of itself: a label is no CT."""
    identity = read_identity(path)
    return broken.model_copy(
        update={
            "file": _label_class(identity.sop_class) or FileKind.DICOM,
            "patient": _keyed(secret, "patient", identity.patient),
            "study": _keyed(secret, "study", identity.study),
            "series": _keyed(secret, "series", identity.series),
            "image": _keyed(secret, "image", identity.image),
        }
    )


def _label_class(sop_class: str) -> FileKind | None:
    if sop_class in SEGMENTATIONS:
        return FileKind.DICOM_SEG
    return FileKind.RTSTRUCT if sop_class == STRUCTURE_SETS else None


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


def _volume(volume: VolumeFile, broken: ObjectFacts) -> ObjectFacts:
    geometry = GeometryRecord.of(volume.geometry)
    update = {"geometry": geometry, "placed": volume.placed, "data_file": volume.data_file}
    known = broken.model_copy(update=update)
    if volume.data is None:
        may_be_ct = not volume.segments and volume.holds_large_numbers
        return known.model_copy(update={"reason": volume.why_missing, **({} if may_be_ct else {"geometry": None})})
    if volume.segments is not None:
        return _segmentation(volume, known)
    survey = Survey()
    try:
        for piece in volume.pieces():
            survey.add(piece.slice, volume.geometry.shape[1], piece.values)
        warnings = (*volume.warnings, *survey.warnings())
        if survey.is_label:
            values, pixels = survey.label_values(), survey.pixels()
            names = read_label_table(volume.path) if volume.kind == FileKind.NIFTI else {}
            return known.model_copy(
                update={
                    "kind": Kind.LABEL,
                    "values": values,
                    "pixels": pixels,
                    "warnings": warnings,
                    "segments": names if set(values) <= names.keys() else {},
                }
            )
        hu_range = survey.hu_range()
    except SeriesError as error:
        # Where the file was CT, its place matters: its label must not go to a neighbour.
        reason = str(error).removeprefix(f"{volume.path.name}: ")
        return known.model_copy(update={"reason": reason, **({} if survey.was_ct else {"geometry": None})})
    return known.model_copy(
        update={"kind": Kind.VOLUME, "hu_range": hu_range, "pixels": survey.pixels(), "warnings": warnings}
    ).model_copy(update={"prints": survey.prints()})


def _segmentation(volume: VolumeFile, known: ObjectFacts) -> ObjectFacts:
    try:
        if volume.geometry.shape == (1, 1, 1):  # as 3D Slicer saves it
            raise LabelError("the segmentation is empty; draw the bones, or remove it")
        values, pixels = what_segments_draw(volume)
    except LabelError as error:
        reason = str(error).removeprefix(f"{volume.path.name}: ")
        return known.model_copy(update={"reason": reason, "geometry": None})
    names = {one.number: best_name(one.name, one.code) for one in volume.segments or ()}
    return known.model_copy(
        update={
            "kind": Kind.LABEL,
            "values": values,
            "pixels": pixels,
            "segments": names,
            "warnings": volume.warnings,
        }
    )
