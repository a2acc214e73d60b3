"""What pull finds in a bucket: one row a CT series. No patient name, number or date appears in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

import numpy as np
from pydantic import Field

from boneseg.geometry import Geometry, Uneven
from boneseg.identity import stable_hash
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
    RTSTRUCT = "rtstruct"
    NRRD = "nrrd"
    METAIMAGE = "metaimage"
    PNG = "png"
    """Many pictures, one a slice."""

    @property
    def names_structures(self) -> bool:
        """Whether files of this kind are labels that say themselves how each of their structures is called."""
        return self in (FileKind.DICOM_SEG, FileKind.RTSTRUCT)

    @property
    def is_volume(self) -> bool:
        """Whether a file of this format is a grid of voxels in an order, which programs keep."""
        return self in (FileKind.NIFTI, FileKind.NRRD, FileKind.METAIMAGE)


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


class LabelFile(Record):
    """One mask of a series."""

    kind: FileKind
    object: ObjectRef
    data: ObjectRef | None = None
    """Of a detached header the file beside it with the voxels."""
    slices: tuple[ObjectRef, ...] = ()
    """Of a stack of pictures: these, the lowest first, ``object`` among them."""
    geometry: GeometryRecord | None = None
    """Of such a stack, which does not say itself where it lies."""
    in_order: bool = False
    """Whether voxels are those of the series in the order in which both are stored: one does not say where it lies."""
    whole: bool = False
    """Whether the file says that it was drawn on all slices of the series, so that those left out are background."""
    table: str = ""
    """SHA-256 of the table by which the values have their names; empty where they need none."""

    @property
    def own_objects(self) -> tuple[ObjectRef, ...]:
        """The raw objects of this mask, a header before its data."""
        return self.slices or ((self.object,) if self.data is None else (self.object, self.data))

    @property
    def own_content(self) -> str:
        """Hash of the raw objects of this mask, and of which slices it covers where it leaves some out."""
        if self.whole:
            return combine([self.object.sha256, "whole"])
        if self.slices:
            return combine([str(self.geometry), *(item.sha256 for item in self.slices)])
        return self.object.sha256 if self.data is None else combine([self.object.sha256, self.data.sha256])


class LabelPart(LabelFile):
    """One of several masks that are the label of a series together."""

    bone: tuple[int, ...]
    """Values that are bone."""
    outline: tuple[int, ...] = ()
    """Values that are the patient's outline; all others are background."""
    names: dict[int, str] = Field(default_factory=dict)
    """Value -> the words of anatomy in the name of the file or segment."""


class LabelRow(LabelFile):
    """The label of a series."""

    values: tuple[int, ...]
    """Values above 0 that occur: label values of a volume, numbers of segments or regions of a DICOM label."""
    parts: tuple[LabelPart, ...] = ()
    """Masks of single structures that are joined, ``object`` the first of them; empty for a label in one file."""
    names: dict[int, str] = Field(default_factory=dict)
    """Value -> the words of anatomy in the name of the file or segment, for a label in one file."""
    absent: tuple[str, ...] = ()
    """The words of anatomy in the names of masks that are empty: these bones were looked for and are not there."""
    drawn: str = ""
    """Hash of what is drawn, whatever file holds it; empty in records of earlier versions."""

    @property
    def content(self) -> str:
        """Hash of what the label is made of: of the file, or of all parts and what their values are."""
        if not self.parts:
            return combine([self.own_content, self.table]) if self.table else self.own_content
        texts = (f"{part.kind} {part.own_content} {part.bone} {part.outline} {part.table}" for part in self.parts)
        return combine(text.rstrip() for text in texts)

    @property
    def named(self) -> str:
        """Hash of the names by which bones are told apart."""
        parts = sorted((part.own_content, sorted(part.names.items())) for part in self.parts)
        return stable_hash([parts, sorted(self.names.items()), self.absent])

    @property
    def objects(self) -> tuple[ObjectRef, ...]:
        """All raw objects of the label."""
        return tuple(item for part in self.parts for item in part.own_objects) or self.own_objects

    def with_objects(self, change: Callable[[ObjectRef], ObjectRef]) -> LabelRow:
        """Return the same label with its raw objects, of all parts, written in another way."""

        def changed(one: LabelFile) -> dict[str, object]:
            return {
                "object": change(one.object),
                "data": None if one.data is None else change(one.data),
                "slices": tuple(change(item) for item in one.slices),
            }

        parts = tuple(part.model_copy(update=changed(part)) for part in self.parts)
        return self.model_copy(update={**changed(self), "parts": parts})


class SeriesRow(Record):
    """One CT series of the bucket."""

    series: str
    """Content hash: the series' name everywhere."""
    source: str
    """Where the series lies: folder (DICOM) or file (volume) below the raw prefix; in the catalogue its stand-in, which
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
    window: tuple[float, float] | None = None
    """Of a series of pictures: HU of the value 0, and of the largest that they can hold."""
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
