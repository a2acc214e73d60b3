"""Masks of one series that are joined by their names."""

from pathlib import Path

import pytest

from boneseg.ingest.local import local_series
from boneseg.nifti import write_volume
from tests.ct_files import body, nifti, place


def masks(folder: Path, *names: str) -> None:
    nifti(folder / "ct.nii.gz")
    label = body()[1]
    for number, name in enumerate(names):
        mask = (label == 2).astype("uint8")
        mask[:, :, : 10 + number] = 0
        write_volume(folder / f"{name}.nii.gz", mask, place())


@pytest.mark.parametrize(
    "names",
    [
        ("femur_left", "femur_right"),
        ("Femur L", "Femur R"),
        ("hip-left-mask", "hip-right-mask"),
        ("left femur head", "right femur head"),
        ("vertebrae_L4", "vertebrae_L5"),
        ("seg_femur_proximal", "seg_femur_distal"),
    ],
)
def test_masks_of_one_bone_by_side_or_part_are_joined(tmp_path: Path, names: tuple[str, ...]) -> None:
    masks(tmp_path, *names)
    (row,), problems = local_series(tmp_path)
    assert row.label is not None, problems
    assert len(row.label.parts) == 2


@pytest.mark.parametrize(
    "names",
    [
        ("femur_1", "femur_2"),
        ("femur_reader1", "femur_reader2"),
        ("bone_v1", "bone_v2"),
        ("left", "right"),
        ("muscle_left", "muscle_right"),
        ("femur_left_old", "femur_left_new"),
    ],
)
def test_versions_and_what_names_no_bone_are_not(tmp_path: Path, names: tuple[str, ...]) -> None:
    masks(tmp_path, *names)
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert any(problem.fatal for problem in problems)


@pytest.mark.parametrize(
    "name", ["bone_metastasis", "femur_tumor", "Knochenmetastase", "hip_implant", "bone lesion", "femur_marrow", "cyst"]
)
def test_what_lies_in_a_bone_is_not_the_bone(tmp_path: Path, name: str) -> None:
    masks(tmp_path, name)
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert any(problem.fatal for problem in problems)


@pytest.mark.parametrize("name", ["bone", "tumorzentrum_case3_bone", "femur_fracture", "label"])
def test_other_names_of_a_lone_mask_are_bone(tmp_path: Path, name: str) -> None:
    masks(tmp_path, name)
    (row,), problems = local_series(tmp_path)
    assert row.label is not None, problems
