"""Labels bone by bone, in several forms, on one small pelvis."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from boneseg.dicom.segmentation_write import write_segmentation
from boneseg.errors import LabelError
from boneseg.ingest.local import local_series
from boneseg.ingest.names_to_classes import classes_called
from boneseg.ingest.read import LabelledSeries, read_labelled
from boneseg.nifti import write_volume
from boneseg.scheme import BONE_SCHEME, BUILT_IN, LabelClass, LabelScheme, Role
from boneseg.settings.schema import PrepareSettings
from tests.ct_files import place

PELVIS, SKELETON = BUILT_IN["pelvis"], BUILT_IN["skeleton"]
SHAPE = (6, 32, 32)
BOXES = {
    "hip left": (slice(1, 5), slice(8, 14), slice(18, 24)),
    "hip right": (slice(1, 5), slice(8, 14), slice(8, 14)),
    "femur left": (slice(0, 3), slice(16, 20), slice(20, 24)),
    "femur right": (slice(0, 3), slice(16, 20), slice(8, 12)),
    "sacrum": (slice(2, 6), slice(16, 20), slice(14, 18)),
    "spine": (slice(4, 6), slice(21, 25), slice(14, 18)),
}


def truth(*names: str) -> NDArray[np.uint8]:
    """Return the bones with their values in scheme ``pelvis``; no outline."""
    label = np.zeros(SHAPE, dtype=np.uint8)
    for name in names or BOXES:
        label[BOXES[name]] = PELVIS.names.index(name)
    return label


@pytest.fixture
def case(tmp_path: Path) -> Path:
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[:, 4:28, 4:28] = 40
    hu[truth() > 0] = 700
    noise = np.random.default_rng(0).integers(-20, 20, SHAPE)
    write_volume(tmp_path / "ct.nii.gz", (hu + noise).astype(np.int16), place(SHAPE))
    return tmp_path


def read(
    case: Path, scheme: LabelScheme = PELVIS, label_map: dict[int | str, int | str] | None = None
) -> LabelledSeries:
    rows, problems = local_series(case)
    assert len(rows) == 1, problems
    assert rows[0].label is not None, problems
    settings = PrepareSettings.model_validate({"label_map": label_map})
    return read_labelled(lambda ref: Path(ref.key), rows[0], settings, scheme)


def meanings(series: LabelledSeries) -> NDArray[np.object_]:
    """Return, for every voxel, the names of the classes that it may be."""
    names = np.array(series.labelling.scheme.names)
    sets = np.empty(series.labelling.size, dtype=object)
    sets[:] = [frozenset(names[row]) for row in series.labelling.members]
    return np.asarray(sets[series.label])


def structures(case: Path, *names: str) -> None:
    for name in names:
        write_volume(case / f"{name.replace(' ', '_')}.nii.gz", (truth(name) > 0).astype(np.uint8), place(SHAPE))


def assert_is_the_truth(series: LabelledSeries) -> None:
    bones = np.where(series.label > 1, series.label, 0)
    np.testing.assert_array_equal(bones, truth())
    assert not series.labelling.sets
    assert (series.label == 1).any()


def test_one_file_a_structure(case: Path) -> None:
    structures(case, *BOXES)
    assert_is_the_truth(read(case))


def test_values_in_one_file_by_the_schemes_own_numbers(case: Path) -> None:
    label = truth()
    write_volume(case / "bones.nii.gz", np.where(label > 1, label - 1, 0).astype(np.uint8), place(SHAPE))
    assert_is_the_truth(read(case))


def test_totalsegmentators_numbers_in_one_file(case: Path) -> None:
    numbers = {2: 77, 3: 78, 4: 75, 5: 76, 6: 25, 7: 29}
    label = np.zeros(SHAPE, dtype=np.uint8)
    for value, number in numbers.items():
        label[truth() == value] = number
    write_volume(case / "labels.nii.gz", label, place(SHAPE))
    series = read(case, SKELETON)
    names = np.array([*SKELETON.names, ""])
    where = truth() > 1
    found = names[np.minimum(series.label, SKELETON.size)]
    assert set(found[truth() == 2]) == {"hip left"}
    assert set(found[truth() == 7]) == {"vertebrae L3"}
    assert where.sum() == np.isin(series.label, series.labelling.bony).sum()
    assert any("says nothing of" in warning for warning in series.warnings)


def test_any_numbers_by_a_label_map_of_names(case: Path) -> None:
    label = truth()
    table = np.array([0, 0, 10, 20, 30, 40, 50, 60], dtype=np.uint8)
    write_volume(case / "label.nii.gz", table[label], place(SHAPE))
    names = {10 * (value - 1): PELVIS.names[value] for value in range(2, 8)}
    assert_is_the_truth(read(case, label_map={**names, "others": "background"}))
    with pytest.raises(LabelError, match=r"values 10, 20, .* are unknown in scheme pelvis.*prepare.label_map"):
        read(case)


def test_a_dicom_seg_by_names_of_its_segments(case: Path) -> None:
    write_segmentation(case / "label.dcm", truth(), place(SHAPE), scheme=PELVIS)
    assert_is_the_truth(read(case))


def test_a_label_that_knows_only_bone_is_any_of_them(case: Path) -> None:
    write_volume(case / "label.nii.gz", (truth() > 0).astype(np.uint8), place(SHAPE))
    series = read(case)
    found = meanings(series)
    assert set(found[truth() > 0]) == {frozenset(PELVIS.names[2:])}
    assert set(found[truth() == 0]) == {frozenset({"background"}), frozenset({"patient outline"})}


def test_outline_and_bone_are_told_from_two_hips_by_what_they_enclose(case: Path) -> None:
    both = np.zeros(SHAPE, dtype=np.uint8)
    both[:, 4:28, 4:28] = 1
    both[truth() > 0] = 2
    write_volume(case / "label.nii.gz", both, place(SHAPE))
    found = meanings(read(case))
    assert set(found[both == 2]) == {frozenset(PELVIS.names[2:])}
    assert set(found[both == 1]) == {frozenset({"patient outline"})}
    hips = truth("hip left", "hip right")
    write_volume(case / "label.nii.gz", np.where(hips > 0, hips - 1, 0).astype(np.uint8), place(SHAPE))
    found = meanings(read(case))
    assert set(found[hips == 2]) == {frozenset({"hip left"})}


def test_where_some_bones_are_not_covered_the_body_may_be_one_of_them(case: Path) -> None:
    structures(case, "femur left", "femur right")
    series = read(case)
    found = meanings(series)
    silent = {"hip left", "hip right", "sacrum", "spine"}
    assert set(found[truth() == 4]) == {frozenset({"femur left"})}
    assert set(found[truth() == 2]) == {frozenset({"patient outline", *silent})}
    assert frozenset({"background"}) in set(found.ravel())
    assert any("says nothing of hip left, hip right, sacrum, spine" in warning for warning in series.warnings)


def test_a_side_that_is_not_told_is_either(case: Path) -> None:
    femora = (truth("femur left", "femur right") > 0).astype(np.uint8)
    write_volume(case / "femora.nii.gz", femora, place(SHAPE))
    structures(case, "hip left", "hip right", "sacrum", "spine")
    found = meanings(read(case))
    assert set(found[femora > 0]) == {frozenset({"femur left", "femur right"})}
    assert set(found[truth() == 6]) == {frozenset({"sacrum"})}


def test_a_bone_in_two_masks_is_counted(case: Path) -> None:
    structures(case, "femur left", "femur right", "hip left", "hip right", "spine")
    wide = (truth("sacrum", "spine") > 0).astype(np.uint8)
    write_volume(case / "sacrum.nii.gz", wide, place(SHAPE))
    series = read(case)
    both = int((truth() == 7).sum())
    assert any(f"{both} voxels are marked as two bones" in warning for warning in series.warnings)


def test_the_default_scheme_takes_all_of_them_as_bone(case: Path) -> None:
    structures(case, *BOXES)
    series = read(case, BONE_SCHEME)
    np.testing.assert_array_equal(series.label == 2, truth() > 0)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("femur_left", {"femur left"}),
        ("Femur L", {"femur left"}),
        ("FemurLeft", {"femur left"}),
        ("left femur head", {"femur left"}),
        ("femur", {"femur left", "femur right"}),
        ("hip bone right", {"hip right"}),
        ("os coxae left", {"hip left"}),
        ("pelvis", {"hip left", "hip right", "sacrum"}),
        ("vertebrae_L5", {"spine"}),
        ("L5", {"spine"}),
        ("vertebra T12", {"spine"}),
        ("sacrum", {"sacrum"}),
        ("bones", set(PELVIS.names[2:])),
        ("skeleton", set(PELVIS.names[2:])),
        ("body", {"patient outline"}),
        ("colon", {"background"}),
        ("rib_left_4", set(PELVIS.names)),
        ("reader two", None),
    ],
)
def test_a_name_means_the_classes_that_it_says(name: str, wanted: set[str] | None) -> None:
    found = classes_called(name, PELVIS)
    assert (None if found is None else {PELVIS.names[value] for value in found}) == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("spine", {name for name in SKELETON.names if name.startswith("vertebrae")}),
        ("Spine_mask", {name for name in SKELETON.names if name.startswith("vertebrae")}),
        ("ribs", {name for name in SKELETON.names if name.startswith("rib ")}),
        ("Shoulder girdle", {"scapula left", "scapula right", "clavicula left", "clavicula right"}),
        ("shoulder-girdle R", {"scapula right", "clavicula right"}),
        ("leftRibs", {name for name in SKELETON.names if name.startswith("rib left")}),
    ],
)
def test_the_name_of_a_group_means_its_members(name: str, wanted: set[str]) -> None:
    found = classes_called(name, SKELETON)
    assert found is not None
    assert {SKELETON.names[value] for value in found} == wanted


def test_a_group_that_a_user_made_is_called_by_its_own_words() -> None:
    arm = [("humerus left", "left"), ("humerus right", "right"), ("ulna left", "left"), ("ulna right", "right")]
    bones = tuple(LabelClass(name=name, role=Role.BONE, group="upper limb", side=side) for name, side in arm)
    scheme = LabelScheme(name="arms", classes=(LabelClass(name="air", role=Role.BACKGROUND), *bones))
    assert classes_called("Upper-Limb", scheme) == (1, 2, 3, 4)
    assert classes_called("UpperLimb_left", scheme) == (1, 3)
    assert classes_called("lower limb", scheme) is None
    sided = tuple(item.model_copy(update={"group": f"{item.side} arm"}) for item in bones)
    scheme = LabelScheme(name="sides", classes=(LabelClass(name="air", role=Role.BACKGROUND), *sided))
    assert classes_called("arm", scheme) is None
    assert classes_called("arm_right", scheme) == classes_called("RightArm", scheme) == (2, 4)
