"""NIfTI volumes in and out (the only place that imports nibabel)."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from boneseg.errors import SeriesError
from boneseg.geometry import Geometry, from_nifti, to_nifti_affine

SUFFIXES = (".nii", ".nii.gz")


def read_geometry(path: Path) -> Geometry:
    """Read the geometry of a NIfTI volume without its voxels.

    Raises:
        SeriesError: not NIfTI, or not three-dimensional.
    """
    return _open(path)[1]


def read_volume(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a NIfTI volume.

    Returns:
        Voxels as (slice, row, column), scaled as the header says and kept integral where they are, and the geometry.

    Raises:
        SeriesError: not NIfTI, not three-dimensional, or truncated.
    """
    image, geometry = _open(path)
    try:
        voxels = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel passes on whatever zlib or numpy raise on a damaged file
        raise SeriesError(f"{path.name}: the NIfTI file is damaged or cut short; copy it again ({error})") from error
    return np.ascontiguousarray(voxels.reshape(geometry.shape[::-1]).transpose(2, 1, 0)), geometry


def write_volume(path: Path, voxels: NDArray[Any], geometry: Geometry) -> None:
    """Write voxels (slice, row, column) as NIfTI; the file appears whole or not at all."""
    image = nib.Nifti1Image(voxels.transpose(2, 1, 0), to_nifti_affine(geometry))
    image.header.set_xyzt_units("mm")
    suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    partial = path.with_name(f".{path.name}.partial{suffix}")
    nib.save(image, partial)
    partial.replace(path)


def _open(path: Path) -> tuple[Any, Geometry]:
    try:
        image: Any = nib.load(path)
        shape = tuple(int(size) for size in image.shape)
    except Exception as error:  # nibabel has no common base for a damaged header
        raise SeriesError(f"{path.name}: not a readable NIfTI file ({error})") from error
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise SeriesError(f"{path.name}: a volume must have 3 dimensions, this one has {len(shape)}; split it first")
    return image, from_nifti((shape[2], shape[1], shape[0]), np.asarray(image.affine, dtype=np.float64))
