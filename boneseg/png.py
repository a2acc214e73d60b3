"""Pictures as PNG: the only place that imports Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from boneseg.errors import SeriesError

Grey = NDArray[np.uint8] | NDArray[np.uint16]
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LONGEST_SIDE = 8192
_GREY = {"1", "L", "P", "I;16", "I"}
"""Pillow's modes of pictures with one number a pixel; of palettes (``P``) the number is what counts."""


def is_png(path: Path) -> bool:
    """Say whether a file starts as a PNG file does."""
    with path.open("rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE


def read_png(path: Path) -> Grey:
    """Read a picture with one number a pixel.

    Returns:
        (row, column), uint8 or uint16. Of colours that are all grey, the grey; of a palette, the places in it.

    Raises:
        SeriesError: it is damaged, has colours, or is larger than 8192 pixels a side.
    """
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if max(picture.size) > _LONGEST_SIDE:
                raise SeriesError(f"{path.name}: more than {_LONGEST_SIDE} pixels a side; no CT slice is as large")
            values: NDArray[Any] = np.asarray(picture)
            mode = picture.mode
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise SeriesError(f"{path.name}: a damaged PNG picture; copy it again") from error
    if mode not in _GREY:
        values = _grey(values, path)
    small = values.dtype.kind == "b" or values.dtype.itemsize == 1
    return values.astype(np.uint8) if small else values.astype(np.uint16)


def _grey(values: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return the grey of a picture in colours that are none; opacity plays no part."""
    channels = values.reshape(*values.shape[:2], -1)
    colours = channels[..., :3] if channels.shape[2] > 2 else channels[..., :1]
    if (colours != colours[..., :1]).any():
        raise SeriesError(f"{path.name}: a PNG picture in colours; save slices and masks with one number a pixel")
    return np.ascontiguousarray(colours[..., 0])


def write_png(path: Path, values: Grey) -> None:
    """Write a grey picture (row, column) of 8 or 16 bits, or one in colours (row, column, 3) of 8 bits."""
    Image.fromarray(values).save(path, format="PNG")


def size_of_png(data: bytes) -> tuple[int, int]:
    """Return columns and rows of a PNG file, as its header says."""
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
