"""NIfTI volumes in and out (the only place that imports nibabel)."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import IOBase
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.fileholders import FileHolder
from numpy.typing import NDArray

from boneseg.errors import SeriesError
from boneseg.geometry import Geometry, from_nifti, to_nifti_affine


def is_nifti(path: Path) -> bool:
    """Say whether a file is a NIfTI volume (.nii or .nii.gz) by its content; its name plays no part."""
    try:
        with _stream(path) as stream:
            return _version(stream) is not None
    except (OSError, EOFError, zlib.error):
        return False


def read_geometry(path: Path) -> Geometry:
    """Read the geometry of a NIfTI volume without its voxels.

    Raises:
        SeriesError: not NIfTI, or not three-dimensional.
    """
    with _opened(path) as (_, geometry):
        return geometry


def read_volume(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a NIfTI volume.

    Returns:
        Voxels as (slice, row, column), scaled as the header says and kept integral where they are, and the geometry.

    Raises:
        SeriesError: not NIfTI, not three-dimensional, or truncated.
    """
    with _opened(path) as (image, geometry):
        try:
            voxels = np.asanyarray(image.dataobj)
        except Exception as error:  # nibabel passes on whatever zlib or numpy raise on a damaged file
            raise SeriesError(f"{path.name}: the NIfTI file is damaged or cut short; copy it again") from error
        return np.ascontiguousarray(voxels.reshape(geometry.shape[::-1]).transpose(2, 1, 0)), geometry


def read_first_slice(path: Path) -> NDArray[Any] | None:
    """Read the first slice (row, column) of a volume that may be cut short; none where even that is missing."""
    with _opened(path) as (image, _):
        try:
            first: NDArray[Any] = np.asanyarray(image.dataobj[:, :, 0]).reshape(image.shape[:2]).T
        except Exception:  # as in read_volume
            return None
    return first


def write_volume(path: Path, voxels: NDArray[Any], geometry: Geometry) -> None:
    """Write voxels (slice, row, column) as NIfTI; the file appears whole or not at all."""
    image = nib.Nifti1Image(voxels.transpose(2, 1, 0), to_nifti_affine(geometry))
    image.header.set_xyzt_units("mm")
    suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    partial = path.with_name(f".{path.name}.partial{suffix}")
    try:
        nib.save(image, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _stream(path: Path) -> IOBase:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if compressed else path.open("rb")


def _version(stream: IOBase) -> Any:
    """Return nibabel's class for the header that a stream starts with, or none."""
    start = stream.read(540)
    stream.seek(0)
    if start[344:348] == b"n+1\0":
        return nib.Nifti1Image
    return nib.Nifti2Image if start[4:8] == b"n+2\0" else None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Geometry]]:
    # By content: a file in the local cache has no suffix that nibabel could go by.
    with _stream(path) as stream:
        try:
            holder = FileHolder(fileobj=stream)
            image = _version(stream).from_file_map({"header": holder, "image": holder})
            shape = tuple(int(size) for size in image.shape)
        except Exception as error:  # nibabel has no common base for a damaged header
            raise SeriesError(f"{path.name}: not a readable NIfTI file; copy it again or convert it") from error
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3:
            raise SeriesError(
                f"{path.name}: a volume must have 3 dimensions, this one has {len(shape)}; split it first"
            )
        yield image, from_nifti((shape[2], shape[1], shape[0]), np.asarray(image.affine, dtype=np.float64))
