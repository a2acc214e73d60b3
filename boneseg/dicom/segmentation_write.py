"""Label volumes as DICOM SEG: writing. ``segmentation`` reads them. The only place that imports highdicom."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Sequence
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

from boneseg.atomic_write import atomic_write
from boneseg.dicom.copied import Image, Source, read_source
from boneseg.dicom.ct import orientation_of, position_of
from boneseg.dicom.sop_classes import CT_IMAGE
from boneseg.errors import SeriesError
from boneseg.geometry import Geometry
from boneseg.scheme import BONE_SCHEME, LabelClass, LabelScheme

# highdicom logs the UIDs and names that it copies.
logging.getLogger("highdicom").setLevel(logging.ERROR)

FEW_CLASSES = 4
_SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}
_RIGHT_ANGLE = 1e-3
_SAME_PLACE = (0.3, 1.5, 1.5)
"""How far, in slices, rows and columns, an image may lie beside the slice that it is: reading allows as much."""


@dataclass(frozen=True)
class _Plane:
    """One slice: where it lies, and the image that it is."""

    position: list[float]
    image: Image


def write_segmentation(
    path: Path,
    mask: NDArray[np.uint8],
    geometry: Geometry,
    sources: Sequence[Path] = (),
    scheme: LabelScheme = BONE_SCHEME,
    created: datetime | None = None,
) -> list[str]:
    """Write a label volume as a BINARY DICOM SEG; the file appears whole or not at all.

    Patient, study and references come from the sources; what breaks DICOM's rules there is mended or left out. Where
    there are no sources, or their UIDs are empty or doubled, the references are made up from the content, so that the
    file is valid but belongs to no known series. Slices lie where the sources lie, evenly apart or not.

    Args:
        path: the file.
        mask: (slice, row, column); values are those of the scheme, and segment numbers, 0 is background.
        geometry: of the mask: the series' own.
        sources: CT files of the series, in any order.
        scheme: names, codes and colours of the segments.
        created: date that the file states; now where none is given.

    Returns:
        What of the sources is not in the file, one sentence each, without any value.

    Raises:
        SeriesError: the geometry cannot be written as DICOM, because rows and columns are not at right angles.
    """
    reason = why_not_dicom(geometry)
    if reason is not None:
        raise SeriesError(f"{path.name}: {reason}")
    content = hashlib.sha256(np.ascontiguousarray(mask).data)
    content.update(geometry.affine.tobytes())
    source = read_source(sources)
    planes, notes = _planes(geometry, source, content.hexdigest())
    references = _references(geometry, source, planes, content.hexdigest())
    moment = created or datetime.now()
    data = _segmentation(mask, geometry, planes, references, scheme, content.hexdigest(), moment)
    with atomic_write(path, sole_writer=True) as partial:
        data.save_as(partial)
    if source.left_out:
        tags = ", ".join(source.left_out)
        notes.append(f"the DICOM SEG leaves out {tags}: what stands there in the CT breaks DICOM's rules")
    return notes


def why_not_dicom(geometry: Geometry) -> str | None:
    """Return why no DICOM file can lie on a geometry, with the fix; none where it can."""
    orientation = orientation_of(geometry)
    if abs(float(np.dot(orientation[:3], orientation[3:]))) > _RIGHT_ANGLE:
        return "rows and columns are not at right angles; resample the volume for DICOM"
    return None


def _segmentation(
    mask: NDArray[np.uint8],
    geometry: Geometry,
    planes: list[_Plane],
    references: list[Dataset],
    scheme: LabelScheme,
    content: str,
    moment: datetime,
) -> Any:
    frame = hd.CoordinateSystemNames.PATIENT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom warns about unusual patient names by printing them
        data = hd.seg.Segmentation(
            source_images=references,
            pixel_array=mask,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(number, item) for number, item in enumerate(scheme.classes) if number],
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
            pixel_measures=_measures(geometry),
            plane_orientation=hd.PlaneOrientationSequence(frame, orientation_of(geometry)),
            plane_positions=[hd.PlanePositionSequence(frame, plane.position) for plane in planes],
            # With few segments all frames are there, so that the whole geometry can be read back.
            omit_empty_frames=scheme.size > FEW_CLASSES,
            content_date=moment.date(),
            content_time=moment.time(),
        )
    data.InstanceCreationDate, data.InstanceCreationTime = data.ContentDate, data.ContentTime
    # highdicom puts its own clock and a random UID in; the same content and date must give the same file.
    for equipment in data.ContributingEquipmentSequence:
        equipment.ContributionDateTime = DT(moment)
    for item in (*data.DimensionOrganizationSequence, *data.DimensionIndexSequence):
        item.DimensionOrganizationUID = _uid(content, "dimensions")
    if planes[0].image.frame is not None:
        _refer_to_frames(data, references, planes)
    return data


def _measures(geometry: Geometry) -> Any:
    """Return the pixel measures; the distance of slices counts along their normal, and uneven slices have none."""
    normal = np.cross(orientation_of(geometry)[:3], orientation_of(geometry)[3:])
    distance = float(abs(normal @ geometry.affine[:3, 0]))
    return hd.PixelMeasuresSequence(geometry.spacing[1:], distance, None if geometry.uneven else distance)


def _planes(geometry: Geometry, source: Source, content: str) -> tuple[list[_Plane], list[str]]:
    """Return where each slice lies and which image it is: the series' own, or made up where they do not serve."""
    found = _matched(geometry, source.images)
    if found is not None:
        return [_Plane(list(image.position or ()), image) for image in found], []
    planes = []
    for index in range(geometry.shape[0]):
        image = Image(CT_IMAGE, _uid(content, "source", str(index)), _uid(content, "source"), None)
        planes.append(_Plane(position_of(geometry, index), image))
    missing = "the series' own series or SOP instance UIDs are missing, doubled or no UIDs"
    return planes, [f"the DICOM SEG refers to images that are made up: {missing}"] if source.images else []


def _matched(geometry: Geometry, images: Sequence[Image]) -> list[Image] | None:
    """Return the image of each slice; none where one is missing or has no identity of its own."""
    placed = [image for image in images if image.position is not None]
    if not placed:
        return None
    places = geometry.to_index(np.array([image.position for image in placed], dtype=np.float64))
    slices = np.rint(places[:, 0])
    off = np.abs(places - np.stack([slices, np.zeros(len(placed)), np.zeros(len(placed))], axis=1))
    near = (off <= _SAME_PLACE).all(axis=1)
    found: dict[int, Image] = {}
    for number in np.flatnonzero(near):
        found.setdefault(int(slices[number]), placed[number])
    own = [found.get(index) for index in range(geometry.shape[0])]
    named = [image for image in own if image is not None and image.series and image.instance]
    identities = {(image.instance, image.frame) for image in named}
    one_series = len({image.series for image in named}) == 1
    return named if len(identities) == geometry.shape[0] and one_series else None


def _references(geometry: Geometry, source: Source, planes: list[_Plane], content: str) -> list[Dataset]:
    """Return the header of each slice's source image, as highdicom wants them."""
    values = source.values
    shared = Dataset()
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber"):
        setattr(shared, keyword, values[keyword])
    shared.StudyDate, shared.StudyTime = values["StudyDate"] or None, values["StudyTime"] or None
    shared.SpecificCharacterSet = "ISO_IR 100" if all(text.isascii() for text in values.values()) else "ISO_IR 192"
    shared.StudyInstanceUID = values["StudyInstanceUID"] or _uid(content, "study")
    shared.FrameOfReferenceUID = values["FrameOfReferenceUID"] or _uid(content, "frame")
    shared.Modality = "CT"
    shared.Rows, shared.Columns = geometry.shape[1:]
    shared.ImageOrientationPatient = orientation_of(geometry)
    shared.PixelSpacing = list(geometry.spacing[1:])
    shared.SliceThickness = geometry.spacing[0]
    return [_reference(shared, plane, content, index) for index, plane in enumerate(planes)]


def _reference(shared: Dataset, plane: _Plane, content: str, index: int) -> Dataset:
    image = Dataset()
    image.update(shared)
    image.SeriesInstanceUID = plane.image.series
    # highdicom tells images apart by their UID, which frames of one file share.
    single = plane.image.frame is None
    image.SOPInstanceUID = plane.image.instance if single else _uid(content, "frame", str(index))
    # Of a multi-frame class it takes one image only, whole; the true class is written by _refer_to_frames.
    image.SOPClassUID = (plane.image.sop_class if single else "") or CT_IMAGE
    image.ImagePositionPatient = plane.position
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def _refer_to_frames(data: Any, references: list[Dataset], planes: list[_Plane]) -> None:
    """Let each frame of the SEG refer to a frame of its multi-frame source, and the SEG to the source once."""
    images = {image.SOPInstanceUID: plane.image for image, plane in zip(references, planes, strict=True)}
    for item in data.PerFrameFunctionalGroupsSequence:
        for derivation in item.DerivationImageSequence:
            for source in derivation.SourceImageSequence:
                image = images.get(source.ReferencedSOPInstanceUID)
                if image is None:  # segments of one slice share this item, so that it is changed already
                    continue
                source.ReferencedSOPClassUID = image.sop_class or CT_IMAGE
                source.ReferencedSOPInstanceUID, source.ReferencedFrameNumber = image.instance, image.frame
    for series in data.ReferencedSeriesSequence:
        items = {}
        for item in series.ReferencedInstanceSequence:
            image = images[item.ReferencedSOPInstanceUID]
            item.ReferencedSOPClassUID = image.sop_class or CT_IMAGE
            item.ReferencedSOPInstanceUID = image.instance
            items[item.ReferencedSOPInstanceUID] = item
        series.ReferencedInstanceSequence = list(items.values())


def _description(number: int, item: LabelClass) -> hd.seg.SegmentDescription:
    code = hd.sr.CodedConcept(item.code.value, "SCT", item.code.meaning) if item.code else codes.SCT.Bone
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=item.name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=code,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="boneseg", version=version("boneseg"), family=codes.DCM.ArtificialIntelligence
        ),
        display_color=hd.color.CIELabColor.from_rgb(*item.colour),
    )
    if item.side:
        side = hd.sr.CodedConcept.from_code(_SIDES[item.side])
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return description


def _uid(*parts: str) -> str:
    return str(generate_uid(entropy_srcs=["boneseg segmentation", *parts]))
