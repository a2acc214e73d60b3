"""A mask as NIfTI that lies exactly where its CT lies: the place is copied field by field, never computed."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from boneseg.atomic_write import atomic_write
from boneseg.errors import SeriesError
from boneseg.nifti import label_table

_HEADER_BYTES = 540
_PLACE = [
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
]
_SPACE_UNITS = 7


def write_mask_like(path: Path, mask: NDArray[np.uint8], ct: Path, names: Mapping[int, str] | None = None) -> None:
    """Write a mask with qform, sform, their codes, voxel size and unit of its CT; it appears whole or not at all.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        mask: (slice, row, column), on the CT's own voxels.
        ct: the NIfTI file of the CT.
        names: of the mask's values, for its header.

    Raises:
        SeriesError: the CT is not NIfTI.
    """
    kind, theirs = _header(ct)
    header = kind.header_class()
    for field in _PLACE:
        header[field] = theirs[field]
    header["pixdim"][:4] = theirs["pixdim"][:4]
    header["xyzt_units"] = int(theirs["xyzt_units"]) & _SPACE_UNITS
    header.set_data_dtype(np.uint8)
    header.extensions.extend(label_table(names or {}))
    image = kind(mask.transpose(2, 1, 0), None, header)
    with atomic_write(path, sole_writer=True) as partial:
        nib.save(image, partial)


def _header(ct: Path) -> tuple[Any, Any]:
    """Return nibabel's class for a file and its header."""
    with ct.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    with gzip.open(ct) if compressed else ct.open("rb") as stream:
        start = stream.read(_HEADER_BYTES)
    if start[344:348] in (b"n+1\0", b"ni1\0"):
        kind: Any = nib.Nifti1Image
    elif start[4:8] in (b"n+2\0", b"ni2\0"):
        kind = nib.Nifti2Image
    else:
        raise SeriesError(f"{ct.name}: not a NIfTI file any more; was it changed meanwhile?")
    return kind, kind.header_class.from_fileobj(BytesIO(start), check=False)
