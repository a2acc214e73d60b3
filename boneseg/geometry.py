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


@dataclass(frozen=True, eq=False)
class Geometry:
    """Shape of a volume and its place in the patient.

    Attributes:
        shape: voxels as (slices, rows, columns).
        affine: 4x4, from index (slice, row, column, 1) to LPS millimetres (x, y, z, 1).
    """

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between neighbouring voxels as (slice, row, column)."""
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

    @property
    def diagonal_mm(self) -> float:
        """Length of the volume's diagonal in millimetres."""
        return float(np.linalg.norm(np.array(self.shape) * np.array(self.spacing)))

    def to_patient(self, indices: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map indices (N, 3) as (slice, row, column) to LPS millimetres (N, 3) as (x, y, z)."""
        return indices @ self.affine[:3, :3].T + self.affine[:3, 3]

    def close_to(self, other: Geometry, tolerance_mm: float = 0.1) -> bool:
        """Say whether both have the same shape and every corner lies within ``tolerance_mm``."""
        if self.shape != other.shape:
            return False
        corners = np.array([[z, y, x] for z in (0, 1) for y in (0, 1) for x in (0, 1)], dtype=np.float64)
        corners *= np.array(self.shape) - 1
        return bool(np.abs(self.to_patient(corners) - other.to_patient(corners)).max() <= tolerance_mm)

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
        return isinstance(other, Geometry) and self.close_to(other, tolerance_mm=1e-3)

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
    return Geometry(shape, affine), Reorientation(order, flips)


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
        The geometry by DICOM PS3.3 C.7.6.2.1.1, with the slice step from the first to the last position.
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
    return Geometry((len(positions), rows, columns), affine)


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
