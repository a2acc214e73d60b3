"""What one file is, by its content: a CT slice, a CT volume, a label, or something else. Names play no part."""

from __future__ import annotations

import threading
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.dicom.header import CT_IMAGE, SliceHeader, read_header
from boneseg.dicom.segmentation import read_segmentation
from boneseg.dicom.series import AIR_HU, read_slice
from boneseg.errors import LabelError, SeriesError, quoted
from boneseg.nifti import is_nifti, read_first_slice, read_geometry, read_volume
from boneseg.storage.catalogue import FileKind, GeometryRecord, ObjectRef
from boneseg.storage.hashing import combine, pseudonym, sha256_array
from boneseg.storage.records import Record

FACTS_VERSION = 2
"""Rises when the same file gives other facts than before, so that old ones are not re-used."""

AIR_BELOW_HU = -200
"""A volume with values below this is CT: there is air in or around every patient."""
_MODALITIES = "CR DOC DX IVUS KO MG MR NM OCT OT PR PT REG RF RTDOSE RTIMAGE RTPLAN SC SEG SM SR US XA"
MODALITIES = frozenset(_MODALITIES.split())
"""What DICOM defines; other words in its place may be anybody's."""
MAX_LABEL_VALUES = 256
MIN_HU_SPREAD = 200
MIN_VOXEL_MM3 = 1e-6
_HIGHEST_VALUE = 65535
_volumes_at_once = threading.BoundedSemaphore(2)  # a volume is read whole, and many files are read at the same time


class Kind(StrEnum):
    """What a file is to boneseg."""

    SLICE = "slice"
    VOLUME = "volume"
    LABEL = "label"
    IGNORED = "ignored"
    """Readable, but neither CT nor label; ``reason`` says what, and is empty where it is not worth a word."""
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
    hu_range: tuple[int, int] | None = None
    values: tuple[int, ...] = ()
    """Label values above 0 that occur."""
    pixels: str = ""
    """Hash of the HU: of a slice, or of all slices of a volume in order."""
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
        header = read_header(path)
        if header is None:
            return ObjectFacts(ref=ref, kind=Kind.IGNORED)
        return _dicom(path, ref, header, secret)
    except (SeriesError, LabelError) as error:
        # The local copy has a name of its own; people know the object by its key, which stands beside the reason.
        return broken.model_copy(update={"reason": str(error).removeprefix(f"{path.name}: ")})


def _dicom(path: Path, ref: ObjectRef, header: SliceHeader, secret: bytes) -> ObjectFacts:
    if header.is_seg:
        volume, geometry, _ = read_segmentation(path)
        return ObjectFacts(
            ref=ref,
            kind=Kind.LABEL,
            file=FileKind.DICOM_SEG,
            geometry=GeometryRecord.of(geometry),
            values=_label_values(volume) or (),
        )
    reason = _not_ct(header)
    if reason is not None:
        return ObjectFacts(ref=ref, kind=Kind.IGNORED, reason=reason)
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
        prints=(slice_print(hu),),
    )


def _not_ct(header: SliceHeader) -> str | None:
    """Return why a DICOM file is no CT slice, in words; none where it is one, empty for what needs no words."""
    if header.sop_class == CT_IMAGE:
        return None
    if header.modality == "RTSTRUCT":
        return "RTSTRUCT contours are not read; convert them to DICOM SEG or NIfTI"
    if header.modality and header.modality != "CT":
        return f"modality {header.modality if header.modality in MODALITIES else quoted(header.modality)} is not CT"
    if header.pixels is None:
        return ""
    if header.position is None:
        return "images without a place in the patient (screenshots, dose reports) are not CT slices"
    return None if header.modality == "CT" else "images of unknown modality are not used"


def _keyed(secret: bytes, kind: str, identifier: str) -> str:
    return pseudonym(secret, kind, identifier) if identifier else ""


def _nifti(path: Path, ref: ObjectRef) -> ObjectFacts:
    geometry = read_geometry(path)
    if min(geometry.shape) < 1 or not abs(np.linalg.det(geometry.affine[:3, :3])) > MIN_VOXEL_MM3:
        raise SeriesError("the NIfTI header gives no voxel size or place; convert the series again")
    known = ObjectFacts(ref=ref, kind=Kind.BROKEN, file=FileKind.NIFTI, geometry=GeometryRecord.of(geometry))
    with _volumes_at_once:
        try:
            voxels = read_volume(path)[0]
        except SeriesError as error:
            # Where the file was CT, its place matters: its label must not go to a neighbour.
            first = read_first_slice(path)
            was_ct = first is not None and first.dtype.kind in "if" and np.nanmin(first) < AIR_BELOW_HU
            reason = str(error).removeprefix(f"{path.name}: ")
            return known.model_copy(update={"reason": reason} if was_ct else {"reason": reason, "geometry": None})
        return _volume(voxels, known)


def _volume(voxels: NDArray[Any], unknown: ObjectFacts) -> ObjectFacts:
    if voxels.dtype.kind not in "biuf":
        raise SeriesError("voxels are colours or complex numbers; store HU or whole label values")
    values = _label_values(voxels)
    if values is not None:
        return unknown.model_copy(update={"kind": Kind.LABEL, "values": values})
    hu = _to_hu(voxels)
    low, high = int(hu.min()), int(hu.max())
    if high - low < MIN_HU_SPREAD:
        raise SeriesError(f"values from {low} to {high} are neither HU nor labels; store HU or whole label values")
    pixels = combine(sha256_array(plane) for plane in hu)
    prints = tuple(slice_print(plane) for plane in hu)
    return unknown.model_copy(update={"kind": Kind.VOLUME, "hu_range": (low, high), "pixels": pixels, "prints": prints})


def slice_print(hu: NDArray[np.int16]) -> str:
    """Return a hash of how often each HU occurs in a slice: noise makes it the slice's own, also turned or mirrored.

    Empty where the values hardly differ: slices of nothing but air or padding are alike in many patients.
    """
    low, high = int(hu.min()), int(hu.max())
    if high - low < MIN_HU_SPREAD:
        return ""
    return combine([str(low), sha256_array(np.bincount(hu.ravel().astype(np.int32) - low))])


def _label_values(voxels: NDArray[Any]) -> tuple[int, ...] | None:
    """Return the values above 0 of a label, or None if these voxels are no label."""
    if voxels.min() < AIR_BELOW_HU or voxels.max() > _HIGHEST_VALUE:
        return None
    present = np.zeros(_HIGHEST_VALUE + 1 - AIR_BELOW_HU, dtype=bool)
    for plane in voxels:
        whole = np.rint(plane)
        if not np.array_equal(whole, plane):
            return None
        present[whole.astype(np.int64) - AIR_BELOW_HU] = True
        if np.count_nonzero(present) > MAX_LABEL_VALUES:
            return None
    return tuple(int(value) for value in np.flatnonzero(present) + AIR_BELOW_HU if value > 0)


def _to_hu(voxels: NDArray[Any]) -> NDArray[np.int16]:
    """Round and clip to int16; what is no number is outside the scanner's view, and becomes air."""
    whole = np.rint(np.where(np.isfinite(voxels), voxels, AIR_HU)) if voxels.dtype.kind == "f" else voxels
    return np.clip(whole, AIR_HU, np.iinfo(np.int16).max).astype(np.int16)
