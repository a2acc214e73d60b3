"""Label volumes as DICOM SEG, in and out (the only place that imports highdicom)."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DT

from boneseg.dicom.ct import orientation_of, position_of
from boneseg.dicom.header import CT_IMAGE, damaged, read_header
from boneseg.errors import LabelError, SeriesError
from boneseg.geometry import Geometry, from_dicom

# highdicom logs the UIDs and names that it copies.
logging.getLogger("highdicom").setLevel(logging.ERROR)

SEGMENTS: Mapping[int, str] = {1: "patient outline", 2: "bone"}
"""Segment names by label value, as boneseg writes them."""

_CODES = {  # name -> segmented property category and type
    "patient outline": (codes.SCT.AnatomicalStructure, hd.sr.CodedConcept("38266002", "SCT", "Entire body")),
    "bone": (codes.SCT.AnatomicalStructure, codes.SCT.Bone),
}
_OTHER_TISSUE = (codes.SCT.Tissue, codes.SCT.Tissue)
_KEPT = [
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "StudyDate"),
    *("StudyTime", "AccessionNumber", "FrameOfReferenceUID", "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID"),
    *("SeriesInstanceUID", "ImagePositionPatient"),
]
_SAME_POSITION_MM = 0.1
_FRACTION = 0.5


@dataclass(frozen=True)
class _Frames:
    """What the functional groups say, frame by frame; a label map has segment 0 for all frames."""

    segments: NDArray[np.int64]
    positions: NDArray[np.float64]
    orientation: NDArray[np.float64]
    pixel_spacing: tuple[float, float]
    distance: float


def write_segmentation(
    path: Path,
    mask: NDArray[np.uint8],
    geometry: Geometry,
    sources: Sequence[Path] = (),
    segments: Mapping[int, str] = SEGMENTS,
    created: datetime | None = None,
) -> None:
    """Write a label volume as a BINARY DICOM SEG; the file appears whole or not at all.

    Patient, study and references come from the sources. Where there are none, or their UIDs are empty or doubled,
    the references are made up from the content, so that the file is valid but belongs to no known series.

    Args:
        path: the file.
        mask: (slice, row, column); values are segment numbers, 0 is background.
        geometry: of the mask: the series' own.
        sources: CT files of the series, in any order.
        segments: name of each segment, numbered from 1 without gaps.
        created: date that the file states; now where none is given.

    Raises:
        SeriesError: the geometry cannot be written as DICOM, because rows and columns are not at right angles.
    """
    orientation = orientation_of(geometry)
    if abs(float(np.dot(orientation[:3], orientation[3:]))) > 1e-3:
        raise SeriesError(f"{path.name}: rows and columns are not at right angles; resample the volume for DICOM")
    positions = [position_of(geometry, index) for index in range(geometry.shape[0])]
    content = hashlib.sha256(np.ascontiguousarray(mask).tobytes() + geometry.affine.tobytes()).hexdigest()
    references = _references(geometry, positions, sources, content)
    data = _segmentation(mask, geometry, references, segments, content, created or datetime.now())
    partial = path.with_name(f".{path.name}.partial")
    data.save_as(partial)
    partial.replace(path)


def read_segmentation(path: Path) -> tuple[NDArray[np.uint8], Geometry, dict[int, str]]:
    """Read a DICOM SEG of type BINARY, FRACTIONAL (counted from one half) or LABELMAP.

    Files may leave out empty frames: the volume reaches from the first frame to the last, and what is missing
    between is background. Where segments overlap, the smaller one is kept: bone inside a body outline stays bone.

    Returns:
        Segment numbers (slice, row, column) sorted along the frames' normal, their geometry, and segment names.

    Raises:
        LabelError: not a segmentation of parallel, evenly spaced frames, or damaged.
    """
    data = _open(path)
    names = {int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in data.SegmentSequence}
    names.pop(0, None)
    if any(number > np.iinfo(np.uint8).max for number in names):
        raise LabelError(f"{path.name}: has segment numbers above 255; write fewer segments")
    frames = _frames(path, data)
    places, geometry = _grid(path, data, frames)
    try:
        stored = data.pixel_array.reshape(len(frames.segments), data.Rows, data.Columns)
    except Exception as error:  # each decoder has errors of its own for damaged data
        raise LabelError(str(damaged(path))) from error
    volume = np.zeros(geometry.shape, dtype=np.uint8)
    if data.SegmentationType == "LABELMAP":
        volume[places] = stored
        return volume, geometry, names
    threshold = _FRACTION * int(data.MaximumFractionalValue) if data.SegmentationType == "FRACTIONAL" else _FRACTION
    inside = stored >= threshold
    sizes = {number: int(inside[frames.segments == number].sum()) for number in names}
    for number in sorted(names, key=lambda segment: -sizes[segment]):
        for frame in np.flatnonzero(frames.segments == number):
            volume[places[frame]][inside[frame]] = number
    return volume, geometry, names


def _segmentation(
    mask: NDArray[np.uint8],
    geometry: Geometry,
    references: list[Dataset],
    segments: Mapping[int, str],
    content: str,
    moment: datetime,
) -> Any:
    frame = hd.CoordinateSystemNames.PATIENT
    positions = [position_of(geometry, index) for index in range(geometry.shape[0])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom warns about unusual patient names by printing them
        data = hd.seg.Segmentation(
            source_images=references,
            pixel_array=mask,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(number, segments[number]) for number in sorted(segments)],
            series_instance_uid=_uid(content, "series"),
            series_number=100,
            sop_instance_uid=_uid(content, "instance"),
            instance_number=1,
            manufacturer="boneseg",
            manufacturer_model_name="boneseg",
            software_versions=version("boneseg"),
            device_serial_number="0",
            content_label="BONESEG",
            series_description="boneseg segmentation",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            pixel_measures=hd.PixelMeasuresSequence(geometry.spacing[1:], geometry.spacing[0], geometry.spacing[0]),
            plane_orientation=hd.PlaneOrientationSequence(frame, orientation_of(geometry)),
            plane_positions=[hd.PlanePositionSequence(frame, position) for position in positions],
            omit_empty_frames=False,  # so that the whole geometry can be read back
            content_date=moment.date(),
            content_time=moment.time(),
        )
    data.InstanceCreationDate, data.InstanceCreationTime = data.ContentDate, data.ContentTime
    # highdicom puts its own clock and a random UID in; the same content and date must give the same file.
    for equipment in data.ContributingEquipmentSequence:
        equipment.ContributionDateTime = DT(moment)
    for item in (*data.DimensionOrganizationSequence, *data.DimensionIndexSequence):
        item.DimensionOrganizationUID = _uid(content, "dimensions")
    return data


def _open(path: Path) -> Any:
    try:
        header = read_header(path)
    except SeriesError as error:
        raise LabelError(str(error)) from error
    if header is None or not header.is_seg:
        raise LabelError(f"{path.name}: not a DICOM SEG file")
    return pydicom.dcmread(path, force=True)


def _frames(path: Path, data: Any) -> _Frames:
    per_frame = data.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    shared = (data.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    try:
        planes = [_group(frame, shared, "PlanePositionSequence").ImagePositionPatient for frame in per_frame]
        turns = [_group(frame, shared, "PlaneOrientationSequence").ImageOrientationPatient for frame in per_frame]
        measures = _group(per_frame[0], shared, "PixelMeasuresSequence")
        if data.SegmentationType == "LABELMAP":
            numbers = [0] * len(planes)
        else:
            identities = [_group(frame, shared, "SegmentIdentificationSequence") for frame in per_frame]
            numbers = [int(identity.ReferencedSegmentNumber) for identity in identities]
        rows, columns = (float(value) for value in measures.PixelSpacing)
        positions = np.array(planes, dtype=np.float64).reshape(-1, 3)
        orientations = np.array(turns, dtype=np.float64).reshape(-1, 6)
    except (KeyError, AttributeError, ValueError, TypeError) as error:
        raise LabelError(f"{path.name}: a frame has no position, orientation, spacing or segment ({error})") from error
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        raise LabelError(f"{path.name}: frames are not parallel; write the segmentation on the slices of its series")
    distance = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1.0
    return _Frames(np.array(numbers), positions, orientations[0], (rows, columns), float(distance))


def _group(frame: Any, shared: Any, keyword: str) -> Any:
    """Return the first item of a functional group, which stands at the frame or is shared by all frames."""
    return (frame.get(keyword) or shared[keyword].value)[0]


def _grid(path: Path, data: Any, frames: _Frames) -> tuple[NDArray[np.int64], Geometry]:
    """Return the slice that each frame belongs to, and the geometry from the first slice to the last."""
    normal = np.cross(frames.orientation[:3], frames.orientation[3:])
    distances = frames.positions @ normal
    order = np.argsort(distances, kind="stable")
    gaps = np.diff(distances[order])
    real = gaps[gaps > _SAME_POSITION_MM]
    step = float(np.median(real[real < 1.5 * real.min()])) if real.size else frames.distance
    multiples = np.rint(gaps / step)
    if np.abs(gaps - multiples * step).max(initial=0.0) > max(_SAME_POSITION_MM, 0.1 * step):
        raise LabelError(f"{path.name}: frames are unevenly spaced; write the segmentation on the slices of its series")
    places = np.zeros(len(distances), dtype=np.int64)
    places[order[1:]] = np.cumsum(multiples)
    count = int(places.max()) + 1
    first, last = frames.positions[order[0]], frames.positions[order[-1]]
    corners = np.linspace(first, last, count) if count > 1 else first[np.newaxis]
    return places, from_dicom(
        corners, frames.orientation, frames.pixel_spacing, int(data.Rows), int(data.Columns), frames.distance
    )


def _references(
    geometry: Geometry, positions: list[list[float]], sources: Sequence[Path], content: str
) -> list[Dataset]:
    """Return one source image a slice, as highdicom wants them: the given files, or made up where they do not serve."""
    given = [pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_KEPT)) for path in sources]
    matched = _matched(positions, given)
    first = given[0] if given else Dataset()
    return [
        _reference(geometry, matched[index] if matched else first, content, index, own=matched is not None)
        for index in range(len(positions))
    ]


def _matched(positions: list[list[float]], given: list[Any]) -> list[Any] | None:
    """Return the source image of each slice; None where one is missing or has no identity of its own."""
    placed = [data for data in given if data.get("ImagePositionPatient")]
    if not placed:
        return None
    places = np.array([[float(value) for value in data.ImagePositionPatient] for data in placed])
    found = []
    for position in positions:
        away = np.linalg.norm(places - position, axis=1)
        if away.min() > _SAME_POSITION_MM:
            return None
        found.append(placed[int(away.argmin())])
    uids = {str(data.get("SOPInstanceUID") or "") for data in found}
    named = all(data.get("SeriesInstanceUID") and data.get("StudyInstanceUID") for data in found)
    return found if named and "" not in uids and len(uids) == len(found) else None


def _reference(geometry: Geometry, source: Any, content: str, index: int, own: bool) -> Dataset:
    """Return the header of one source image; ``own`` says whether the source is this very slice."""
    image = Dataset()
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "StudyID", "AccessionNumber"):
        setattr(image, keyword, source.get(keyword) or "")
    image.StudyDate, image.StudyTime = source.get("StudyDate") or None, source.get("StudyTime") or None
    sex = str(source.get("PatientSex") or "")
    image.PatientSex = sex if sex in ("M", "F", "O") else ""
    if source.get("SpecificCharacterSet"):
        image.SpecificCharacterSet = source.SpecificCharacterSet
    image.StudyInstanceUID = source.get("StudyInstanceUID") or _uid(content, "study")
    image.FrameOfReferenceUID = source.get("FrameOfReferenceUID") or _uid(content, "frame")
    image.SeriesInstanceUID = source.SeriesInstanceUID if own else _uid(content, "source")
    image.SOPInstanceUID = source.SOPInstanceUID if own else _uid(content, "source", str(index))
    image.SOPClassUID = (own and source.get("SOPClassUID")) or CT_IMAGE
    image.Modality = "CT"
    image.Rows, image.Columns = geometry.shape[1:]
    image.ImagePositionPatient = position_of(geometry, index)
    image.ImageOrientationPatient = orientation_of(geometry)
    image.PixelSpacing = list(geometry.spacing[1:])
    image.SliceThickness = geometry.spacing[0]
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def _description(number: int, name: str) -> hd.seg.SegmentDescription:
    category, kind = _CODES.get(name, _OTHER_TISSUE)
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="boneseg", version=version("boneseg"), family=codes.DCM.ArtificialIntelligence
        ),
    )


def _uid(*parts: str) -> str:
    return str(generate_uid(entropy_srcs=["boneseg segmentation", *parts]))
