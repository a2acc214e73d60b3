"""Label volumes as DICOM SEG: writing. ``segmentation`` reads them. The only place that imports highdicom."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping, Sequence
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
from boneseg.dicom.header import CT_IMAGE
from boneseg.errors import SeriesError
from boneseg.geometry import Geometry

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
