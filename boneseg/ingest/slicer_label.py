"""Layers of a segmentation of 3D Slicer: voxels become the numbers of segments, which no two segments share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.errors import LabelError, SeriesError
from boneseg.ingest.volume_files import VolumeFile
from boneseg.slicer_segments import MOST_VALUE, Segment

Numbers = NDArray[Any]
"""uint8, or uint16 where there are numbers above 255."""


def read_segments(volume: VolumeFile) -> list[tuple[Numbers, tuple[Segment, ...]]]:
    """Read a segmentation.

    Returns:
        For each layer its numbers of segments (slice, row, column), 0 where there is none, and its segments.

    Raises:
        LabelError: the file is damaged, or a value is no segment's.
    """
    try:
        volume.check_length()
        highest = max((one.number for one in volume.segments or ()), default=0)
        kind = np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16
        layers = [np.zeros(volume.geometry.shape, dtype=kind) for _ in range(volume.layers)]
        for index, row, layer, numbers in _numbered(volume):
            layers[layer][index, row : row + len(numbers)] = numbers
    except SeriesError as error:
        raise LabelError(str(error)) from error
    segments = volume.segments or ()
    return [(found, tuple(one for one in segments if one.layer == number)) for number, found in enumerate(layers)]


def what_is_drawn(volume: VolumeFile) -> tuple[tuple[int, ...], str]:
    """Look through a segmentation, in little memory.

    Returns:
        The numbers of the segments that have voxels, and a hash of all layers.

    Raises:
        LabelError: the file is damaged, or a value is no segment's.
    """
    present = np.zeros(MOST_VALUE + 1, dtype=bool)
    digests = [hashlib.sha256() for _ in range(volume.layers)]
    try:
        for _, _, layer, numbers in _numbered(volume):
            present[numbers] = True
            digests[layer].update(np.ascontiguousarray(numbers).data)
    except SeriesError as error:
        raise LabelError(str(error)) from error
    drawn = " ".join(digest.hexdigest() for digest in digests)
    values = tuple(int(number) for number in np.flatnonzero(present) if number > 0)
    return values, hashlib.sha256(drawn.encode()).hexdigest()


def _numbered(volume: VolumeFile) -> Iterator[tuple[int, int, int, Numbers]]:
    """Give slice, first row, layer and numbers of segments (rows, columns) of each piece."""
    tables = np.zeros((volume.layers, MOST_VALUE + 1), dtype=np.uint16)
    for segment in volume.segments or ():
        tables[segment.layer, segment.value] = segment.number
    for piece in volume.pieces():
        values = piece.values.reshape(*piece.values.shape[:2], volume.layers)
        if values.min() < 0 or values.max() > MOST_VALUE:
            raise _unknown(volume)
        for layer in range(volume.layers):
            own = values[..., layer]
            numbers = tables[layer][own]
            if ((numbers == 0) & (own > 0)).any():
                raise _unknown(volume)
            yield piece.slice, piece.row, layer, numbers


def _unknown(volume: VolumeFile) -> LabelError:
    return LabelError(f"{volume.path.name}: holds a value of no segment that it describes; save it again in 3D Slicer")
