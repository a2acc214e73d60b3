"""NRRD and MetaImage volumes in, segmentations of 3D Slicer out (the only place that imports SimpleITK)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boneseg import metaimage_header, nrrd_header
from boneseg.atomic_write import atomic_write
from boneseg.errors import SeriesError
from boneseg.geometry import Geometry
from boneseg.memory_budget import check_volume
from boneseg.scheme import LabelScheme
from boneseg.slicer_segments import describe_scheme
from boneseg.stored_voxels import VolumeHeader

_MARK_BYTES = 64
_CHUNK, _LONGEST = 1 << 14, 1 << 22
"""Headers of a thousand segments have a few hundred kilobytes."""


def is_nrrd(path: Path) -> bool:
    """Say whether a file is a NRRD volume, or the header of one, by its content."""
    return nrrd_header.is_nrrd(_start(path))


def is_metaimage(path: Path) -> bool:
    """Say whether a file is a MetaImage volume, or the header of one, by its content."""
    return metaimage_header.is_metaimage(_start(path))


def read_nrrd_header(path: Path) -> VolumeHeader:
    """Read and check the header of a NRRD volume.

    Raises:
        SeriesError: damaged, not three-dimensional, at no possible place, or too large.
    """
    return _checked(path, nrrd_header.parse_header, (b"\n\n", b"\n\r\n"))


def read_metaimage_header(path: Path) -> VolumeHeader:
    """Read and check the header of a MetaImage volume.

    Raises:
        SeriesError: damaged, not three-dimensional, at no possible place, or too large.
    """
    return _checked(path, metaimage_header.parse_header, (b"ElementDataFile",))


def write_slicer_segmentation(path: Path, mask: NDArray[np.uint8], geometry: Geometry, scheme: LabelScheme) -> None:
    """Write a mask as a segmentation of 3D Slicer, one segment a class; it appears whole or not at all.

    Args:
        path: ends with ``.seg.nrrd``, by which Slicer knows a segmentation from a volume.
        mask: (slice, row, column), values of the scheme.
        geometry: of the mask.
        scheme: names, colours and codes of the segments.
    """
    import SimpleITK

    image = SimpleITK.GetImageFromArray(mask)
    steps = geometry.affine[:3, [2, 1, 0]]
    edges = np.linalg.norm(steps, axis=0)
    image.SetSpacing(edges.tolist())
    image.SetDirection((steps / edges).ravel().tolist())
    image.SetOrigin(geometry.affine[:3, 3].tolist())
    for key, value in describe_scheme(mask, scheme).items():
        image.SetMetaData(key, value)
    try:
        with atomic_write(path) as partial:
            SimpleITK.WriteImage(image, str(partial), useCompression=True)
    except RuntimeError as error:
        raise SeriesError(f"{path.name}: cannot be written; free some space, or choose another --out") from error


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MARK_BYTES)


def _checked(path: Path, parse: Callable[[bytes, str], VolumeHeader], ends: tuple[bytes, ...]) -> VolumeHeader:
    header = parse(_header_bytes(path, ends), path.name)
    check_volume(path.name, 2 * math.prod(header.geometry.shape) * header.layers)
    return header


def _header_bytes(path: Path, ends: tuple[bytes, ...]) -> bytes:
    """Return the start of a file up to the end of its header, and a little more."""
    data = b""
    with path.open("rb") as file:
        while len(data) < _LONGEST:
            more = file.read(_CHUNK)
            if not more:
                return data
            before = max(0, len(data) - len(ends[-1]))
            data += more
            if any(end in data[before:] for end in ends):
                return data + file.read(_CHUNK)
    raise SeriesError(
        f"{path.name}: the header is longer than {_LONGEST} bytes; copy the file again or convert it again"
    )
