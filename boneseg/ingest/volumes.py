"""Values of volume files: HU or labels, looked at and read piece by piece, so that no copy as floats is ever whole."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.errors import LabelError, SeriesError
from boneseg.geometry import Geometry
from boneseg.hu import AIR_HU, HIGHEST_HU, to_hu
from boneseg.ingest.plausible import Grain, why_not_hu
from boneseg.ingest.volume_files import open_volume
from boneseg.storage.hashing import combine, sha256_array

AIR_BELOW_HU = -200
"""A volume with values below this is CT; one without may be a crop within the patient."""
MAX_LABEL_VALUES = 256
MIN_HU_SPREAD = 200
NEARLY_WHOLE = 1e-3
"""How far a label value may lie beside a whole number: scaled or interpolated label maps are a hair off."""
_EXACT = 1e-9
_HIGHEST_LABEL = 65535
_MOST_TOO_HIGH = 0.01
"""Share of voxels that may lie above what int16 holds: metal does, stored values and damaged numbers do more often."""


class Survey:
    """What the values of a volume are, found piece by piece.

    Attributes:
        not_numbers: how many voxels are NaN or infinite.
        lowest: of the numbers; infinity before the first.
        highest: of the numbers.
    """

    def __init__(self) -> None:
        self.not_numbers = 0
        self.lowest, self.highest = math.inf, -math.inf
        self._off = 0.0
        self._present: NDArray[np.bool_] | None = np.zeros(_HIGHEST_LABEL + 1 - AIR_BELOW_HU, dtype=bool)
        self._voxels = self._too_high = 0
        self._hu_range = (HIGHEST_HU, AIR_HU)
        self._slices: list[Any] = []
        self._counts = np.zeros(HIGHEST_HU - AIR_HU + 1, dtype=np.int64)
        self._earlier_counts = np.zeros_like(self._counts)
        self._grain = Grain()
        self._prints: list[str] = []

    def add(self, index: int, rows: int, values: NDArray[Any]) -> NDArray[np.int16]:
        """Take in the next rows of a slice, and return them as HU.

        Args:
            index: of the slice.
            rows: that a slice has.
            values: (rows, columns) of the piece.
        """
        numbers = values
        if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
            numbers = values[finite]
            self.not_numbers += values.size - numbers.size
        self._voxels += values.size
        if numbers.size:
            self.lowest = min(self.lowest, float(numbers.min()))
            self.highest = max(self.highest, float(numbers.max()))
            self._too_high += int(np.count_nonzero(numbers > HIGHEST_HU)) if self.highest > HIGHEST_HU else 0
            self._look_for_labels(numbers)
        if self._present is not None:
            self._grain.add(values)
        hu = to_hu(values)
        self._hu_range = min(self._hu_range[0], int(hu.min())), max(self._hu_range[1], int(hu.max()))
        if index == len(self._slices) and self._slices:
            self._finish_print()
        self._counts += np.bincount(hu.ravel().astype(np.int32) - AIR_HU, minlength=len(self._counts))
        if index == len(self._slices):  # as ``sha256_array`` of the whole slice
            self._slices.append(hashlib.sha256(f"{hu.dtype.str}{(rows, values.shape[1])}".encode()))
        self._slices[index].update(hu.view(np.uint8).data)
        return hu

    @property
    def was_ct(self) -> bool:
        """Whether so much as was seen tells that the file holds, or held, CT."""
        grey = not self.is_label and self.highest - self.lowest >= MIN_HU_SPREAD
        return self.lowest < AIR_BELOW_HU or self._mostly_too_high or grey

    @property
    def is_label(self) -> bool:
        """Whether all numbers so far are those of a label: whole, few, and not spread as wide and noisy as HU are."""
        if self._present is None:
            return False
        wide = self.highest - self.lowest >= MIN_HU_SPREAD
        return not (wide and self._grain.is_noise(int(np.count_nonzero(self._present))))

    def label_values(self) -> tuple[int, ...]:
        """Return the values above 0 of a label.

        Raises:
            SeriesError: some voxels are no numbers.
        """
        if self.not_numbers:
            raise SeriesError(
                f"{self.not_numbers} voxels of what looks like a label are not numbers; store 0 where there is none"
            )
        assert self._present is not None
        return tuple(int(value) for value in np.flatnonzero(self._present) + AIR_BELOW_HU if value > 0)

    def hu_range(self) -> tuple[int, int]:
        """Return the lowest and highest HU.

        Raises:
            SeriesError: these values cannot be HU.
        """
        if self._mostly_too_high:
            raise SeriesError(
                f"{self._too_high / self._voxels:.0%} of the voxels lie above {HIGHEST_HU}, up to {self.highest:.4g}: "
                "the values are not HU; export the series as HU"
            )
        low, high = max(self.lowest, AIR_HU), min(self.highest, HIGHEST_HU)
        if high - low < MIN_HU_SPREAD:
            text = f"values from {low:.4g} to {high:.4g}" if self._voxels > self.not_numbers else "voxels"
            raise SeriesError(f"{text} are neither HU nor labels; store HU or whole label values")
        if reason := why_not_hu(self._earlier_counts + self._counts):
            raise SeriesError(reason)
        return self._hu_range

    def pixels(self) -> str:
        """Return the hash of the HU of all slices in order."""
        return combine(digest.hexdigest() for digest in self._slices)

    def prints(self) -> tuple[str, ...]:
        """Return ``slice_print`` of all slices in order; nothing can be added afterwards."""
        if len(self._prints) < len(self._slices):
            self._finish_print()
        return tuple(self._prints)

    def warnings(self) -> list[str]:
        """Return what is odd about the values but usable."""
        if self.is_label:
            noisy = self._present is not None and self._grain.is_noise(int(np.count_nonzero(self._present)))
            values = f"values from {self.lowest:g} to {self.highest:g}"
            mixed = [f"{values} are mixed as in a CT, but none is bone; is it a label?"] if noisy else []
            return [*([_rounded(self._off)] if self._off > _EXACT else []), *mixed]
        warnings = [f"{self.not_numbers} voxels are not numbers; they become air"] if self.not_numbers else []
        if self._too_high:
            warnings.append(f"{self._too_high} voxels lie above {HIGHEST_HU}, up to {self.highest:.4g}; they are cut")
        return warnings

    def _finish_print(self) -> None:
        self._prints.append(_print_of(self._counts))
        self._earlier_counts += self._counts
        self._counts[:] = 0

    @property
    def _mostly_too_high(self) -> bool:
        return self._too_high > _MOST_TOO_HIGH * self._voxels

    def _look_for_labels(self, numbers: NDArray[Any]) -> None:
        if self._present is None:
            return
        if self.lowest < AIR_BELOW_HU or self.highest > _HIGHEST_LABEL:
            self._present = None
            return
        whole, off = _nearest(numbers)
        self._off = max(self._off, off)
        self._present[whole.astype(np.int64).ravel() - AIR_BELOW_HU] = True
        if self._off > NEARLY_WHOLE or np.count_nonzero(self._present) > MAX_LABEL_VALUES:
            self._present = None


def slice_print(hu: NDArray[np.int16]) -> str:
    """Return a hash of how often each HU occurs in a slice: noise makes it the slice's own, also turned or mirrored.

    Empty where the values hardly differ: slices of nothing but air or padding are alike in many patients.
    """
    return _print_of(np.bincount(hu.ravel().astype(np.int32) - AIR_HU))


def _print_of(counts: NDArray[np.int64]) -> str:
    """Return the print of a slice from how often each HU from air on occurs."""
    low, high = (int(value) for value in np.flatnonzero(counts)[[0, -1]])
    if high - low < MIN_HU_SPREAD:
        return ""
    return combine([str(low + AIR_HU), sha256_array(np.ascontiguousarray(counts[low : high + 1]))])


def read_hu(path: Path, *data: Path) -> tuple[NDArray[np.int16], Geometry, list[str]]:
    """Read a volume file as HU.

    Args:
        path: the file.
        data: of a detached header, the file with its voxels.

    Returns:
        HU (slice, row, column): rounded, not below -1024; the geometry; and warnings.

    Raises:
        SeriesError: the file is damaged, or its values cannot be HU.
    """
    volume = open_volume([path, *data])
    volume.check_length()
    hu, survey = np.empty(volume.geometry.shape, dtype=np.int16), Survey()
    for piece in volume.pieces():
        rows = slice(piece.row, piece.row + len(piece.values))
        hu[piece.slice, rows] = survey.add(piece.slice, volume.geometry.shape[1], piece.values)
    return hu, volume.geometry, [*volume.warnings, *(survey.warnings() if not survey.is_label else [])]


def read_label(path: Path, *data: Path) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], Geometry, list[str]]:
    """Read a volume file as whole label values.

    Args:
        path: the file.
        data: of a detached header, the file with its voxels.

    Returns:
        Values (slice, row, column), the geometry, and warnings.

    Raises:
        LabelError: the file is damaged, or values are not whole numbers from 0 to 65535.
    """
    try:
        volume = open_volume([path, *data])
        volume.check_length()
        off = 0.0
        label: NDArray[np.uint8] | NDArray[np.uint16] = np.empty(volume.geometry.shape, dtype=np.uint8)
        for piece in volume.pieces():
            whole, more = _whole_numbers(piece.values, path.name)
            off = max(off, more)
            if whole.dtype != label.dtype and whole.max() > np.iinfo(label.dtype).max:
                label = label.astype(np.uint16)
            label[piece.slice, piece.row : piece.row + len(whole)] = whole
    except SeriesError as error:
        raise LabelError(str(error)) from error
    return label, volume.geometry, [*volume.warnings, *([_rounded(off)] if off > _EXACT else [])]


def _whole_numbers(values: NDArray[Any], file: str) -> tuple[NDArray[np.uint16], float]:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise LabelError(f"{file}: label values must be whole numbers, some voxels are no numbers; store 0 there")
    whole, off = _nearest(values)
    if off > NEARLY_WHOLE:
        raise LabelError(f"{file}: label values must be whole numbers; export a label map, not probabilities")
    if whole.min() < 0 or whole.max() > _HIGHEST_LABEL:
        raise LabelError(
            f"{file}: values run from {whole.min():g} to {whole.max():g}, label values must lie within 0 and "
            f"{_HIGHEST_LABEL}; is it a label at all?"
        )
    return whole.astype(np.uint16), off


def _nearest(values: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Return the nearest whole numbers, and how far the values are from them at most."""
    if values.dtype.kind != "f":
        return values, 0.0
    whole = np.rint(values)
    return whole, float(np.abs(values - whole).max(initial=0.0))


def _rounded(off: float) -> str:
    return f"label values are up to {off:.1g} beside whole numbers; they are rounded"
