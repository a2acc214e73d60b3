from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st

from boneseg.geometry import Geometry, axial, from_dicom, from_nifti, to_axial, to_nifti_affine

SHAPE, SPACING = (3, 4, 5), (3.0, 1.0, 2.0)


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """Return a rotation about x, then y, then z."""
    transform = SimpleITK.Euler3DTransform((0, 0, 0), *np.radians(degrees))
    return np.array(transform.GetMatrix()).reshape(3, 3)


def signed_permutations() -> list[np.ndarray]:
    """Return all 48 ways in which array axes can run along patient axes."""
    axes = [np.eye(3)[:, list(order)] for order in permutations(range(3))]
    return [axis * signs for axis in axes for signs in product((1, -1), repeat=3)]


def of(directions: np.ndarray, shape: tuple[int, int, int] = SHAPE) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = directions * SPACING
    affine[:3, 3] = (10, -20, 30)
    return Geometry(shape, affine)


def test_points_are_where_simpleitk_puts_them() -> None:
    turn = rotation((10, 20, 30))
    image = SimpleITK.Image(5, 4, 3, SimpleITK.sitkInt16)  # x, y, z = column, row, slice
    image.SetSpacing((2.0, 1.0, 3.0))
    image.SetOrigin((10, -20, 30))
    image.SetDirection(turn.ravel().tolist())
    geometry = of(turn[:, ::-1])
    for index in ((0, 0, 0), (2, 3, 4), (1, 0, 3)):
        expected = image.TransformIndexToPhysicalPoint(index[::-1])
        assert geometry.to_patient(np.array([index], dtype=float))[0] == pytest.approx(expected)
    assert geometry.spacing == pytest.approx((3.0, 1.0, 2.0))
    assert geometry.voxel_volume_ml == pytest.approx(0.006)
    assert geometry.diagonal_mm == pytest.approx(np.sqrt(9**2 + 4**2 + 10**2))


@pytest.mark.parametrize("directions", signed_permutations())
def test_every_order_of_axes_becomes_axial_and_comes_back(directions: np.ndarray) -> None:
    geometry = of(directions)
    array = np.arange(60).reshape(SHAPE)
    target, reorientation = to_axial(geometry)
    turned = reorientation.apply(array)
    assert target.orientation == "SPL"
    assert turned.shape == target.shape
    assert np.array_equal(reorientation.undo(turned), array)
    for index in np.ndindex(turned.shape):  # each value stays where it was in the patient
        before = np.argwhere(array == turned[index]).astype(float)
        assert target.to_patient(np.array([index], dtype=float)) == pytest.approx(geometry.to_patient(before))


@given(st.tuples(*[st.floats(-40, 40)] * 3))
def test_oblique_volumes_keep_their_place(degrees: tuple[float, float, float]) -> None:
    geometry = of(rotation(degrees)[:, ::-1])
    target, reorientation = to_axial(geometry)
    array = np.arange(60).reshape(SHAPE)
    turned = reorientation.apply(array)
    corner = np.argwhere(array == turned[0, 0, 0]).astype(float)
    assert target.to_patient(np.zeros((1, 3))) == pytest.approx(geometry.to_patient(corner), abs=1e-6)
    assert sorted(target.spacing) == pytest.approx(sorted(geometry.spacing))
    assert np.diag(target.affine[:3, :3][::-1]) == pytest.approx(np.abs(np.diag(target.affine[:3, :3][::-1])))


@pytest.mark.parametrize("directions", signed_permutations())
def test_orientation_agrees_with_nibabel(directions: np.ndarray) -> None:
    geometry = of(directions)
    codes = nib.aff2axcodes(to_nifti_affine(geometry))  # column, row, slice
    assert geometry.orientation == "".join(codes[::-1])


def test_dicom_tags_give_the_affine_of_the_standard() -> None:
    positions = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 5.5], [1.0, 2.0, 8.0]])
    orientation = np.array([0.0, 1, 0, 0, 0, -1])  # rows run to the back, columns to the feet
    geometry = from_dicom(positions, orientation, (0.5, 0.25), rows=7, columns=9)
    assert geometry.shape == (3, 7, 9)
    point = geometry.to_patient(np.array([[2.0, 3.0, 4.0]]))[0]
    # PS3.3 C.7.6.2.1.1: S + X * spacing between columns * column + Y * spacing between rows * row
    assert point == pytest.approx([1.0, 2.0 + 4 * 0.25, 8.0 - 3 * 0.5])
    assert geometry.spacing == pytest.approx((2.5, 0.5, 0.25))


def test_one_slice_takes_its_thickness() -> None:
    geometry = from_dicom(np.zeros((1, 3)), np.array([1.0, 0, 0, 0, 1, 0]), (1, 1), 2, 2, thickness=4.0)
    assert geometry.spacing == (4.0, 1.0, 1.0)
    assert geometry.orientation == "SPL"


def test_nifti_affine_comes_back() -> None:
    geometry = of(rotation((5, 6, 7)))
    assert from_nifti(SHAPE, to_nifti_affine(geometry)) == geometry


def test_close_to_measures_at_the_corners() -> None:
    geometry = axial((100, 100, 100), (1, 1, 1))
    stretched = axial((100, 100, 100), (1.002, 1, 1))  # 0.198 mm off at the far end
    assert not geometry.close_to(stretched, tolerance_mm=0.1)
    assert geometry.close_to(stretched, tolerance_mm=0.2)
    assert not geometry.close_to(axial((100, 100, 101), (1, 1, 1)))
