"""Label volumes as DICOM SEG: reading. ``segmentation_write`` writes them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.dicom.decode import decoded
from boneseg.dicom.file import broken, inflated
from boneseg.dicom.segmentation_frames import LABELMAP, SegHeader, read_seg_header
from boneseg.errors import LabelError, SeriesError
from boneseg.geometry import Geometry
from boneseg.memory_budget import check_volume, claim

_BYTES_A_PIXEL = 8
"""What a pixel of a frame takes at most on its way."""


def read_segmentation(path: Path) -> tuple[NDArray[np.uint8], Geometry, dict[int, str]]:
    """Read a DICOM SEG of type BINARY, FRACTIONAL (counted from one half) or LABELMAP.

    Files may leave out empty frames: the volume has the slices that have frames, each at its own place, and what
    lies between them is background. Where segments overlap, the smaller one is kept: bone inside a body outline stays
    bone.

    Returns:
        Segment numbers (slice, row, column) sorted along the frames' normal, their geometry, and segment names.

    Raises:
        LabelError: not a segmentation of parallel frames, or damaged.
    """
    seg = read_seg_header(path)
    try:
        check_volume(path.name, math.prod(seg.geometry.shape))
    except SeriesError as error:
        raise LabelError(str(error)) from error
    volume = np.zeros(seg.geometry.shape, dtype=np.uint8)
    ranks = _ranks(path, seg)
    for number, place, frame in _frames(path, seg):
        target = volume[place]
        if seg.kind == LABELMAP:
            target[:] = frame
        else:
            target[(frame >= seg.threshold) & (ranks[target] < ranks[number])] = number
    return volume, seg.geometry, seg.names


def what_is_drawn(path: Path, seg: SegHeader) -> tuple[tuple[int, ...], str]:
    """Look through the frames, in little memory.

    Returns:
        The numbers of the segments that have voxels, and a hash of segments, places and voxels of the frames that are
        not empty.

    Raises:
        LabelError: frames are damaged, or a label map holds values that it does not describe.
    """
    digest = hashlib.sha256(str(seg.geometry.shape[1:]).encode())
    present: set[int] = set()
    for number, index, frame in _frames(path, seg):
        drawn = frame if seg.kind == LABELMAP else np.packbits(frame >= seg.threshold)
        if drawn.any():
            present.update(np.unique(frame[frame > 0]).tolist() if seg.kind == LABELMAP else [number])
            x, y, z = seg.geometry.to_patient(np.array([[index, 0.0, 0.0]]))[0]
            digest.update(f"{number} {x:.2f} {y:.2f} {z:.2f} ".encode() + np.ascontiguousarray(drawn).tobytes())
    return tuple(sorted(present)), digest.hexdigest()


def _sizes(path: Path, seg: SegHeader) -> NDArray[np.int64]:
    """Count the voxels of each segment."""
    sizes = np.zeros(256, dtype=np.int64)
    for number, _, frame in _frames(path, seg):
        if seg.kind == LABELMAP:
            sizes += np.bincount(frame.ravel(), minlength=256)
        else:
            sizes[number] += np.count_nonzero(frame >= seg.threshold)
    return sizes


def _ranks(path: Path, seg: SegHeader) -> NDArray[np.int64]:
    """Return for each segment number how it overrides others: smaller segments do, and all do the background."""
    ranks = np.zeros(256, dtype=np.int64)
    alone = len(set(seg.numbers.tolist())) < 2
    sizes = np.zeros(256, dtype=np.int64) if alone else _sizes(path, seg)
    for rank, number in enumerate(sorted(seg.names, key=lambda number: -sizes[number])):
        ranks[number] = rank + 1
    return ranks


def _frames(path: Path, seg: SegHeader) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Give segment, slice and stored values (rows, columns) of each frame."""
    pixels = seg.header.rows * seg.header.columns
    try:
        with claim(path.name, pixels * _BYTES_A_PIXEL + 3 * seg.pixels.size):
            frames = zip(seg.numbers.tolist(), seg.slices.tolist(), _stored(path, seg), strict=True)
            for number, place, frame in frames:
                yield number, place, _described(path, seg, frame) if seg.kind == LABELMAP else frame
    except SeriesError as error:
        raise LabelError(str(error)) from error


def _described(path: Path, seg: SegHeader, frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Refuse a label map with values that no segment stands for."""
    for value in np.unique(frame).tolist():
        if value and value not in seg.names:
            raise LabelError(
                f"{path.name}: holds the value {value}, of a segment that it does not describe; export it again"
            )
    return frame.astype(np.uint8)


def _stored(path: Path, seg: SegHeader) -> Iterator[NDArray[Any]]:
    """Give the stored values of each frame; plain ones come straight from their place in the file."""
    rows, columns, pixels = seg.header.rows, seg.header.columns, seg.pixels
    if pixels.offset is None:
        memory = rows * columns * _BYTES_A_PIXEL + 3 * pixels.size
        yield from decoded(path, seg.header.transfer_syntax, (seg.header.frames, rows, columns), memory)
        return
    content = inflated(path, pixels.size) if pixels.deflated else None
    bits = rows * columns * pixels.bits_allocated
    with path.open("rb") as file:
        for index in range(seg.header.frames):
            # Single bits are packed across frames: a frame may start in the middle of a byte.
            first, start = divmod(index * bits, 8)
            size = (start + bits + 7) // 8
            place = pixels.offset + first
            if content is None:
                file.seek(place)
                data = file.read(size)
            else:
                data = content[place : place + size]
            if len(data) != size:
                raise broken(path)
            yield _unpacked(data, start, pixels.bits_allocated, rows, columns)


def _unpacked(data: bytes, start: int, bits: int, rows: int, columns: int) -> NDArray[Any]:
    if bits == 1:
        flat = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")[start : start + rows * columns]
    else:
        flat = np.frombuffer(data, dtype=np.dtype(f"<u{bits // 8}"))
    return flat.reshape(rows, columns)
