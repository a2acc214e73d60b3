"""Whether a place that a volume's header states can be that of a CT, and what is assumed where it states none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boneseg.errors import SeriesError
from boneseg.geometry import Affine, from_nifti

VOXEL_MM = (0.01, 100.0)
"""Smallest and largest edge of a voxel that a CT can have."""
FARTHEST_MM = 1e5
"""How far from the origin of its coordinates a volume may lie."""
_FLATTEST = 0.1
"""Least volume of a voxel as a share of the box of its edges: below, the axes are hardly three."""


def check_place(affine: Affine, sizes: tuple[int, int, int], what: str, name: str, form: str) -> None:
    """Refuse an affine that no CT has.

    Args:
        affine: 4x4 from (i, j, k, 1) to mm; LPS or RAS.
        sizes: voxels along i, j and k.
        what: the fields of the header that give it, for messages.
        name: of the file.
        form: name of the file format.

    Raises:
        SeriesError: it holds what is no number, impossible voxels, axes that span no volume, or lies too far away.
    """
    if not np.isfinite(affine).all():
        raise damaged_header(name, form, f"{what} holds what is no number")
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if not (VOXEL_MM[0] <= edges.min() and edges.max() <= VOXEL_MM[1]):
        text = " x ".join(f"{edge:.3g}" for edge in edges)
        raise SeriesError(
            f"{name}: the {form} header gives no possible voxel size ({text} mm by {what}); convert the series again"
        )
    if abs(np.linalg.det(affine[:3, :3])) < _FLATTEST * edges.prod():
        raise SeriesError(
            f"{name}: the axes of {what} do not span a volume; convert the series again, or resample it to axes at "
            "right angles"
        )
    farthest = float(np.abs(from_nifti((sizes[2], sizes[1], sizes[0]), affine).corners()).max())
    if farthest > FARTHEST_MM:
        raise damaged_header(name, form, f"{what} puts the volume {farthest / 1000:.3g} m away")


def guessed_place(edges: NDArray[np.float64], sizes: tuple[int, int, int]) -> Affine:
    """Return the RAS affine that programs assume (nibabel, SPM) where only voxel sizes are given.

    Args:
        edges: mm along i, j and k.
        sizes: voxels along them.

    Returns:
        4x4: the volume lies around the origin, i runs to the patient's left.
    """
    steps = edges * (-1, 1, 1)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(steps)
    affine[:3, 3] = -steps * (np.array(sizes) - 1) / 2
    return affine


def damaged_header(name: str, form: str, why: str) -> SeriesError:
    """Return the error for a header that contradicts itself or is cut short."""
    return SeriesError(f"{name}: the {form} header is damaged ({why}); copy the file again or convert it again")
