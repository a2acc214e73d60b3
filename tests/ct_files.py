"""Small CT series and labels as real files."""

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.segmentation_write import write_segmentation
from boneseg.geometry import Geometry, axial
from boneseg.nifti import write_volume

SPACING = (3.0, 1.0, 1.0)


def body(seed: int = 0, shape: tuple[int, int, int] = (6, 24, 24)) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return HU with noise and a bone, and the label (1 outline, 2 bone)."""
    random = np.random.default_rng(seed)
    label = np.zeros(shape, dtype=np.uint8)
    label[:, 4:20, 4:20] = 1
    label[:, 8:12, 9:14] = 2
    hu = np.choose(label, (-1000, 40, 700)) + random.integers(-20, 20, shape)
    return hu.astype(np.int16), label


def place(shape: tuple[int, int, int] = (6, 24, 24), at: tuple[float, float, float] = (0, 0, 0)) -> Geometry:
    """Return an axial geometry whose first voxel is at the given LPS point."""
    geometry = axial(shape, SPACING)
    affine = geometry.affine.copy()
    affine[:3, 3] = at
    return Geometry(shape, affine)


def dicom(
    folder: Path,
    seed: int = 0,
    *,
    patient: str = "P1",
    uid: str = "",
    geometry: Geometry | None = None,
    empty: tuple[str, ...] = (),
) -> list[Path]:
    """Write a CT series; ``uid`` names its series UID, tags in ``empty`` are blanked."""
    geometry = geometry or place()
    hu, _ = body(seed, geometry.shape)
    paths = write_ct_series(folder, hu, geometry, identity=uid or f"series-{seed}", patient_id=patient)
    for path in paths if empty else []:
        data = pydicom.dcmread(path)
        for tag in empty:
            setattr(data, tag, "")
        data.save_as(path)
    return paths


def nifti(path: Path, seed: int = 0, geometry: Geometry | None = None) -> Path:
    """Write a CT volume."""
    geometry = geometry or place()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, body(seed, geometry.shape)[0], geometry)
    return path


def nifti_label(path: Path, geometry: Geometry | None = None, seed: int = 0) -> Path:
    """Write a label volume as NIfTI; labels of different seeds differ in one voxel."""
    geometry = geometry or place()
    path.parent.mkdir(parents=True, exist_ok=True)
    label = body(0, geometry.shape)[1]
    label[0, 0, seed] = 1
    write_volume(path, label, geometry)
    return path


def seg_label(path: Path, geometry: Geometry | None = None, slices: slice = slice(None)) -> Path:
    """Write a label as DICOM SEG, optionally of some slices only."""
    geometry = geometry or place()
    label = body(0, geometry.shape)[1]
    affine = geometry.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (slices.start or 0)
    part = label[slices]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_segmentation(path, part, Geometry((part.shape[0], *geometry.shape[1:]), affine))
    return path


def truncate(path: Path, share: float = 0.6) -> None:
    """Cut the end of a file off."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
