import numpy as np
import pytest

from boneseg.errors import LabelError
from boneseg.geometry import Geometry, axial, to_axial
from boneseg.ingest.values_to_classes import covered_slices, to_classes

SERIES = axial((10, 8, 6), (3.0, 0.9, 0.8))


def moved(geometry: Geometry, slices: int, by_voxels: tuple[float, float, float]) -> Geometry:
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.to_patient(np.array([by_voxels], dtype=np.float64))[0]
    return Geometry((slices, *geometry.shape[1:]), affine)


def volume(*values: int, dtype: str = "uint8") -> np.ndarray:
    label = np.zeros((2, 4, 4), dtype=dtype)
    label.flat[: len(values)] = values
    return label


def test_a_label_of_the_whole_series_covers_it() -> None:
    assert covered_slices(SERIES, SERIES).tolist() == list(range(10))


def test_a_label_of_some_slices_is_found_by_position() -> None:
    assert covered_slices(moved(SERIES, 4, (3, 0, 0)), SERIES).tolist() == [3, 4, 5, 6]


def test_a_label_in_another_order_of_axes_fits_once_both_are_axial() -> None:
    sagittal = Geometry((6, 10, 8), SERIES.affine[:, [2, 0, 1, 3]])
    assert covered_slices(to_axial(sagittal)[0], to_axial(SERIES)[0]).tolist() == list(range(10))


@pytest.mark.parametrize(
    "label",
    [
        moved(SERIES, 10, (0, 0.5, 0)),
        moved(SERIES, 10, (1, 0, 0)),
        moved(SERIES, 4, (-1, 0, 0)),
        moved(SERIES, 4, (2.5, 0, 0)),
        axial((10, 8, 6), (3.0, 0.8, 0.9)),
        axial((10, 8, 7), (3.0, 0.9, 0.8)),
    ],
    ids=["shifted", "one slice on", "before the first", "between slices", "spacing", "wider"],
)
def test_a_label_of_another_geometry_is_refused(label: Geometry) -> None:
    with pytest.raises(LabelError, match=r"label's grid .* is not the series'"):
        covered_slices(label, SERIES)


@pytest.mark.parametrize(
    ("values", "expected"), [((1, 2), [1, 2]), ((2,), [2]), ((1,), [2]), ((255,), [2]), ((7, 7), [2, 2])]
)
def test_classes_follow_from_the_values(values: tuple[int, ...], expected: list[int]) -> None:
    classes = to_classes(volume(*values), "label.nii", None, None)
    assert classes.dtype == np.uint8
    assert classes.flat[: len(values)].tolist() == expected
    assert classes.sum() == sum(expected)


@pytest.mark.parametrize("values", [(1, 3), (1, 2, 5), (3, 4)])
def test_unknown_values_are_refused_with_file_values_and_fix(values: tuple[int, ...]) -> None:
    with pytest.raises(
        LabelError, match=rf"label\.nii: label values {', '.join(map(str, values))} .*prepare.label_map"
    ):
        to_classes(volume(*values), "label.nii", None, None)


def test_a_value_missing_in_the_label_map_is_named() -> None:
    with pytest.raises(LabelError, match=r"label values 9 are unknown"):
        to_classes(volume(4, 9), "label.nii", None, {4: 2})


def test_the_label_map_decides() -> None:
    classes = to_classes(volume(300, 1, 2, dtype="int16"), "label.nii", None, {300: 2, 1: 0, 2: 1})
    assert classes.flat[:3].tolist() == [2, 0, 1]


def test_segment_names_decide_for_dicom() -> None:
    classes = to_classes(volume(1, 2, 3), "l.dcm", {1: "Bone", 2: "Patient outline", 3: "pelvic bones"}, None)
    assert classes.flat[:3].tolist() == [2, 1, 2]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({1: "left femur", 2: "right femur"}, [2, 2]),
        ({1: "bone", 2: "L5 vertebral body"}, [2, 2]),
        ({1: "Femur_L", 2: "urinary bladder"}, [2, 0]),
        ({1: "femoral artery", 2: "HipRight"}, [0, 2]),
        ({1: "Whole body", 2: "T12"}, [1, 2]),
        ({1: "vertebrae_S1", 2: "costal cartilages"}, [2, 0]),
    ],
)
def test_names_of_segments_tell_which_are_bones(names: dict[int, str], expected: list[int]) -> None:
    assert to_classes(volume(1, 2), "l.dcm", names, None).flat[:2].tolist() == expected


@pytest.mark.parametrize(
    "names",
    [
        {1: "femur", 2: "Mustermann"},
        {1: "Segment_1", 2: "Segment_2"},
        {1: "bone", 2: "bone metastasis"},
        {1: "hip", 2: "hip implant"},
    ],
)
def test_segments_whose_names_do_not_tell_are_refused_without_their_free_text(names: dict[int, str]) -> None:
    with pytest.raises(LabelError, match=r"unknown; say which class each is .*prepare\.label_map") as error:
        to_classes(volume(1, 2), "l.dcm", names, None)
    assert "Mustermann" not in str(error.value)


@pytest.mark.parametrize("name", ["colon", "tumor", "femoral artery"])
def test_a_single_segment_that_is_no_bone_is_not_taken_for_one(name: str) -> None:
    with pytest.raises(LabelError):
        to_classes(volume(1), "l.dcm", {1: name}, None)


def test_a_label_map_may_say_what_all_others_are() -> None:
    label = np.arange(118, dtype=np.uint8).reshape(2, 59, 1)
    classes = to_classes(label, "label.nii", None, {25: 2, 26: 2, "others": 0})
    assert np.flatnonzero(classes).tolist() == [25, 26]
    classes = to_classes(label, "label.nii", None, {25: 2, "others": 1})
    assert (classes == 1).sum() == 116


def test_many_unknown_values_are_refused_with_the_short_way_out() -> None:
    label = np.arange(118, dtype=np.uint8).reshape(2, 59, 1)
    with pytest.raises(LabelError, match=r'and 109 more are unknown.*\{"1": 2, "others": 0\}'):
        to_classes(label, "label.nii", None, None)


def test_empty_labels_and_labels_without_bone_are_refused() -> None:
    with pytest.raises(LabelError, match=r"label\.nii: the label is empty"):
        to_classes(volume(0), "label.nii", None, None)
    with pytest.raises(LabelError, match=r"label\.nii: the label has no bone"):
        to_classes(volume(1), "label.nii", None, {1: 1})


def test_a_label_on_every_second_slice_is_not_taken_for_background_between() -> None:
    with pytest.raises(LabelError, match="no two neighbouring slices"):
        covered_slices(axial((5, 8, 6), (6.0, 0.9, 0.8)), SERIES)
