"""What pull finds in a bucket: one row a CT series. No patient name, number or date appears in it."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from boneseg.geometry import Geometry, Uneven
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


class ObjectRef(Record):
    """One raw object, with the hash of its bytes."""

    key: str
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


class LabelRow(Record):
    """The label of a series."""

    kind: FileKind
    object: ObjectRef
    values: tuple[int, ...]
    """Values above 0 that occur: label values of a NIfTI file, segment numbers of a DICOM SEG."""
    parts: tuple[LabelPart, ...] = ()
    """Masks of single structures that are joined, ``object`` the first of them; empty for a label in one file."""

    @property
    def content(self) -> str:
        """Hash of what the label is made of: of the file, or of all parts and what their values are."""
        if not self.parts:
            return self.object.sha256
        return combine(f"{part.kind} {part.object.sha256} {part.bone} {part.outline}" for part in self.parts)


class SeriesRow(Record):
    """One CT series of the bucket."""

    series: str
    """Content hash: the series' name everywhere."""
    source: str
    """Folder below the raw prefix (DICOM) or key below it (NIfTI): where a person finds the series again."""
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
    """The object, series or label, named as a person finds it again."""
    reason: str
    """One sentence with the fix."""
    fatal: bool = True
    """Whether it is left out; otherwise it is used and the reason is a warning."""


class Catalogue(Record):
    """All series of a bucket at one time."""

    series: tuple[SeriesRow, ...]
    problems: tuple[Problem, ...]
