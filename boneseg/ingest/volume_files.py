"""Volumes in any file format that is read, by one table: everything else asks for a volume, not for its format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneseg import itk_volume, nifti, stored_voxels
from boneseg.errors import SeriesError, quoted
from boneseg.geometry import Geometry
from boneseg.nifti_header import NiftiHeader
from boneseg.pieces import Piece
from boneseg.slicer_segments import Segment
from boneseg.storage.catalogue import FileKind
from boneseg.stored_voxels import VolumeHeader


@dataclass(frozen=True, eq=False)
class VolumeFile:
    """A volume whose header is read and sound; its voxels are not read yet.

    Attributes:
        kind: its format.
        path: of the file with the header.
        data: of the file with the voxels; ``path`` where they follow the header, none where that file is not known.
        header: as its format gives it.
    """

    kind: FileKind
    path: Path
    data: Path | None
    header: NiftiHeader | VolumeHeader

    @property
    def geometry(self) -> Geometry:
        """Of the voxels as (slice, row, column)."""
        return self.header.geometry

    @property
    def placed(self) -> bool:
        """Whether the file says where its voxels lie."""
        return self.header.placed

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the header but usable, one sentence each."""
        return self.header.warnings

    @property
    def data_file(self) -> str:
        """Name of the file beside the header that holds the voxels; empty where they follow it."""
        return self.header.data_file if isinstance(self.header, VolumeHeader) else ""

    @property
    def segments(self) -> tuple[Segment, ...] | None:
        """Of a segmentation of 3D Slicer, what its values mean; none = it is none."""
        return self.header.segments if isinstance(self.header, VolumeHeader) else None

    @property
    def layers(self) -> int:
        """Values that a voxel has; more than one only of a segmentation."""
        return self.header.layers if isinstance(self.header, VolumeHeader) else 1

    @property
    def holds_large_numbers(self) -> bool:
        """Whether its numbers have room for HU: labels mostly have one byte."""
        return self.header.kind.itemsize > 1

    @property
    def why_missing(self) -> str:
        """Say of a detached header that its voxels are not there."""
        return (
            f"the file of voxels, {quoted(self.data_file)}, is not beside its header; add it, or save both as one file"
        )

    def check_length(self) -> None:
        """Refuse a file that cannot hold what its header says, before room for it is made.

        Raises:
            SeriesError: it is cut short or too long, or the file of voxels is not known.
        """
        _FORMATS[self.kind].check_length(self._voxels(), self.header)

    def pieces(self) -> Iterator[Piece]:
        """Read the voxels piece by piece, in order, in little memory.

        Raises:
            SeriesError: the file is damaged, which may show at its very end: nothing counts before all is read.
        """
        return _FORMATS[self.kind].read_pieces(self._voxels(), self.header)

    def _voxels(self) -> Path:
        if self.data is None:
            raise SeriesError(f"{self.path.name}: {self.why_missing}")
        return self.data


@dataclass(frozen=True)
class _Format:
    is_it: Callable[[Path], bool]
    read_header: Callable[[Path], NiftiHeader | VolumeHeader]
    check_length: Callable[[Path, Any], None]
    read_pieces: Callable[[Path, Any], Iterator[Piece]]


_FORMATS = {
    FileKind.NRRD: _Format(
        itk_volume.is_nrrd, itk_volume.read_nrrd_header, stored_voxels.check_length, stored_voxels.read_pieces
    ),
    FileKind.METAIMAGE: _Format(
        itk_volume.is_metaimage, itk_volume.read_metaimage_header, stored_voxels.check_length, stored_voxels.read_pieces
    ),
    FileKind.NIFTI: _Format(nifti.is_nifti, nifti.read_header, nifti.check_length, nifti.read_pieces),
}


def volume_kind(path: Path) -> FileKind | None:
    """Return the format of a volume file by its content; none where it is none of those that are read."""
    return next((kind for kind, form in _FORMATS.items() if form.is_it(path)), None)


def open_volume(paths: Sequence[Path]) -> VolumeFile:
    """Read and check the header of a volume.

    Args:
        paths: the file, or a detached header and the file with its voxels.

    Raises:
        SeriesError: no volume, damaged, not three-dimensional, at no possible place, or too large.
    """
    path = paths[0]
    kind = volume_kind(path) or FileKind.NIFTI
    header = _FORMATS[kind].read_header(path)
    detached = isinstance(header, VolumeHeader) and header.data_file
    data = (paths[1] if len(paths) > 1 else None) if detached else path
    return VolumeFile(kind, path, data, header)
