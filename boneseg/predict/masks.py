"""A mask as files: NIfTI and DICOM SEG in the series' own geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boneseg.dicom.segmentation_write import why_not_dicom, write_segmentation
from boneseg.geometry import Geometry
from boneseg.nifti import write_volume
from boneseg.nifti_mask import write_mask_like

NIFTI_MASK, DICOM_MASK = "mask.nii.gz", "mask.dcm"


@dataclass(frozen=True)
class Masks:
    """What was written.

    Attributes:
        files: the NIfTI file, and the DICOM SEG where there can be one.
        notes: what a person should know of them, one sentence each.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def write_masks(
    out: Path,
    mask: NDArray[np.uint8],
    geometry: Geometry,
    sources: Sequence[Path] = (),
    like: Path | None = None,
) -> Masks:
    """Write a mask in a series' own geometry; each file appears whole or not at all.

    Args:
        out: folder of the series, made where it is missing.
        mask: classes, (slice, row, column) in the series' own order.
        geometry: of the series.
        sources: the series' DICOM files, to which the DICOM SEG then refers.
        like: the series' NIfTI file, whose place the NIfTI mask then copies.
    """
    out.mkdir(parents=True, exist_ok=True)
    nifti, seg = out / NIFTI_MASK, out / DICOM_MASK
    seg.unlink(missing_ok=True)  # of an earlier run: never beside a mask that it does not agree with
    if like is not None:
        write_mask_like(nifti, mask, like)
    else:
        write_volume(nifti, mask, geometry)
    reason = why_not_dicom(geometry)
    if reason is not None:
        return Masks((nifti,), (f"no DICOM SEG: {reason}",))
    return Masks((nifti, seg), tuple(write_segmentation(seg, mask, geometry, sources)))
