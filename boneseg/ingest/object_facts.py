"""What is known of one object of a bucket or folder: records, made by ``facts.inspect``."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from boneseg.storage.catalogue import FileKind, GeometryRecord, ObjectRef
from boneseg.storage.records import Record


class Kind(StrEnum):
    """What a file is to boneseg."""

    SLICE = "slice"
    VOLUME = "volume"
    LABEL = "label"
    NAMES = "names"
    """A table that says what the values of labels mean."""
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
    """Of a volume or label; also of a damaged volume. An RTSTRUCT has none: contours have no grid."""
    outermost: tuple[tuple[float, float, float], ...] = ()
    """Of an RTSTRUCT: points of its contours that lie outermost, LPS mm."""
    placed: bool = True
    """Of a volume file: whether it says where its voxels lie; otherwise the geometry's place is a guess."""
    hu_range: tuple[int, int] | None = None
    values: tuple[int, ...] = ()
    """Label values above 0 that occur; of a picture all values, or the least and the largest where it shows more."""
    pixels: str = ""
    """Hash of the HU: of a slice, or of all slices of a volume in order; of a label: of what is drawn."""
    referenced_series: str = ""
    """Of a DICOM label: keyed hash of the series that it was drawn on, as ``series`` of that series' slices."""
    referenced_images: tuple[str, ...] = ()
    """Of a DICOM label: keyed hashes (``image``) of the SOPInstanceUIDs of the images that it was drawn on."""
    listed_images: tuple[str, ...] = ()
    """Of a DICOM SEG: keyed hashes of all images of the series that it names, where these are more than the former."""
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
    """Of a segmentation or a table of names: value -> name, as it is: facts never leave the raw data."""
    grey_shape: tuple[int, int, int] | None = None
    """Of a picture: rows, columns and bits."""
    shades: int = 0
    """Of a picture: how many different values it has."""
    slices: tuple[ObjectRef, ...] = ()
    """Of a volume or label made of pictures: these, the lowest first."""
    window: tuple[float, float] | None = None
    """Of such a volume: HU of the value 0, and of the largest that the pictures can hold."""
    data_file: str = ""
    """Of a detached header: name of the file beside it that holds the voxels."""
    data: ObjectRef | None = None
    """That file; none while it is not known."""
    is_picture: bool = False
    """Whether a file that is not used shows a patient all the same: a label beside it may be drawn on it."""
    warnings: tuple[str, ...] = ()
    """What is odd about a volume or label that can be used."""
    prints: tuple[str, ...] = ()
    """Hash of the HU of each slice, however it is turned or mirrored; empty for a slice that shows next to nothing."""

    @property
    def is_segmentation(self) -> bool:
        """Whether the file itself says which of its values is which structure."""
        if self.file is None or self.file == FileKind.NIFTI:
            return False  # a table of names in a NIfTI file makes it no format of its own
        return self.file.names_structures or bool(self.segments)

    @property
    def is_crop(self) -> bool:
        """Whether its grid may be a part of the series', around what is drawn: 3D Slicer saves no more than that."""
        return self.is_segmentation and self.file == FileKind.NRRD

    @property
    def objects(self) -> tuple[ObjectRef, ...]:
        """The objects that the file is made of, a detached header before its voxels."""
        return self.slices or ((self.ref,) if self.data is None else (self.ref, self.data))
