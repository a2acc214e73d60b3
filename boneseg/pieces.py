"""Volumes piece by piece: so much of one is in memory at a time as its reader wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

PIECE_VOXELS = 1 << 18
WORK_BYTES = 40
"""What a voxel takes while it is scaled, rounded and compared."""
DEFLATE_RATIO = 1032
"""No deflated byte unpacks to more."""
BLOCK = 512
"""Media and archives pad files with zeros to a multiple of this."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Some rows of one slice.

    Attributes:
        slice: which slice they are of.
        row: the first of them.
        values: (rows, columns), scaled as the header says, and as they are stored where it does not scale; of a
            volume of several layers (rows, columns, layers).
    """

    slice: int
    row: int
    values: NDArray[Any]
