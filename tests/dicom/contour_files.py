"""RTSTRUCT files as planning systems write them, made of masks or of given contours."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from skimage.measure import find_contours

from boneseg.geometry import Geometry

CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
Points = NDArray[np.float64]


def halfway(mask: NDArray[np.bool_]) -> list[Points]:
    """Trace a plane between inside and outside, as (row, column) of voxels: outer contours and holes alike."""
    return [contour[:-1] - 1 for contour in find_contours(np.pad(mask, 1).astype(float), 0.5)]


def through_centres(mask: NDArray[np.bool_]) -> list[Points]:
    """Trace a plane through the centres of its outermost voxels, as programs on OpenCV do."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [contour[:, 0, ::-1].astype(np.float64) for contour in found]


def contours_of(mask: NDArray[np.bool_], geometry: Geometry, trace=halfway, step: int = 1) -> list[Points]:  # noqa: ANN001
    """Return the contours of every ``step``-th slice of a mask, (N, 3) LPS mm."""
    found = []
    for number in range(0, len(mask), step):
        for points in trace(mask[number]) if mask[number].any() else ():
            index = np.column_stack([np.full(len(points), float(number)), points])
            found.append(geometry.to_patient(index))
    return found


def rtstruct(
    path: Path,
    regions: Mapping[str, Iterable[Points]],
    sources: Sequence[Path] = (),
    kinds: Mapping[str, str] | None = None,
    frame: str = "",
) -> Path:
    """Write an RTSTRUCT; it references the series of its sources."""
    images = [pydicom.dcmread(source, stop_before_pixels=True) for source in sources]
    data = FileDataset(str(path), {}, file_meta=FileMetaDataset(), preamble=bytes(128))
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CLASS
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Modality = "RTSTRUCT"
    data.StudyInstanceUID = images[0].StudyInstanceUID if images else generate_uid()
    data.SeriesInstanceUID = generate_uid()
    data.PatientID = images[0].PatientID if images else ""
    data.StructureSetLabel = "set"
    frame = frame or (images[0].get("FrameOfReferenceUID", "") if images else "")
    if images:
        data.ReferencedFrameOfReferenceSequence = Items([_frame(images, frame)])
    data.StructureSetROISequence, data.ROIContourSequence, data.RTROIObservationsSequence = Items(), Items(), Items()
    for number, (name, contours) in enumerate(regions.items(), start=1):
        described, drawn, observed = Dataset(), Dataset(), Dataset()
        described.ROINumber, described.ROIName, described.ReferencedFrameOfReferenceUID = number, name, frame
        drawn.ReferencedROINumber, drawn.ContourSequence = number, Items([_contour(points) for points in contours])
        observed.ReferencedROINumber, observed.RTROIInterpretedType = number, (kinds or {}).get(name, "ORGAN")
        data.StructureSetROISequence.append(described)
        data.ROIContourSequence.append(drawn)
        data.RTROIObservationsSequence.append(observed)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def _frame(images: Sequence[Dataset], frame: str) -> Dataset:
    series, study, item = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = Items()
    for image in images:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        series.ContourImageSequence.append(reference)
    study.RTReferencedSeriesSequence = Items([series])
    item.FrameOfReferenceUID, item.RTReferencedStudySequence = frame, Items([study])
    return item


def _contour(points: Points, kind: str = "CLOSED_PLANAR") -> Dataset:
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
    item.ContourData = [f"{value:.6f}"[:16] for value in points.ravel().tolist()]
    return item
