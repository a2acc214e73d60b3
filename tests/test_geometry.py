from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st

from boneseg.geometry import Geometry, Uneven, axial, from_dicom, from_nifti, to_axial, to_nifti_affine
from boneseg.storage.catalogue import GeometryRecord

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


PLACES = np.array([0.0, 3.0, 6.0, 10.0, 14.0])


def uneven(directions: np.ndarray, tilt: float = 0.0) -> Geometry:
    """Five slices, the last two farther apart, stacked along the slices' normal or tilted to it."""
    line = directions[:, 0] + tilt * directions[:, 1]
    positions = np.array([10.0, -20, 30]) + PLACES[:, np.newaxis] * line
    orientation = np.concatenate([directions[:, 2], directions[:, 1]])
    return from_dicom(positions, orientation, (1.0, 2.0), rows=4, columns=6)


def right_handed() -> list[np.ndarray]:
    """Return the ways to store slices that from_dicom knows: it sorts them along their normal."""
    return [axes for axes in signed_permutations() if np.allclose(np.cross(axes[:, 2], axes[:, 1]), axes[:, 0])]


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize("directions", right_handed())
def test_uneven_slices_stay_where_they_are_in_every_order_of_axes(directions: np.ndarray, tilt: float) -> None:
    geometry = uneven(directions, tilt)
    for index, place in enumerate(PLACES):
        point = geometry.to_patient(np.array([[index, 2.0, 3.0]]))[0]
        stacked = np.array([10.0, -20, 30]) + place * (directions[:, 0] + tilt * directions[:, 1])
        assert point == pytest.approx(stacked + 2.0 * directions[:, 1] + 3.0 * 2.0 * directions[:, 2])
    target, reorientation = to_axial(geometry)
    array = np.arange(5 * 4 * 6).reshape(geometry.shape)
    turned = reorientation.apply(array)
    assert target.uneven is not None
    for index in np.ndindex(turned.shape):
        before = np.argwhere(array == turned[index]).astype(float)
        there = target.to_patient(np.array([index], dtype=float))
        assert there == pytest.approx(geometry.to_patient(before))
        assert target.to_index(there)[0] == pytest.approx(index, abs=1e-6)
    assert to_axial(target)[0] == target


def test_slices_rounded_to_a_tenth_of_a_millimetre_are_even() -> None:
    exact = np.outer(np.arange(80) * 0.625, [0.0, 0.0, 1.0])
    assert from_dicom(np.round(exact, 1), np.array([1.0, 0, 0, 0, 1, 0]), (1, 1), 4, 4).uneven is None
    assert from_dicom(np.round(exact), np.array([1.0, 0, 0, 0, 1, 0]), (1, 1), 4, 4).uneven is not None


def test_small_differences_that_add_up_are_uneven() -> None:
    """Half of the slices every 1.00 mm, half every 1.03 mm: in the middle the mean is 3 mm off."""
    steps = np.repeat([1.0, 1.03], 200)
    places = np.concatenate([[0.0], np.cumsum(steps)])
    geometry = from_dicom(np.outer(places, [0, 0, 1.0]), np.array([1.0, 0, 0, 0, 1, 0]), (1, 1), 4, 4)
    assert geometry.uneven is not None
    assert geometry.to_patient(np.array([[200.0, 0, 0]]))[0] == pytest.approx([0, 0, 200.0])


def test_geometries_with_slices_at_other_places_differ() -> None:
    geometry = uneven(np.eye(3)[:, ::-1])
    even = Geometry(geometry.shape, geometry.affine)
    assert geometry == uneven(np.eye(3)[:, ::-1])
    assert geometry != even
    assert even != geometry
    assert not even.close_to(geometry, tolerance_mm=0.4)
    assert even.close_to(geometry, tolerance_mm=1.1)  # the mean distance is 3.5 mm: slices 1, 2 and 3 lie beside it
    moved = Geometry(geometry.shape, geometry.affine, Uneven(0, (0.0, 3.0, 6.5, 10.0, 14.0)))
    assert not geometry.close_to(moved)


def test_an_uneven_geometry_comes_back_from_json_and_old_records_are_even() -> None:
    geometry = uneven(np.eye(3)[:, ::-1])
    assert GeometryRecord.model_validate_json(GeometryRecord.of(geometry).model_dump_json()).geometry() == geometry
    old = {"shape": geometry.shape, "affine": geometry.affine.tolist()}
    assert GeometryRecord.model_validate(old).geometry() == Geometry(geometry.shape, geometry.affine)


def test_a_part_keeps_its_places() -> None:
    geometry = uneven(np.eye(3)[:, ::-1])
    for start, stop in ((0, 3), (1, 5), (2, 4), (3, 4), (0, 5)):
        part = geometry.part(slice(start, stop))
        for index in range(stop - start):
            before = geometry.to_patient(np.array([[start + index, 1.0, 2.0]]))
            assert part.to_patient(np.array([[index, 1.0, 2.0]])) == pytest.approx(before)
    assert geometry.part(slice(0, 3)).uneven is None
    assert geometry.part(slice(1, 5)).uneven is not None


def test_slices_are_found_in_a_longer_series_even_or_not() -> None:
    """As a label that leaves out empty slices lies on its series."""
    directions = np.eye(3)[:, ::-1]
    geometry = uneven(directions)
    orientation = np.concatenate([directions[:, 2], directions[:, 1]])

    def label(*places: float, rows: int = 4, shift: float = 0.0) -> Geometry:
        positions = np.array([[10.0 + shift, -20, 30 + place] for place in places])
        return from_dicom(positions, orientation, (1.0, 2.0), rows, 6, thickness=3.0)

    for places, expected in (((0, 3, 6), [0, 1, 2]), ((0, 3, 10, 14), [0, 1, 3, 4]), ((10,), [3]), ((6, 14), [2, 4])):
        found = label(*places).slices_in(geometry)
        assert found is not None
        assert found.tolist() == expected
    assert label(0, 3.5, 7).slices_in(geometry) is None
    assert label(0, 3, 17).slices_in(geometry) is None
    assert label(-3, 0, 3).slices_in(geometry) is None
    assert label(0, 3, rows=5).slices_in(geometry) is None
    assert label(0, 3, shift=1.0).slices_in(geometry) is None
    assert label(0, 3, shift=0.2).slices_in(geometry) is not None
    assert axial((3, 4, 4), (2, 1, 1)).slices_in(axial((9, 4, 4), (1, 1, 1))) is not None
