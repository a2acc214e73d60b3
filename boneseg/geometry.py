"""Where voxels are in the patient: spacing, orientation, affine.

Arrays are indexed (slice, row, column). Points are millimetres in the patient's LPS system of DICOM: x grows to
the patient's left, y to the back, z to the head. NIfTI counts x and y the other way (RAS).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)
Affine = NDArray[np.float64]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_CODES = (("R", "L"), ("A", "P"), ("I", "S"))
_AXIAL = np.eye(3)[::-1]  # slice -> +z, row -> +y, column -> +x
EVEN_MM, _EVEN_SHARE = 0.1, 0.2
"""Slices are even where none lies farther than this, in mm and in distances of two slices, from its regular place."""
SAME_PLACE_MM = 0.1
"""Two files of one grid agree within this at every corner: rounding of positions and cosines in headers stays below it,
and pixels of clinical CT are larger."""
SAME_GEOMETRY_MM = 1e-3
"""Two geometries are equal within this: what single precision in an affine leaves of one that was written and read."""
ON_GRID_VOXELS = 0.2
"""Slices are those of another volume within this, in its voxels: more than rounding adds up to over a whole series, and
so much less than half a voxel that nobody can mean the next one."""
_CORNERS = np.array([[z, y, x] for z in (0, 1) for y in (0, 1) for x in (0, 1)], dtype=np.float64)


@dataclass(frozen=True)
class Uneven:
    """Where slices lie that are not evenly apart.

    Attributes:
        axis: the array's axis that counts these slices: 0 as read, another one where axial order exchanges axes.
        offsets: mm from the first slice to each slice along the affine's direction of that axis; rises from 0.
    """

    axis: int
    offsets: tuple[float, ...]

    def part(self, kept: slice) -> Uneven:
        """Return the offsets of some of the slices, which may be even among themselves."""
        some = self.offsets[kept]
        return Uneven(self.axis, tuple(offset - some[0] for offset in some))

    def reversed(self) -> Uneven:
        """Return the offsets of the slices counted from the other end."""
        return Uneven(self.axis, tuple(self.offsets[-1] - offset for offset in reversed(self.offsets)))


@dataclass(frozen=True, eq=False)
class Geometry:
    """Shape of a volume and its place in the patient.

    Attributes:
        shape: voxels as (slices, rows, columns).
        affine: 4x4, from index (slice, row, column, 1) to LPS millimetres (x, y, z, 1). Where slices are uneven, its
            step is their mean distance: the first and the last slice lie where it says, those between do not.
        uneven: where the slices lie if not evenly apart; none = as the affine says.
    """

    shape: tuple[int, int, int]
    affine: Affine
    uneven: Uneven | None = None

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between neighbouring voxels as (slice, row, column); the mean where slices are uneven."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def orientation(self) -> str:
        """Direction in which slice, row and column indices grow, such as ``"SPL"`` for an axial series."""
        code = ""
        for axis, vector in zip(*self._permutation(), strict=True):
            code += _CODES[axis][int(vector > 0)]
        return code

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def to_patient(self, indices: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map indices (N, 3) as (slice, row, column) to LPS millimetres (N, 3) as (x, y, z)."""
        if self.uneven is not None:
            indices = self._moved(indices, np.arange(len(self.uneven.offsets), dtype=np.float64), self._places())
        return indices @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map LPS millimetres (N, 3) to indices (N, 3) with fractions: the inverse of ``to_patient``."""
        inverse = np.linalg.inv(self.affine)
        indices: NDArray[np.float64] = points @ inverse[:3, :3].T + inverse[:3, 3]
        if self.uneven is None:
            return indices
        return self._moved(indices, self._places(), np.arange(len(self.uneven.offsets), dtype=np.float64))

    def distances(self, slices: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return mm from the first slice to places among the slices, along the line on which these are stacked.

        Args:
            slices: first index of places, with fractions, also beyond the ends.
        """
        if self.uneven is None or self.uneven.axis != 0:
            return slices * self.spacing[0]
        known = np.arange(self.shape[0], dtype=np.float64)
        beyond = slices - np.clip(slices, known[0], known[-1])
        within: NDArray[np.float64] = np.interp(slices, known, np.array(self.uneven.offsets))
        return within + beyond * self.spacing[0]

    def corners(self) -> NDArray[np.float64]:
        """Return the centres of the eight voxels at the corners, (8, 3) in LPS millimetres."""
        return self.to_patient(_CORNERS * (np.array(self.shape) - 1))

    def apart_mm(self, other: Geometry) -> float:
        """Return how far the corners of every slice are from the other's, along the worst axis; the shapes are one."""
        points = _CORNERS * (np.array(self.shape) - 1)
        for uneven in (self.uneven, other.uneven):
            if uneven is not None:
                along = np.repeat(points, len(uneven.offsets), axis=0)
                along[:, uneven.axis] = np.tile(np.arange(len(uneven.offsets)), len(points))
                points = np.concatenate([points, along])
        return float(np.abs(self.to_patient(points) - other.to_patient(points)).max())

    def close_to(self, other: Geometry, tolerance_mm: float = SAME_PLACE_MM) -> bool:
        """Say whether both have the same shape, and every corner of every slice is at the same place."""
        return self.shape == other.shape and self.apart_mm(other) <= tolerance_mm

    def slices_in(self, other: Geometry, tolerance: float = ON_GRID_VOXELS) -> NDArray[np.int64] | None:
        """Find this volume's slices among another's: every voxel must lie on one of the other's voxels.

        Args:
            other: may have more slices, evenly apart or not; rows and columns must be the same.
            tolerance: how far, in voxels of ``other``, a voxel may lie beside it.

        Returns:
            For each slice of this volume its number in ``other``, rising; none where it is not on the other's voxels.
        """
        if self.shape[1:] != other.shape[1:] or self.shape[0] > other.shape[0]:
            return None
        corners = _CORNERS[:4] * (0, *(size - 1 for size in self.shape[1:]))
        points = np.tile(corners, (self.shape[0], 1))
        points[:, 0] = np.repeat(np.arange(self.shape[0]), len(corners))
        found = other.to_index(self.to_patient(points))
        numbers = np.rint(found[:: len(corners), 0]).astype(np.int64)
        wanted = points.copy()
        wanted[:, 0] = np.repeat(numbers, len(corners))
        on_grid = np.abs(found - wanted).max() <= tolerance and numbers[0] >= 0 and numbers[-1] < other.shape[0]
        return numbers if on_grid and (np.diff(numbers) > 0).all() else None

    def part(self, kept: slice) -> Geometry:
        """Return the geometry of some neighbouring slices: ``kept`` has a start and a stop, and no step."""
        places, affine = np.arange(self.shape[0], dtype=np.float64)[kept], self.affine.copy()
        first = np.array([[places[0], 0.0, 0.0]])
        shape = (len(places), self.shape[1], self.shape[2])
        affine[:3, 3] = self.to_patient(first)[0]
        if self.uneven is None or self.uneven.axis != 0:
            return Geometry(shape, affine, self.uneven)
        rest = self.uneven.part(kept)
        if len(places) > 1:
            affine[:3, 0] *= rest.offsets[-1] / (len(places) - 1) / self.spacing[0]
        return Geometry(shape, affine, None if are_even(np.array(rest.offsets)) else rest)

    def _places(self) -> NDArray[np.float64]:
        """Return where uneven slices lie in units of their mean distance: what the affine multiplies."""
        assert self.uneven is not None
        return np.array(self.uneven.offsets) / self.spacing[self.uneven.axis]

    def _moved(
        self, indices: NDArray[np.float64], known: NDArray[np.float64], values: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Map the uneven axis' index from ``known`` to ``values``, in steps of one beyond the volume's ends."""
        assert self.uneven is not None
        moved = np.array(indices, dtype=np.float64)
        given = moved[:, self.uneven.axis]
        moved[:, self.uneven.axis] = np.interp(given, known, values) + (given - np.clip(given, known[0], known[-1]))
        return moved

    def _permutation(self) -> tuple[list[int], list[float]]:
        """For each array axis: the patient axis it runs along most, and the sign of its direction."""
        directions = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        axes = [-1, -1, -1]
        signs = [0.0, 0.0, 0.0]
        strength = np.abs(directions)
        for _ in range(3):
            patient_axis, array_axis = np.unravel_index(int(strength.argmax()), (3, 3))
            axes[array_axis] = int(patient_axis)
            signs[array_axis] = float(np.sign(directions[patient_axis, array_axis]))
            strength[patient_axis, :] = -1
            strength[:, array_axis] = -1
        return axes, signs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Geometry) and self.close_to(other, SAME_GEOMETRY_MM)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Reorientation:
    """A permutation and flips of axes that brings a volume into axial order, and back."""

    order: tuple[int, int, int]
    flips: tuple[int, ...]

    def apply(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Bring an array in the series' own order into axial order (a view)."""
        return np.flip(np.transpose(array, self.order), self.flips)

    def undo(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Bring an array in axial order back into the series' own order (a view)."""
        back = tuple(int(axis) for axis in np.argsort(self.order))
        return np.transpose(np.flip(array, self.flips), back)


def to_axial(geometry: Geometry) -> tuple[Geometry, Reorientation]:
    """Find the order in which slices run feet to head, rows front to back, columns right to left of the patient.

    Nothing is interpolated: an oblique series keeps its obliqueness. Networks and shards see volumes in this order
    only; masks go back through ``Reorientation.undo``.

    Returns:
        The geometry of the reordered volume, and the reordering itself.
    """
    axes, signs = geometry._permutation()
    order = (axes.index(2), axes.index(1), axes.index(0))
    flips = tuple(position for position, axis in enumerate(order) if signs[axis] < 0)
    affine = geometry.affine.copy()
    affine[:3, :3] = geometry.affine[:3, :3][:, order]
    shape = (geometry.shape[order[0]], geometry.shape[order[1]], geometry.shape[order[2]])
    for position in flips:
        affine[:3, 3] += affine[:3, position] * (shape[position] - 1)
        affine[:3, position] *= -1
    uneven = geometry.uneven
    if uneven is not None:
        turned = Uneven(order.index(uneven.axis), uneven.offsets)
        uneven = turned.reversed() if turned.axis in flips else turned
    return Geometry(shape, affine, uneven), Reorientation(order, flips)


def are_even(offsets: NDArray[np.float64]) -> bool:
    """Say whether slices lie evenly apart, but for what rounding of their positions does.

    Args:
        offsets: mm of each slice along the line of slices, sorted.
    """
    if len(offsets) < 3:
        return True
    regular = np.linspace(offsets[0], offsets[-1], len(offsets))
    step = abs(float(offsets[-1] - offsets[0])) / (len(offsets) - 1)
    return bool(np.abs(offsets - regular).max() <= min(EVEN_MM, _EVEN_SHARE * step))


def from_dicom(
    positions: NDArray[np.float64],
    orientation: NDArray[np.float64],
    pixel_spacing: tuple[float, float],
    rows: int,
    columns: int,
    thickness: float = 1.0,
) -> Geometry:
    """Build the geometry of slices that are already sorted.

    Args:
        positions: ImagePositionPatient of each slice, (slices, 3), LPS mm.
        orientation: ImageOrientationPatient, six direction cosines: along a row, then along a column.
        pixel_spacing: PixelSpacing: mm between rows, mm between columns.
        rows: Rows.
        columns: Columns.
        thickness: mm between slices where there is only one slice.

    Returns:
        The geometry by DICOM PS3.3 C.7.6.2.1.1, with the slice step from the first to the last position, and where
        the slices lie if they are not evenly apart.
    """
    along_row, along_column = orientation[:3], orientation[3:]
    affine = np.eye(4)
    if len(positions) > 1:
        affine[:3, 0] = (positions[-1] - positions[0]) / (len(positions) - 1)
    else:
        affine[:3, 0] = np.cross(along_row, along_column) * thickness
    affine[:3, 1] = along_column * pixel_spacing[0]
    affine[:3, 2] = along_row * pixel_spacing[1]
    affine[:3, 3] = positions[0]
    offsets = _offsets(positions)
    uneven = None if are_even(offsets) else Uneven(0, tuple(float(offset) for offset in offsets))
    return Geometry((len(positions), rows, columns), affine, uneven)


def _offsets(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mm of each position along the line from the first to the last."""
    line = positions[-1] - positions[0]
    offsets: NDArray[np.float64] = (positions - positions[0]) @ line / max(float(np.linalg.norm(line)), 1e-9)
    return offsets


def from_nifti(shape: tuple[int, int, int], affine_ras: Affine) -> Geometry:
    """Build the geometry of a NIfTI array that was transposed from (i, j, k) to (k, j, i).

    Args:
        shape: (k, j, i).
        affine_ras: 4x4 from (i, j, k, 1) to RAS mm, as NIfTI stores it.
    """
    lps = LPS_TO_RAS @ affine_ras
    affine = lps[:, [2, 1, 0, 3]].astype(np.float64)
    return Geometry(shape, affine)


def to_nifti_affine(geometry: Geometry) -> Affine:
    """Return the 4x4 RAS affine for the array transposed to (column, row, slice)."""
    return (LPS_TO_RAS @ geometry.affine)[:, [2, 1, 0, 3]]


def axial(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Geometry:
    """Return the geometry of an axial volume at the origin; spacing in mm as (slice, row, column)."""
    affine = np.eye(4)
    affine[:3, :3] = _AXIAL * np.array(spacing)
    return Geometry(shape, affine)
