"""CT series in, masks out: NIfTI and DICOM SEG in each series' own geometry."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from torch import nn

from boneseg.dicom.segmentation_write import write_segmentation
from boneseg.errors import SeriesError
from boneseg.geometry import Geometry, to_axial
from boneseg.inference import predict_volume
from boneseg.ingest.facts import Kind, inspect
from boneseg.ingest.local import local_series
from boneseg.ingest.read import read_image
from boneseg.models.card import ModelCard
from boneseg.models.checkpoint import load_model
from boneseg.nifti import write_volume
from boneseg.progress import track
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.catalogue import FileKind, ObjectRef, Problem, SeriesRow

log = logging.getLogger(__name__)

NIFTI_MASK, DICOM_MASK = "mask.nii.gz", "mask.dcm"


def predict_series(
    model_folder: Path, series: Path, out: Path, settings: PrepareSettings | None = None, device: str = "auto"
) -> list[Path]:
    """Segment every CT series found at a place.

    Args:
        model_folder: as ``train`` wrote it or ``registry`` fetched it.
        series: a folder with DICOM or NIfTI series anywhere below it, or one NIfTI file.
        out: gets a folder a series, named after where the series lies, with ``mask.nii.gz`` and ``mask.dcm``:
            0 background, 1 patient outline, 2 bone, in the order of voxels that the series has.
        settings: how irregular a series may be.
        device: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        The masks written, series by series.

    Raises:
        DataError: the place does not exist.
        SeriesError: there is no CT series, or some could not be used; all others have their masks then.
        ModelError: the folder is not a model.
    """
    network, card = load_model(model_folder)
    rows, failures = _find(series)
    if not rows:
        reason = failures[0] if failures else "give a folder with DICOM files or NIfTI volumes of CT"
        raise SeriesError(f"{series}: no CT series there; {reason}")
    written: list[Path] = []
    for row, name in track(list(zip(rows, _names(rows, series), strict=True)), "predict"):
        try:
            written += _predict_one(network, card, row, out / name, settings or PrepareSettings(), device)
        except SeriesError as error:
            failures.append(f"{row.source}: {error}")
    if failures:
        done = f"{len(written) // 2} series have masks in {out}"
        raise SeriesError(f"{len(failures)} could not be used ({done}): " + "; ".join(failures))
    return written


def write_masks(out: Path, mask: NDArray[np.uint8], geometry: Geometry, sources: Sequence[Path] = ()) -> list[Path]:
    """Write a mask in a series' own geometry; each file appears whole or not at all.

    Args:
        out: folder of the series, made where it is missing.
        mask: classes, (slice, row, column) in the series' own order.
        geometry: of the series.
        sources: the series' DICOM files, to which the DICOM SEG then refers.

    Returns:
        The NIfTI file and the DICOM SEG.
    """
    out.mkdir(parents=True, exist_ok=True)
    nifti, seg = out / NIFTI_MASK, out / DICOM_MASK
    write_volume(nifti, mask, geometry)
    write_segmentation(seg, mask, geometry, sources)
    return [nifti, seg]


def _find(place: Path) -> tuple[list[SeriesRow], list[str]]:
    """Return the series, and what looks like one but cannot be used, one sentence each."""
    rows, problems = local_series(place)
    failures = []
    for problem in problems:
        if problem.fatal and not _is_label(place, problem):
            failures.append(f"{problem.source}: {problem.reason}")
        elif not problem.fatal:
            log.warning("%s: %s", problem.source, problem.reason)
    return list(rows), failures


def _is_label(place: Path, problem: Problem) -> bool:
    """Say whether a problem is one of a readable label, such as an older mask: prediction needs none."""
    path = (place.parent if place.is_file() else place) / problem.source
    if not path.is_file():
        return False
    return inspect(path, ObjectRef(key=str(path), size=0, etag="", sha256=""), b"").kind == Kind.LABEL


def _predict_one(
    network: nn.Module, card: ModelCard, row: SeriesRow, out: Path, settings: PrepareSettings, device: str
) -> list[Path]:
    hu, own, warnings = read_image(_as_it_is, row, settings)
    for warning in warnings:
        log.warning("%s: %s", row.source, warning)
    geometry, reorientation = to_axial(own)
    axial = np.ascontiguousarray(reorientation.apply(hu))
    mask = predict_volume(network, card.model.preprocess, axial, geometry, device=device)
    own_mask = np.ascontiguousarray(reorientation.undo(mask))
    sources = [_as_it_is(item) for item in row.objects] if row.kind == FileKind.DICOM else []
    return write_masks(out, own_mask, own, sources)


def _as_it_is(item: ObjectRef) -> Path:
    """Return the file that a row of a local folder stands for: its key is its path."""
    return Path(item.key)


def _names(rows: Sequence[SeriesRow], place: Path) -> list[str]:
    """Return a folder for each series, after where it lies; its hash tells apart what lies at one place."""
    names = []
    for row in rows:
        path = PurePosixPath(row.source)
        name = str(path) if path.name else place.absolute().name  # "." is the place itself
        names.append(name.removesuffix(".gz").removesuffix(".nii").removesuffix(".dcm"))
    return [
        name if names.count(name) == 1 else f"{name}-{row.series[:8]}" for name, row in zip(names, rows, strict=True)
    ]
