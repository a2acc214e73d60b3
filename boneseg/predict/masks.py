"""A mask as files: NIfTI, DICOM SEG and 3D Slicer's segmentation in the series' own geometry."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boneseg.atomic_write import atomic_write_bytes
from boneseg.dicom.segmentation_write import why_not_dicom, write_segmentation
from boneseg.geometry import Geometry
from boneseg.itk_volume import write_slicer_segmentation
from boneseg.nifti import write_volume
from boneseg.nifti_mask import write_mask_like
from boneseg.scheme import BONE_SCHEME, LabelScheme

NIFTI_MASK, DICOM_MASK, SLICER_MASK = "mask.nii.gz", "mask.dcm", "mask.seg.nrrd"
NAMES_FILE, COLOURS_FILE = "mask.json", "mask.ctbl"
MASKS = {"nifti": NIFTI_MASK, "seg": DICOM_MASK, "seg.nrrd": SLICER_MASK}
"""Format -> name of the file."""
USUAL = ("nifti", "seg")
"""Formats that are written where none is asked for."""


@dataclass(frozen=True)
class Masks:
    """What was written.

    Attributes:
        files: the masks, a DICOM SEG where there can be one.
        names: what the values mean, as JSON and as a colour table.
        notes: what a person should know of them, one sentence each.
    """

    files: tuple[Path, ...]
    names: tuple[Path, ...]
    notes: tuple[str, ...]


def write_masks(
    out: Path,
    mask: NDArray[np.uint8],
    geometry: Geometry,
    sources: Sequence[Path] = (),
    like: Path | None = None,
    scheme: LabelScheme = BONE_SCHEME,
    formats: Collection[str] = USUAL,
    placed: bool = True,
) -> Masks:
    """Write a mask in a series' own geometry; each file appears whole or not at all.

    Args:
        out: folder of the series, made where it is missing.
        mask: classes, (slice, row, column) in the series' own order.
        geometry: of the series.
        sources: the series' DICOM files, to which the DICOM SEG then refers.
        like: the series' NIfTI file, whose place the NIfTI mask then copies.
        scheme: what the values mean; their names and colours are written beside the masks.
        formats: of ``MASKS``.
        placed: whether the series says where its voxels lie; if not, the NIfTI mask does not either.
    """
    out.mkdir(parents=True, exist_ok=True)
    for form, name in MASKS.items():
        if form != "nifti" or form not in formats:
            (out / name).unlink(missing_ok=True)  # of an earlier run: never beside a mask that it does not agree with
    files: list[Path] = []
    notes: list[str] = []
    # The three classes of everyday go by their values everywhere; other masks carry their names with them.
    names = None if scheme.knows_only_bone else dict(enumerate(scheme.names))
    if "nifti" in formats:
        if like is not None:
            write_mask_like(out / NIFTI_MASK, mask, like, names)
        else:
            write_volume(out / NIFTI_MASK, mask, geometry, placed, names)
        files.append(out / NIFTI_MASK)
    if "seg" in formats:
        if (reason := why_not_dicom(geometry)) is None:
            notes += write_segmentation(out / DICOM_MASK, mask, geometry, sources, scheme)
            files.append(out / DICOM_MASK)
        else:
            notes.append(f"no DICOM SEG: {reason}")
    if "seg.nrrd" in formats:
        write_slicer_segmentation(out / SLICER_MASK, mask, geometry, scheme)
        files.append(out / SLICER_MASK)
    return Masks(tuple(files), _write_names(out, scheme), tuple(notes))


def _write_names(out: Path, scheme: LabelScheme) -> tuple[Path, ...]:
    """Say what the values of the NIfTI mask mean: as JSON, and as a colour table that 3D Slicer opens."""
    values = [
        {"value": value}
        | item.model_dump(mode="json", include={"name", "role", "group", "side", "partner", "colour"})
        | {"code": item.code.value if item.code else None, "meaning": item.code.meaning if item.code else None}
        for value, item in enumerate(scheme.classes)
    ]
    names, table = out / NAMES_FILE, out / COLOURS_FILE
    atomic_write_bytes(names, json.dumps({"scheme": scheme.name, "classes": values}, indent=1).encode())
    lines = [
        f"{value} {item.name.replace(' ', '_')} {' '.join(map(str, item.colour))} {0 if value == 0 else 255}"
        for value, item in enumerate(scheme.classes)
    ]
    atomic_write_bytes(table, ("\n".join(["# 3D Slicer colour table", *lines]) + "\n").encode())
    return names, table
