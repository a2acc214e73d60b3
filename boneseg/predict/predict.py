"""CT series in, masks out: as files of several formats in each series' own geometry."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from traceback import extract_tb

import numpy as np
from numpy.typing import NDArray
from torch import nn

from boneseg.errors import BonesegError, DataError, SeriesError
from boneseg.geometry import Geometry, to_axial
from boneseg.inference import predict_volume
from boneseg.ingest.label_file import local_file
from boneseg.ingest.read import read_image
from boneseg.ingest.volume_files import open_volume
from boneseg.models.card import ModelCard
from boneseg.models.checkpoint import load_model
from boneseg.predict.find_series import look
from boneseg.predict.folder_owner import own_folder, writing
from boneseg.predict.masks import USUAL, Masks, write_masks
from boneseg.predict.names import folder_names
from boneseg.progress import track
from boneseg.ray_cluster.pools import stays_here
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.catalogue import FileKind, SeriesRow

log = logging.getLogger(__name__)

_SLICES_AT_ONCE, _LONG = 16, 64
"""Slices that are labelled in one go, and of how many slices on a series shows its own progress."""


def predict_series(
    model_folder: Path,
    series: Path,
    out: Path,
    settings: PrepareSettings | None = None,
    device: str = "auto",
    on_written: Callable[[Path], object] = lambda path: None,
    formats: Collection[str] = USUAL,
) -> list[Path]:
    """Segment every CT series found at a place, on this machine: the nodes of a cluster do not see its folders.

    A series that fails, for whatever reason, costs the others nothing.

    Args:
        model_folder: as ``train`` wrote it or ``registry`` fetched it.
        series: a folder with series, DICOM files or volumes, anywhere below it, or one volume file.
        out: gets a folder a series, named after where the series lies (and its hash where that folder holds another
            series' masks), with ``mask.nii.gz``, ``mask.dcm`` or others of
            ``masks.MASKS``: values of the model's scheme, in the order of voxels that the series has.
        settings: how irregular a series may be.
        device: ``cpu``, ``cuda`` or ``auto``.
        on_written: is told of each mask as soon as it is there.
        formats: of ``masks.MASKS``.

    Returns:
        The masks written, series by series.

    Raises:
        DataError: the place does not exist, or ``out`` cannot be made.
        SeriesError: there is no CT series, or some could not be used; all others have their masks then.
        ModelError: the folder is not a model.
    """
    stays_here("predict")
    network, card = load_model(model_folder)
    place = look(series)
    for note in place.notes:
        log.warning("%s", note)
    if not place.rows:
        reasons = place.lost or place.notes or ("give a folder with DICOM files or volumes of CT",)
        raise SeriesError(f"{series}: no CT series there; {'; '.join(reasons[:3])}")
    for reason in place.lost:
        log.error("%s", reason)
    _make(out)
    written: list[Path] = []
    failed: list[str] = []
    names = folder_names(place.rows, series)
    for row, name in track(list(zip(place.rows, names, strict=True)), "predict"):
        source = name if row.source == "." else row.source
        try:
            folder = own_folder(out, name, row, series)
            if folder != out / name:
                log.warning("%s: %s holds masks of another series; its own go to %s", source, out / name, folder)
            masks = _predict_one(network, card, row, source, folder, settings or PrepareSettings(), device, formats)
        except Exception as error:  # whatever one patient's files do, the next patient's are segmented
            log.debug("%s", source, exc_info=True)
            log.error("%s: %s", source, why := _why(error))
            failed.append(f"{source}: {why}")
            continue
        written += masks.files
        for note in masks.notes:
            log.warning("%s: %s", source, note)
        for path in masks.files:
            on_written(path)
    if failed or place.lost:
        raise SeriesError(_summary(len(place.rows) - len(failed), out, [*failed, *place.lost]))
    return written


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: cannot be made ({error.strerror}); choose another --out") from error


def _why(error: Exception) -> str:
    """Return why a series failed, as one sentence; of an unforeseen error only its place: its text may hold names."""
    if isinstance(error, BonesegError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space and start again"
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or type(error).__name__}"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it; close other programs or use a larger machine"
    last = extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}, line {last.lineno}"
    return f"unexpected {type(error).__name__} in {where} (run again with --debug for the traceback)"


def _summary(done: int, out: Path, failures: Sequence[str]) -> str:
    return f"{len(failures)} could not be used ({done} series have masks in {out}): " + "; ".join(failures)


def _predict_one(
    network: nn.Module,
    card: ModelCard,
    row: SeriesRow,
    source: str,
    out: Path,
    settings: PrepareSettings,
    device: str,
    formats: Collection[str],
) -> Masks:
    hu, own, warnings = read_image(local_file, row, settings)
    for warning in warnings:
        log.warning("%s: %s", source, warning)
    mask = _mask(network, card, hu, own, source, device)
    files = [local_file(item) for item in row.objects]
    with writing(out):
        if row.kind == FileKind.NIFTI:
            return write_masks(out, mask, own, like=files[0], scheme=card.scheme, formats=formats)
        if row.kind.is_volume:
            placed = open_volume(files).placed
            return write_masks(out, mask, own, scheme=card.scheme, formats=formats, placed=placed)
        return write_masks(out, mask, own, files, scheme=card.scheme, formats=formats)


def _mask(
    network: nn.Module, card: ModelCard, hu: NDArray[np.int16], own: Geometry, source: str, device: str
) -> NDArray[np.uint8]:
    """Return the classes (slice, row, column) in the series' own order, written slice by slice into their place."""
    geometry, reorientation = to_axial(own)
    axial = reorientation.apply(hu)
    mask = np.zeros(hu.shape, dtype=np.uint8)
    view = reorientation.apply(mask)
    slices: Iterable[int] = range(len(axial))
    if len(axial) > _LONG:
        slices = track(slices, f"predict {source}", total=len(axial), unit="slices")
    for first in slices:
        if first % _SLICES_AT_ONCE == 0:
            some = range(first, min(first + _SLICES_AT_ONCE, len(axial)))
            labels = predict_volume(network, card.model.preprocess, axial, geometry, device=device, slices=some)
            view[first : some.stop] = labels
    return mask
