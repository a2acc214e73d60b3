"""Names of cases, folders and files are not taken for those of bones, nor numbers for what a table says otherwise."""

import json
from pathlib import Path

import numpy as np
import pytest

from boneseg.errors import LabelError
from boneseg.ingest.anatomy import best_name
from boneseg.ingest.local import local_series
from boneseg.ingest.names_to_classes import classes_called, classes_covered
from boneseg.nifti import write_volume
from boneseg.scheme import BUILT_IN
from tests.ct_files import place
from tests.ingest.test_by_bone import BOXES, SHAPE, meanings, truth
from tests.ingest.test_layouts import NUMBERS, assert_bones, ct, mask, nnunet, numbered, read_all

PELVIS, SKELETON = BUILT_IN["pelvis"], BUILT_IN["skeleton"]
ANY_BONE = frozenset(PELVIS.names[2:])


@pytest.mark.parametrize("case", ["S1", "L5", "hip_004", "Femur_L", "spine_4", "sacrum"])
def test_a_case_that_is_called_as_a_bone_is_a_case(tmp_path: Path, case: str) -> None:
    ct(tmp_path / "images" / f"{case}.nii.gz")
    mask(tmp_path / "labels" / f"{case}.nii.gz", (truth() > 0).astype(np.uint8))
    (series,) = read_all(tmp_path)
    assert set(meanings(series)[truth() > 0]) == {ANY_BONE}


@pytest.mark.parametrize("case", ["spine_4", "Femur_L", "hip_03"])
def test_a_table_stands_before_the_name_of_a_case(tmp_path: Path, case: str) -> None:
    ct(tmp_path / "imagesTr" / f"{case}_0000.nii.gz")
    mask(tmp_path / "labelsTr" / f"{case}.nii.gz", np.where(truth() == 6, 3, 0).astype(np.uint8))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, **NUMBERS}}))
    (series,) = read_all(tmp_path)
    assert_bones(series, truth("sacrum"))


@pytest.mark.parametrize("folder", ["left_hip_fracture", "hip_left", "patient_4", "sacrum_study", "7"])
def test_the_name_of_a_folder_takes_nothing_from_those_of_its_masks(tmp_path: Path, folder: str) -> None:
    ct(tmp_path / folder / "ct.nii.gz")
    for name in BOXES:
        mask(tmp_path / folder / f"{name.replace(' ', '_')}.nii.gz", (truth(name) > 0).astype(np.uint8))
    (series,) = read_all(tmp_path)
    assert_bones(series, truth())


def test_masks_of_one_side_keep_their_side(tmp_path: Path) -> None:
    ct(tmp_path / "ct.nii.gz")
    for name in ("femur left", "hip left"):
        mask(tmp_path / f"{name.replace(' ', '_')}.nii.gz", (truth(name) > 0).astype(np.uint8))
    (series,) = read_all(tmp_path)
    found = meanings(series)
    assert set(found[truth() == 4]) == {frozenset({"femur left"})}
    assert "femur right" in next(iter(set(found[truth() == 5])))


def test_ribs_keep_their_numbers(tmp_path: Path) -> None:
    ct(tmp_path / "1" / "ct.nii.gz")
    ribs = {"rib_left_1": "hip left", "rib_left_2": "hip right"}
    for rib, name in ribs.items():
        mask(tmp_path / "1" / f"{rib}.nii.gz", (truth(name) > 0).astype(np.uint8))
    (series,) = read_all(tmp_path, SKELETON)
    assert set(meanings(series)[truth() == 2]) == {frozenset({"rib left 1"})}


def test_a_value_that_the_table_does_not_know_is_not_guessed(tmp_path: Path) -> None:
    nnunet(tmp_path, {"background": 0, **{name: number for name, number in NUMBERS.items() if name != "spine"}})
    with pytest.raises(LabelError, match=r"label values 6 are unknown in scheme pelvis"):
        read_all(tmp_path)


def test_two_tables_that_spell_differently_agree(tmp_path: Path) -> None:
    folder = nnunet(tmp_path, {"background": 0, **NUMBERS})
    lines = (f"{number} {name.replace('_', ' ').title()} 9 9 9 255" for name, number in NUMBERS.items())
    (folder / "labels.ctbl").write_text("\n".join(lines))
    (folder / "labelsTr" / "femur_000.json").write_text(json.dumps({"threshold": 150, "version": 2}))
    for series in read_all(folder):
        assert_bones(series, truth())


def test_a_label_of_nnunet_is_of_the_first_channel(tmp_path: Path) -> None:
    folder = nnunet(tmp_path, {"background": 0, **NUMBERS})
    for number in range(2):
        ct(folder / "imagesTr" / f"femur_{number:03d}_0001.nii.gz", 10 + number)
    rows, problems = local_series(folder)
    assert {row.source[-11:-7] for row in rows if row.label} == {"0000"}, problems
    assert sum(row.label is not None for row in rows) == 2


def test_sets_of_nnunet_with_the_same_numbers_and_runs_of_bids_keep_their_own(tmp_path: Path) -> None:
    folder = nnunet(tmp_path / "nn", {"background": 0, **NUMBERS})
    ct(folder / "imagesTs" / "femur_000_0000.nii.gz", 5)
    for run in (1, 2):
        ct(tmp_path / "b" / "sub-01" / "ct" / f"sub-01_run-{run}_ct.nii.gz", 20 + run)
        label = tmp_path / "b" / "derivatives" / "m" / "sub-01" / "ct" / f"sub-01_run-{run}_dseg.nii.gz"
        mask(label, numbered({"spine": run, "sacrum": 3}))
    rows, problems = local_series(tmp_path)
    found = {row.source: row.label.object.key.rsplit("/", 1)[1] for row in rows if row.label}
    assert found == {
        "nn/imagesTr/femur_000_0000.nii.gz": "femur_000.nii.gz",
        "nn/imagesTr/femur_001_0000.nii.gz": "femur_001.nii.gz",
        "b/sub-01/ct/sub-01_run-1_ct.nii.gz": "sub-01_run-1_dseg.nii.gz",
        "b/sub-01/ct/sub-01_run-2_ct.nii.gz": "sub-01_run-2_dseg.nii.gz",
    }, problems


def test_two_soft_hips_are_no_outline_around_a_bone(tmp_path: Path) -> None:
    """Value 1 is larger and softer than value 2, as an outline would be, and lies beside it."""
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[:, 4:28, 4:28] = 40
    left, right = truth("hip left") > 0, truth("hip right") > 0
    right[4:] = False
    hu[left], hu[right], hu[truth("spine") > 0] = 130, 145, 700
    noise = np.random.default_rng(0).integers(-5, 5, SHAPE)
    write_volume(tmp_path / "ct.nii.gz", (hu + noise).astype(np.int16), place(SHAPE))
    mask(tmp_path / "label.nii.gz", (left + 2 * right).astype(np.uint8))
    (series,) = read_all(tmp_path)
    assert set(meanings(series)[left]) == {frozenset({"hip left"})}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Femur_L1", {"femur left"}),
        ("Hip L2", {"hip left"}),
        ("Femur_Lt", {"femur left"}),
        ("FemurRt", {"femur right"}),
        ("hip bones", {"hip left", "hip right"}),
        ("Bone_Pelvic", {"hip left", "hip right", "sacrum"}),
        ("ilium left", {"hip left"}),
    ],
)
def test_names_as_people_write_them(name: str, wanted: set[str]) -> None:
    found = classes_called(name, PELVIS)
    assert found is not None
    assert {PELVIS.names[value] for value in found} == wanted


def test_a_part_under_two_names_covers_no_bone() -> None:
    assert not classes_covered(["Femur_Head_L", "FemoralHead_L"], PELVIS)
    assert not classes_covered(["ilium left"], PELVIS)
    assert classes_covered(["ilium left", "ischium left"], PELVIS) == {PELVIS.names.index("hip left")}


def test_the_side_of_a_code_completes_a_name() -> None:
    assert best_name("Femur", "Femur Left") == "Femur left"
    assert best_name("Femur R", "Femur Left") == "Femur R"


def test_organs_of_totalsegmentator_are_no_bone(tmp_path: Path) -> None:
    ct(tmp_path / "ct.nii.gz")
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[truth() == 2], label[truth() == 3] = 77, 78
    label[2, 6:8, 6:8] = 5
    mask(tmp_path / "all.nii.gz", label)
    (series,) = read_all(tmp_path, SKELETON)
    assert set(meanings(series)[truth() == 2]) == {frozenset({"hip left"})}


@pytest.mark.parametrize("stranger", ["caseA", "anna"])
def test_a_label_whose_own_image_is_missing_goes_to_no_other_case(tmp_path: Path, stranger: str) -> None:
    """All lie on the same grid; that others are called as their images tells that this one is of another."""
    folder = nnunet(tmp_path, {"background": 0, **NUMBERS})
    ct(folder / "imagesTr" / f"{stranger}bel_0000.nii.gz", 7)
    mask(folder / "labelsTr" / f"{stranger}.nii.gz", numbered({"sacrum": 3}))
    rows, problems = local_series(folder)
    assert {row.source for row in rows if row.label is None} == {f"imagesTr/{stranger}bel_0000.nii.gz"}
    (problem,) = [problem for problem in problems if problem.fatal]
    assert problem.source == f"labelsTr/{stranger}.nii.gz"
    assert "is not called as it is" in problem.reason


def test_where_no_label_is_called_as_an_image_the_grid_alone_decides(tmp_path: Path) -> None:
    ct(tmp_path / "images" / "scan.nii.gz")
    mask(tmp_path / "labels" / "drawn.nii.gz", (truth() > 0).astype(np.uint8))
    (row,), problems = local_series(tmp_path)
    assert row.label is not None, problems
