"""What pull finds in a bucket: one row a CT series. No patient name, number or date appears in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

import numpy as np

from boneseg.geometry import Geometry, Uneven
from boneseg.settings.schema import Split
from boneseg.storage.hashing import combine
from boneseg.storage.records import Record


class GeometryRecord(Record):
    """A geometry as JSON."""

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, float, float, float], ...]
    uneven_axis: int | None = None
    """Axis along which voxels are not evenly apart; none = the affine says it all."""
    offsets: tuple[float, ...] = ()
    """Mm from the first of these voxels to each of them."""

    @staticmethod
    def of(geometry: Geometry) -> GeometryRecord:
        """Write down a geometry."""
        rows = tuple(tuple(float(value) for value in row) for row in geometry.affine)
        uneven = geometry.uneven
        return GeometryRecord(
            shape=geometry.shape,
            affine=rows,  # type: ignore[arg-type]
            uneven_axis=None if uneven is None else uneven.axis,
            offsets=() if uneven is None else uneven.offsets,
        )

    def geometry(self) -> Geometry:
        """Read the geometry back."""
        uneven = None if self.uneven_axis is None else Uneven(self.uneven_axis, self.offsets)
        return Geometry(self.shape, np.array(self.affine, dtype=np.float64), uneven)


class FileKind(StrEnum):
    """How a series or label is stored."""

    DICOM = "dicom"
    NIFTI = "nifti"
    DICOM_SEG = "dicom_seg"


class ToldBy(StrEnum):
    """What told one patient from another."""

    PATIENT_ID = "PatientID"
    STUDY = "study"
    """DICOM without a PatientID: series of one StudyInstanceUID are one patient."""
    BIDS = "BIDS subject"
    FOLDER = "folder"
    FILE = "file"
    """Nothing tells: each series counts as a patient of its own."""
    TABLE = "patients.csv"


class ObjectRef(Record):
    """One object, with the hash of its bytes."""

    key: str = ""
    """Empty for a raw object in a record outside the raw data: its key may name a person, its content finds it."""
    size: int
    etag: str
    sha256: str


class LabelPart(Record):
    """One of several masks that are the label of a series together."""

    kind: FileKind
    object: ObjectRef
    bone: tuple[int, ...]
    """Values that are bone."""
    outline: tuple[int, ...] = ()
    """Values that are the patient's outline; all others are background."""
    in_order: bool = False
    """As that of ``LabelRow``."""


class LabelRow(Record):
    """The label of a series."""

    kind: FileKind
    object: ObjectRef
    values: tuple[int, ...]
    """Values above 0 that occur: label values of a NIfTI file, segment numbers of a DICOM SEG."""
    parts: tuple[LabelPart, ...] = ()
    """Masks of single structures that are joined, ``object`` the first of them; empty for a label in one file."""
    drawn: str = ""
    """Hash of what is drawn, whatever file holds it; empty in records of earlier versions."""
    in_order: bool = False
    """Whether voxels are those of the series in the order in which both are stored: one does not say where it lies."""

    @property
    def content(self) -> str:
        """Hash of what the label is made of: of the file, or of all parts and what their values are."""
        if not self.parts:
            return self.object.sha256
        return combine(f"{part.kind} {part.object.sha256} {part.bone} {part.outline}" for part in self.parts)

    @property
    def objects(self) -> tuple[ObjectRef, ...]:
        """All raw objects of the label."""
        return tuple(part.object for part in self.parts) or (self.object,)

    def with_objects(self, change: Callable[[ObjectRef], ObjectRef]) -> LabelRow:
        """Return the same label with its raw objects, of all parts, written in another way."""
        parts = tuple(part.model_copy(update={"object": change(part.object)}) for part in self.parts)
        return self.model_copy(update={"object": change(self.object), "parts": parts})


class SeriesRow(Record):
    """One CT series of the bucket."""

    series: str
    """Content hash: the series' name everywhere."""
    source: str
    """Where the series lies: folder (DICOM) or file (NIfTI) below the raw prefix; in the catalogue its stand-in, which
    ``storage.names`` leads back."""
    kind: FileKind
    objects: tuple[ObjectRef, ...]
    patient: str
    """Keyed hash of the patient."""
    study: str
    """Keyed hash of the study."""
    modality: str
    geometry: GeometryRecord
    """As read: DICOM slices sorted along their normal; not yet in axial order."""
    hu_range: tuple[int, int]
    label: LabelRow | None
    patient_by: str = ""
    """One of ``ToldBy``; empty in records of earlier versions."""
    asked: Split | None = None
    """Split that the table of patients asks for."""
    pixels: str = ""
    """Hash of the whole volume, whatever the order of its axes; empty in records of earlier versions."""
    links: tuple[str, ...] = ()
    """Keys of patients and studies under which the same pictures were found."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres as (slice, row, column)."""
        return self.geometry.geometry().spacing

    @property
    def orientation(self) -> str:
        """Direction in which slice, row and column indices grow, such as ``SPL``."""
        return self.geometry.geometry().orientation


class Problem(Record):
    """Something in the data that cannot be used as it is."""

    source: str
    """The object, series or label: its path below the raw prefix, in what is stored its stand-in."""
    reason: str
    """One sentence with the fix."""
    fatal: bool = True
    """Whether it is left out; otherwise it is used and the reason is a warning."""


class Catalogue(Record):
    """All series of a bucket at one time."""

    series: tuple[SeriesRow, ...]
    problems: tuple[Problem, ...]
    overrides_hash: str = ""
    """Of the tables of patients behind it; empty without one."""
    fingerprint: str = ""
    """Its name; empty in records of earlier versions."""


def patients_sentence(patients: Iterable[tuple[str, str]]) -> str:
    """Say how patients were told apart, such as ``5 patients: 3 by PatientID, 2 by file (...)``.

    Args:
        patients: key of the patient and ``patient_by`` of each series.
    """
    by: dict[str, set[str]] = {}
    for patient, rule in patients:
        by.setdefault(rule, set()).add(patient)
    total = len(set().union(*by.values()))
    rules = [rule for rule in (*ToldBy, "") if rule in by]
    parts = [f"{len(by[rule])} by {_RULES.get(rule, rule)}" for rule in rules]
    text = f"{total} {'patient' if total == 1 else 'patients'}: {', '.join(parts)}"
    if len(by.get(ToldBy.FILE, ())) > 1:
        text += "; if several of these files are of one person, say so in patients.csv"
    return text


_RULES = {
    ToldBy.STUDY: "study (no PatientID)",
    ToldBy.FILE: "file (each counts as a patient of its own)",
    "": "an earlier version",
}
