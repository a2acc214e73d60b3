"""Genuine CT Image Storage files from a volume of HU: phantoms and tests are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from boneseg.atomic_write import atomic_write
from boneseg.dicom.sop_classes import CT_IMAGE
from boneseg.geometry import Geometry

_INTERCEPT = -1024


def write_ct_series(
    folder: Path,
    hu: NDArray[np.int16],
    geometry: Geometry,
    *,
    identity: str,
    patient_id: str = "PHANTOM-0000",
    description: str = "synthetic CT",
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> list[Path]:
    """Write a volume as one CT file a slice; the same arguments give the same bytes.

    Args:
        folder: made where it is missing.
        hu: (slice, row, column); values below -1024 are written as -1024.
        geometry: of the volume; rows and columns must be at right angles.
        identity: what all UIDs are derived from; two series need two identities.
        patient_id: PatientID, and the name too. Of nobody: these files never hold a real patient's data.
        description: SeriesDescription.
        transfer_syntax: uncompressed little endian, or RLE or JPEG-LS lossless, which are encoded here.

    Returns:
        The files in the order of the slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = (np.maximum(hu, _INTERCEPT).astype(np.int32) - _INTERCEPT).astype("<u2")
    bits = 12 if int(stored.max(initial=0)) < 4096 else 16
    paths = []
    for index, pixels in enumerate(stored):
        data = _common(identity, patient_id, description)
        _place(data, geometry, index)
        _pixels(data, pixels, bits)
        data.SOPInstanceUID = _uid(identity, "instance", str(index))
        path = folder / f"slice-{index + 1:04d}.dcm"
        _save(data, path, UID(transfer_syntax))
        paths.append(path)
    return paths


def orientation_of(geometry: Geometry) -> list[float]:
    """Return ImageOrientationPatient of a geometry: direction cosines along a row, then along a column."""
    directions = geometry.affine[:3, :3] / np.linalg.norm(geometry.affine[:3, :3], axis=0)
    return [float(value) for value in (*directions[:, 2], *directions[:, 1])]


def position_of(geometry: Geometry, index: int) -> list[float]:
    """Return ImagePositionPatient of a slice: the LPS millimetres of its first pixel."""
    return [float(value) for value in geometry.to_patient(np.array([[index, 0.0, 0.0]]))[0]]


def _common(identity: str, patient_id: str, description: str) -> Dataset:
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    data.SOPClassUID = CT_IMAGE
    data.StudyDate, data.StudyTime = "20000101", "000000"
    data.AccessionNumber, data.ReferringPhysicianName, data.StudyID = "", "", "1"
    data.Modality, data.Manufacturer = "CT", "boneseg"
    data.SeriesDescription = description
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = patient_id, patient_id, "", "O"
    data.PatientPosition = "HFS"
    data.KVP = "120"
    data.StudyInstanceUID = _uid(identity, "study")
    data.SeriesInstanceUID = _uid(identity, "series")
    data.FrameOfReferenceUID = _uid(identity, "frame")
    data.PositionReferenceIndicator = ""
    data.SeriesNumber, data.AcquisitionNumber = 1, 1
    return data


def _place(data: Dataset, geometry: Geometry, index: int) -> None:
    position, orientation = position_of(geometry, index), orientation_of(geometry)
    normal = np.cross(orientation[:3], orientation[3:])
    data.InstanceNumber = index + 1
    data.ImagePositionPatient = _decimals(position)
    data.ImageOrientationPatient = _decimals(orientation)
    data.PixelSpacing = _decimals(geometry.spacing[1:])
    data.SliceThickness = _decimals(geometry.spacing[:1])[0]
    data.SliceLocation = _decimals([float(normal @ position)])[0]


def _pixels(data: Dataset, pixels: NDArray[Any], bits: int) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, bits, bits - 1, 0
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = str(_INTERCEPT), "1", "HU"
    data.WindowCenter, data.WindowWidth = "300", "1000"
    data.PixelData = pixels.tobytes()


def _save(data: Dataset, path: Path, transfer_syntax: UID) -> None:
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if transfer_syntax.is_compressed else transfer_syntax
    if transfer_syntax.is_compressed:
        data.compress(transfer_syntax, generate_instance_uid=False)
    with atomic_write(path, sole_writer=True) as partial:
        data.save_as(partial, enforce_file_format=True)


def _decimals(values: Sequence[float]) -> list[DSfloat]:
    """Return decimal strings of at most 16 characters, as DICOM demands."""
    return [DSfloat(value, auto_format=True) for value in values]


def _uid(*parts: str) -> UID:
    return generate_uid(entropy_srcs=["boneseg", *parts])
