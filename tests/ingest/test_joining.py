"""Masks of one series that are joined by their names."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from boneseg.ingest.local import local_series
from boneseg.settings.schema import PrepareSettings
from tests.ct_files import body, dicom, nifti
from tests.ingest.label_files import fatal, labels_of, masks, read, seg

TOTAL = [
    "femur_left",
    "hip_right",
    "sacrum",
    "vertebrae_L5",
    "rib_left_1",
    "colon",
    "urinary_bladder",
    "iliac_vena_left",
]


@pytest.mark.parametrize("layout", ["segmentations", "flat", "beside", "dicom"])
def test_one_mask_a_bone_is_joined_and_the_rest_is_no_bone(tmp_path: Path, layout: str) -> None:
    for case in ("s1", "s2"):
        if layout == "dicom":
            dicom(tmp_path / case / "ct", seed=int(case[1]))
        else:
            nifti(tmp_path / (f"{case}_ct.nii.gz" if layout == "flat" else f"{case}/ct.nii.gz"), seed=int(case[1]))
        folder = {"flat": tmp_path, "segmentations": tmp_path / case / "segmentations"}.get(layout, tmp_path / case)
        masks(folder, [f"{case}_{name}" if layout == "flat" else name for name in TOTAL])
    rows, problems = local_series(tmp_path)
    assert len(rows) == 2
    assert not fatal(problems)
    for row in rows:
        assert len(labels_of(row)) == 5
        series = read(row)
        expected = masks(tmp_path / "x", TOTAL)
        bones = np.concatenate(np.array_split(np.argwhere(expected > 0), len(TOTAL))[:5])
        wanted = np.zeros_like(expected)
        wanted[tuple(bones.T)] = 2
        np.testing.assert_array_equal(series.label == 2, wanted == 2)
        shutil.rmtree(tmp_path / "x")
    (note,) = [problem for problem in problems if problem.source == rows[0].source]
    assert "5 masks are joined" in note.reason
    assert "3 are taken as no bone (colon, iliac vena left, urinary bladder)" in note.reason


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["femur_left", "structure_17"], "do not tell"),
        (["label_reader1", "label_reader2"], "do not tell"),
        (["femur", "femur_v2"], "do not tell"),
        (["femur_left", "left_femur"], "more than once"),
        (["femur", "bone_tumor"], "do not tell"),
        (["hip", "hip_implant"], "do not tell"),
        (["mask", "femur"], "do not tell"),
        (["colon", "liver"], "not bone"),
    ],
)
def test_masks_whose_names_do_not_tell_are_refused_never_picked_from(
    tmp_path: Path, names: list[str], why: str
) -> None:
    nifti(tmp_path / "ct.nii.gz")
    masks(tmp_path, names)
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert fatal(problems) == sorted(f"{name}.nii.gz" for name in names)
    assert all(why in problem.reason for problem in problems)


def test_a_hundred_masks_that_do_not_tell_are_one_row(tmp_path: Path) -> None:
    nifti(tmp_path / "ct.nii.gz")
    masks(tmp_path / "masks", [f"part{number:03d}" for number in range(30)])
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert fatal(problems) == ["masks"]
    assert "30 files not used" in problems[0].reason


@pytest.mark.parametrize("name", ["colon", "urinary_bladder", "femoral_artery", "spinal_cord", "tumor"])
def test_a_single_mask_that_is_no_bone_by_its_name_is_no_label(tmp_path: Path, name: str) -> None:
    nifti(tmp_path / "ct.nii.gz")
    masks(tmp_path / "segmentations", [name])
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert fatal(problems) == [f"segmentations/{name}.nii.gz"]


@pytest.mark.parametrize("name", ["label", "lung_001_seg", "bones", "femur", "final"])
def test_a_single_mask_that_may_be_bone_is_the_label(tmp_path: Path, name: str) -> None:
    nifti(tmp_path / "lung_001_ct.nii.gz")
    masks(tmp_path, [name])
    (row,), problems = local_series(tmp_path)
    assert labels_of(row) == [f"{name}.nii.gz"]
    assert not problems


def test_several_seg_files_of_one_series_are_joined_by_their_segments(tmp_path: Path) -> None:
    ct = dicom(tmp_path / "ct")
    left, right = np.zeros((2, 6, 24, 24), np.uint8)
    left[:4, 8:12, 9:11], right[2:, 8:12, 11:14] = 1, 1
    soft = np.zeros_like(left)
    soft[2, 15:18, 15:18] = 2
    seg(tmp_path / "seg1" / "a.dcm", ct, {1: "Femur left"}, left)
    seg(tmp_path / "seg2" / "b.dcm", ct, {1: "Hip right", 2: "Colon"}, np.maximum(right, soft))
    (row,), problems = local_series(tmp_path)
    assert labels_of(row) == ["a.dcm", "b.dcm"]
    assert not fatal(problems)
    series = read(row)
    np.testing.assert_array_equal(series.label == 2, (left | right) > 0)


def test_several_seg_files_without_telling_names_are_refused(tmp_path: Path) -> None:
    ct = dicom(tmp_path / "ct")
    for name in ("a", "b"):
        mask = np.zeros((6, 24, 24), np.uint8)
        mask[2, 8:12, 9 if name == "a" else 11] = 1
        seg(tmp_path / f"{name}.dcm", ct, {1: f"Reader {name}"}, mask)
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert fatal(problems) == ["a.dcm", "b.dcm"]
    assert not [problem for problem in problems if "Reader" in problem.reason]


def test_segments_of_one_seg_are_bone_by_name_and_said_so(tmp_path: Path) -> None:
    ct = dicom(tmp_path / "ct")
    seg(tmp_path / "seg.dcm", ct, {1: "Left femur", 2: "MUSTERMANN colon", 3: "Sacrum"})
    (row,), _ = local_series(tmp_path)
    series = read(row)
    assert (series.label == 2).sum() < (body()[1] == 2).sum()
    (warning,) = [text for text in series.warnings if "segments are bone" in text]
    assert "2 segments are bone (left femur, sacrum); 1 are taken as no bone (colon)" in warning


def test_a_label_map_goes_before_the_names_of_masks(tmp_path: Path) -> None:
    nifti(tmp_path / "ct.nii.gz")
    masks(tmp_path / "segmentations", ["femur", "sacrum"], value=3)
    (row,), _ = local_series(tmp_path)
    assert (read(row).label == 2).any()
    assert (read(row, PrepareSettings(label_map={3: 2})).label == 2).any()


def assert_not_joined(folder: Path, names: Sequence[str]) -> None:
    nifti(folder / "ct.nii.gz")
    masks(folder, names)
    (row,), problems = local_series(folder)
    assert row.label is None
    assert fatal(problems) == sorted(f"{name}.nii.gz" for name in names)


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
    nifti(tmp_path / "ct.nii.gz")
    masks(tmp_path, names)
    (row,), problems = local_series(tmp_path)
    assert len(labels_of(row)) == 2, problems


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
    assert_not_joined(tmp_path, names)


@pytest.mark.parametrize(
    "name", ["bone_metastasis", "femur_tumor", "Knochenmetastase", "hip_implant", "bone lesion", "femur_marrow", "cyst"]
)
def test_what_lies_in_a_bone_is_not_the_bone(tmp_path: Path, name: str) -> None:
    assert_not_joined(tmp_path, [name])


@pytest.mark.parametrize("name", ["bone", "tumorzentrum_case3_bone", "femur_fracture", "label"])
def test_other_names_of_a_lone_mask_are_bone(tmp_path: Path, name: str) -> None:
    nifti(tmp_path / "ct.nii.gz")
    masks(tmp_path, [name])
    (row,), problems = local_series(tmp_path)
    assert row.label is not None, problems
