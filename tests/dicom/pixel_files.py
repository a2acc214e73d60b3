"""A small CT series whose files tests change."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.series import read_slice
from boneseg.errors import SeriesError
from boneseg.geometry import axial

SHAPE = (3, 64, 64)
Change = Callable[[pydicom.Dataset], object]


def body(seed: int = 0) -> NDArray[np.int16]:
    """Air around a body with noise and a bright bone; nothing of it touches the border."""
    random = np.random.default_rng(seed)
    _, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    inside, bone = (y - 32) ** 2 + (x - 32) ** 2 < 24**2, (y - 36) ** 2 + (x - 30) ** 2 < 6**2
    hu = np.where(inside, 40, -1000) + random.integers(-15, 16, SHAPE)
    return np.where(bone, 1500, hu).astype(np.int16)


def slices(folder: Path, change: Change = lambda _: None, hu: NDArray[np.int16] | None = None) -> list[Path]:
    """Write a series, each file changed."""
    paths = write_ct_series(folder, body() if hu is None else hu, axial(SHAPE, (3, 0.8, 0.8)), identity=str(folder))
    for path in paths:
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(path)
    return paths


def store(data: pydicom.Dataset, values: NDArray[np.generic], *, stored: int = 16, signed: bool = False) -> None:
    """Put stored values into a file."""
    data.BitsStored, data.HighBit, data.PixelRepresentation = stored, stored - 1, int(signed)
    data.PixelData = (values.astype(np.int64) & 0xFFFF).astype("<u2").tobytes()


def raw(data: pydicom.Dataset) -> NDArray[np.int64]:
    """Return stored values."""
    return np.frombuffer(data.PixelData, "<u2").astype(np.int64).reshape(SHAPE[1:])


def refusal(path: Path) -> str:
    """Return why a slice is refused."""
    with pytest.raises(SeriesError) as caught:
        read_slice(path)
    assert path.name in str(caught.value)
    return str(caught.value)
