"""Which plane of contours is which slice: slices of any direction and distance, planes left out, gaps, real bones."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from boneseg.dicom.contours import read_structures
from boneseg.dicom.polygons import fill
from boneseg.errors import LabelError
from boneseg.geometry import Geometry, axial, from_dicom
from boneseg.nifti import read_volume
from tests.dicom.contour_files import contours_of, halfway, rtstruct, through_centres
from tests.dicom.test_contours import SHAPE, ball, blobs, drawn

DIRECTIONS = {"axial": [1, 0, 0, 0, 1, 0], "sagittal": [0, 1, 0, 0, 0, -1], "coronal": [1, 0, 0, 0, 0, -1]}


def stacked(direction: str, offsets: list[float]) -> Geometry:
    """Return slices of a direction, at distances from the first in mm."""
    cosines = np.array(DIRECTIONS[direction], dtype=float)
    normal = np.cross(cosines[:3], cosines[3:])
    positions = np.array([20.5, -30.25, 100]) + np.outer(offsets, normal)
    return from_dicom(positions, cosines, (0.8, 0.7), *SHAPE[1:])


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("trace", [halfway, through_centres])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "offsets", [np.arange(9) * 2.5, np.array([0, 1, 2, 3, 5, 7, 10, 13, 16.0])], ids=["even", "uneven"]
)
def test_slices_of_any_direction_and_distance(trace, direction: str, offsets) -> None:  # noqa: ANN001
    geometry, mask = stacked(direction, list(offsets)), blobs(1)
    assert (geometry.uneven is None) == (offsets[1] == 2.5)
    np.testing.assert_array_equal(drawn(contours_of(mask, geometry, trace), geometry), mask)


def test_between_uneven_slices_the_shape_is_taken_by_distance_in_mm() -> None:
    """A cone drawn on every second slice: its radius between two planes is that of its place."""
    offsets = [0.0, 1, 5, 6, 10, 11, 15]
    geometry = from_dicom(np.outer(offsets, [0, 0, 1.0]), np.array([1.0, 0, 0, 0, 1, 0]), (0.5, 0.5), 128, 128)
    row, column = np.ogrid[:128, :128]
    distance = np.hypot(row - 64, column - 64) * 0.5
    cone = np.stack([distance <= 10 + offset for offset in offsets])
    found = drawn(contours_of(cone, geometry, step=2), geometry)
    for number in (1, 3, 5):
        radius = np.sqrt(found[number].sum() / np.pi) * 0.5
        assert radius == pytest.approx(10 + offsets[number], abs=0.3)


@pytest.mark.parametrize("beside", [-0.15, 0.0, 0.1])
def test_a_plane_a_little_beside_a_slice_is_that_slices(beside: float) -> None:
    geometry, mask = axial(SHAPE, (3.0, 1.0, 1.0)), blobs(2)
    contours = [points + np.array([0, 0, beside * 3]) for points in contours_of(mask, geometry)]
    np.testing.assert_array_equal(drawn(contours, geometry), mask)


def test_every_second_slice_reaches_half_a_distance_beyond_its_ends_and_leaves_gaps() -> None:
    geometry = axial((24, 20, 20), (2.0, 1.0, 1.0))
    mask = np.zeros((24, 20, 20), dtype=bool)
    for number in (4, 6, 8, 16, 18, 20):
        mask[number, 5:12, 6:15] = True
    found = drawn(contours_of(mask, geometry), geometry)
    assert np.flatnonzero(found.any(axis=(1, 2))).tolist() == [3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 18, 19, 20, 21]
    assert all(np.array_equal(found[number], mask[4]) for number in (3, 5, 7, 9, 15, 21))


def test_one_missing_plane_among_neighbours_is_a_gap() -> None:
    geometry, mask = axial((12, 20, 20), (2.0, 1.0, 1.0)), np.zeros((12, 20, 20), dtype=bool)
    mask[2:10, 5:12, 6:15] = True
    mask[6] = False
    np.testing.assert_array_equal(drawn(contours_of(mask, geometry), geometry), mask)


def test_contours_of_a_finer_series_are_met() -> None:
    """Planes every millimetre, on slices of three: each slice takes what lies on it."""
    fine, coarse = axial((61, 64, 64), (1.0, 1.0, 1.0)), axial((21, 64, 64), (3.0, 1.0, 1.0))
    mask = ball((61, 64, 64), (1.0, 1.0, 1.0), 24.0)
    np.testing.assert_array_equal(drawn(contours_of(mask, fine), coarse), mask[::3])


@pytest.mark.parametrize("seed", range(3))
def test_what_reaches_beyond_the_picture_is_cut(seed: int) -> None:
    whole = axial((9, 60, 60), (2.0, 1.0, 1.0))
    affine = whole.affine.copy()
    affine[:3, 3] = whole.to_patient(np.array([[2.0, 11, 17]]))[0]
    mask = blobs(seed, (9, 60, 60))
    found = drawn(contours_of(mask, whole), Geometry((5, 30, 20), affine))
    np.testing.assert_array_equal(found, mask[2:7, 11:41, 17:37])


def test_a_million_points_are_a_circle() -> None:
    angle = np.linspace(0, 2 * np.pi, 1_000_000, endpoint=False)
    patch = fill([np.column_stack([255.3 + 200 * np.sin(angle), 250.8 + 200 * np.cos(angle)])], 512, 512)
    assert patch is not None
    mask = np.zeros((512, 512), dtype=bool)
    mask[patch.place] = patch.mask
    row, column = np.ogrid[:512, :512]
    distance = np.hypot(row - 255.3, column - 250.8)
    clear = np.abs(distance - 200) > 0.02
    np.testing.assert_array_equal(mask[clear], (distance <= 200)[clear])


def test_an_edge_from_far_away_takes_no_more_than_the_picture() -> None:
    patch = fill([np.array([[-1e7, -1e7], [1e7, -1e7], [1e7, 7.5], [-1e7, 7.5]])], 16, 16)
    assert patch is not None
    assert patch.mask.shape == (16, 8)
    assert patch.mask.all()


def test_points_not_in_one_plane_are_refused() -> None:
    geometry = axial((20, 32, 32), (2.0, 1.0, 1.0))
    corners = np.array([[4, 5, 5], [9, 5, 15], [4, 15, 15], [9, 15, 5]], dtype=float)
    with pytest.raises(LabelError, match="do not lie in one plane"):
        drawn([geometry.to_patient(corners)], geometry)


def with_kinds(tmp_path: Path, kinds: list[str]) -> tuple[Path, list[NDArray[np.float64]]]:
    """Write one region of two squares, one in the other, and of more contours of given kinds."""
    square = np.array([[0, 0], [0, 10], [10, 10], [10, 0]], dtype=float)
    shapes = [square, square[::-1] * 0.4 + 3, *([square[:1]] * len(kinds))]
    contours = [np.column_stack([points, np.full(len(points), 6.0)]) for points in shapes]
    path = rtstruct(tmp_path / "rs.dcm", {"femur": contours})
    data = pydicom.dcmread(path)
    for item, kind in zip(data.ROIContourSequence[0].ContourSequence[2:], kinds, strict=True):
        item.ContourGeometricType = kind
    data.save_as(path)
    return path, contours


def test_points_and_open_contours_enclose_nothing(tmp_path: Path) -> None:
    path, contours = with_kinds(tmp_path, ["POINT", "OPEN_PLANAR", "OPEN_NONPLANAR"])
    found = read_structures(path)
    assert [len(points) for points in found.regions[1].contours] == [4, 4]
    np.testing.assert_allclose(found.regions[1].contours[1], contours[1], atol=1e-6)
    assert found.warnings == ("3 points or open contours enclose nothing and are not used",)


def test_a_kind_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path, _ = with_kinds(tmp_path, ["CLOSED_PLANR"])
    with pytest.raises(LabelError, match=r"rs\.dcm: has a contour of region 1 whose ContourGeometricType is none"):
        read_structures(path)


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_one_contour_in_another_is_a_hole_and_its_copy_is_none(tmp_path: Path, kind: str) -> None:
    path, _ = with_kinds(tmp_path, [])
    data = pydicom.dcmread(path)
    items = data.ROIContourSequence[0].ContourSequence
    for item in items:
        item.ContourGeometricType = kind
    data.save_as(path)
    found = read_structures(path)
    geometry = axial((5, 20, 20), (3.0, 1.0, 1.0))
    mask = drawn(list(found.regions[1].contours), geometry)
    expected = np.zeros((20, 20), dtype=bool)
    expected[:11, :11] = True
    expected[4:7, 4:7] = False  # the rim of the hole, from 3 to 7, runs through centres of pixels
    np.testing.assert_array_equal(mask[2], expected)
    data.ROIContourSequence[0].ContourSequence = Items([*items, items[0]])
    data.save_as(path)
    again = read_structures(path)
    assert len(again.regions[1].contours) == (2 if kind == "CLOSED_PLANAR" else 3)
    assert any("1 contour is there twice" in warning for warning in again.warnings) == (kind == "CLOSED_PLANAR")


def test_numbers_that_no_mask_can_hold_are_replaced(tmp_path: Path) -> None:
    path = rtstruct(tmp_path / "rs.dcm", dict.fromkeys("abc", contours_of(blobs(0), axial(SHAPE, (2.0, 1.0, 1.0)))))
    data = pydicom.dcmread(path)
    for place, number in enumerate((0, 1, 70000)):
        data.StructureSetROISequence[place].ROINumber = number
        data.ROIContourSequence[place].ReferencedROINumber = number
    data.save_as(path)
    found = read_structures(path)
    assert {number: region.name for number, region in found.regions.items()} == {2: "a", 1: "b", 3: "c"}
    assert any(warning.startswith("2 numbers of regions are below 1 or above 65535") for warning in found.warnings)


def test_what_is_drawn_has_one_name_whatever_the_order_and_the_names(tmp_path: Path) -> None:
    contours = contours_of(blobs(0), axial(SHAPE, (2.0, 1.0, 1.0)))
    same = [{"femur": contours}, {"femur": contours[::-1]}, {"tibia": [points + 0.001 for points in contours]}]
    names = {read_structures(rtstruct(tmp_path / "rs.dcm", regions)).content() for regions in same}
    assert len(names) <= 2  # 0.001 mm may lie beside a border of rounding
    assert (
        read_structures(rtstruct(tmp_path / "rs.dcm", same[0])).content()
        == read_structures(rtstruct(tmp_path / "rs.dcm", same[1])).content()
    )
    moved = {"femur": [contours[0] + 1, *contours[1:]]}
    assert read_structures(rtstruct(tmp_path / "rs.dcm", moved)).content() not in names


def test_codes_say_what_names_do_not(tmp_path: Path) -> None:
    path = rtstruct(tmp_path / "rs.dcm", {"x": [], "CTV bone": []}, kinds={"CTV bone": "CTV"})
    data = pydicom.dcmread(path)
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "71341001", "SCT", "Femur"
    data.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence = Items([code])
    data.save_as(path)
    regions = read_structures(path).regions
    assert (regions[1].code, regions[1].is_target, regions[2].is_target) == ("Femur", False, True)


def labels_of_bones(shared_series: Path, name: str) -> tuple[NDArray[np.generic], Geometry]:
    path = shared_series.parents[1] / "bones" / name / "bones.nii.gz"
    if not path.is_file():
        pytest.skip(f"no labels at {path}")
    return read_volume(path)


def test_bones_come_back_on_a_grid_of_one_millimetre(shared_series: Path) -> None:
    """Manual labels of a semi-synthetic pelvis, resampled to 1 mm by nearest neighbour."""
    labels, geometry = labels_of_bones(shared_series, "semisynthetic-pelvis-001")
    nearest = [
        np.minimum(np.arange(round(size * mm)) / mm, size - 1).round().astype(int)
        for size, mm in zip(labels.shape, geometry.spacing, strict=True)
    ]
    fine = labels[np.ix_(*nearest)]
    grid = axial(fine.shape, (1.0, 1.0, 1.0))
    for value, trace in ((1, halfway), (5, through_centres)):
        np.testing.assert_array_equal(drawn(contours_of(fine == value, grid, trace), grid), fine == value)


def test_bones_drawn_on_every_second_slice_are_completed_better_than_by_the_nearest_plane(shared_series: Path) -> None:
    """Hips, femora and sacrum of a hybrid pelvis, by TotalSegmentator, on slices of 1.5 mm."""
    labels, geometry = labels_of_bones(shared_series, "hybrid-pelvis-s0328")
    for value in range(1, 6):
        mask = labels == value
        copied = mask[np.arange(len(mask)) // 2 * 2]
        found = drawn(contours_of(mask, geometry, step=2), geometry)
        assert dice(found, mask) > max(0.975, dice(copied, mask) + 0.005)
