import random
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from boneseg.geometry import Geometry
from boneseg.ingest.facts import Kind, ObjectFacts, inspect
from boneseg.ingest.local import local_series
from boneseg.ingest.recognise import assemble
from boneseg.nifti import read_volume, write_volume
from boneseg.storage.catalogue import FileKind, ObjectRef, Problem, SeriesRow
from boneseg.storage.hashing import sha256_file
from tests.ct_files import body, dicom, nifti, nifti_label, place, seg_label, truncate

SECRET = b"test"


def facts_of(path: Path) -> ObjectFacts:
    ref = ObjectRef(key=f"raw/{path.name}", size=path.stat().st_size, etag="", sha256=sha256_file(path))
    return inspect(path, ref, SECRET)


def fatal(problems: tuple[Problem, ...]) -> list[Problem]:
    return [problem for problem in problems if problem.fatal]


def sources(rows: tuple[SeriesRow, ...]) -> list[str]:
    return [row.source for row in rows]


def test_names_play_no_part(tmp_path: Path) -> None:
    for index, path in enumerate(dicom(tmp_path / "a" / "dicom")):
        path.rename(path.with_name(f"notes{index}.txt"))
    nifti(tmp_path / "b" / "volume.nii.gz", seed=2).rename(tmp_path / "b" / "scan.dcm")
    nifti_label(tmp_path / "b" / "l.nii.gz").rename(tmp_path / "b" / "readme")
    (tmp_path / "c.dcm").write_text("not an image")
    rows, problems = local_series(tmp_path)
    assert [(row.source, row.kind, row.label is not None) for row in rows] == [
        ("a/dicom", FileKind.DICOM, False),
        ("b/scan.dcm", FileKind.NIFTI, True),
    ]
    assert [(problem.source, problem.fatal) for problem in problems] == [("c.dcm", False)]


def test_row_says_what_the_files_hold(tmp_path: Path) -> None:
    geometry = place(at=(-100, -80, 500))
    dicom(tmp_path, geometry=geometry)
    (row,), _ = local_series(tmp_path)
    hu, _ = body()
    assert row.geometry.geometry() == geometry
    assert row.hu_range == (max(int(hu.min()), -1024), int(hu.max()))
    assert (row.spacing, row.orientation, row.modality) == ((3.0, 1.0, 1.0), "SPL", "CT")
    positions = [pydicom.dcmread(item.key).ImagePositionPatient[2] for item in row.objects]
    assert positions == sorted(positions)


def test_order_of_files_plays_no_part(tmp_path: Path) -> None:
    paths = dicom(tmp_path / "a") + dicom(tmp_path / "b", seed=1) + [nifti_label(tmp_path / "a" / "label.nii.gz")]
    facts = [facts_of(path) for path in paths]
    first = assemble(facts, SECRET)
    random.Random(0).shuffle(facts)
    assert assemble(facts, SECRET) == first


def test_empty_uids_do_not_merge_series(tmp_path: Path) -> None:
    blank = ("SeriesInstanceUID", "StudyInstanceUID", "PatientID", "SOPInstanceUID")
    dicom(tmp_path / "a", seed=1, empty=blank)
    dicom(tmp_path / "b", seed=2, empty=blank)
    rows, problems = local_series(tmp_path)
    assert sources(rows) == ["a", "b"]
    assert [len(row.objects) for row in rows] == [6, 6]
    assert rows[0].patient != rows[1].patient
    assert not problems


def test_empty_patient_falls_back_to_the_study(tmp_path: Path) -> None:
    dicom(tmp_path / "a" / "x", seed=1, uid="same", empty=("PatientID",))
    for seed, name in ((2, "y"), (3, "z")):
        for path in dicom(tmp_path / "a" / name, seed=seed, empty=("PatientID",)):
            data = pydicom.dcmread(path)
            data.StudyInstanceUID = "1.2.3"
            data.save_as(path)
    rows, _ = local_series(tmp_path)
    patients = {row.source: row.patient for row in rows}
    assert patients["a/y"] == patients["a/z"] != patients["a/x"]


@pytest.mark.parametrize("second_patient", ["P1", "P2"])
def test_one_uid_of_two_series_does_not_merge_them(tmp_path: Path, second_patient: str) -> None:
    dicom(tmp_path / "a", seed=1, uid="same")
    dicom(tmp_path / "b", seed=2, uid="same", patient=second_patient)
    rows, problems = local_series(tmp_path)
    assert sources(rows) == ["a", "b"]
    assert [len(row.objects) for row in rows] == [6, 6]
    assert not problems


def test_one_series_in_several_folders_stays_whole(tmp_path: Path) -> None:
    paths = dicom(tmp_path / "case" / "part1")
    (tmp_path / "case" / "part2").mkdir()
    for path in paths[::2]:
        path.rename(tmp_path / "case" / "part2" / path.name)
    (row,), problems = local_series(tmp_path)
    assert (row.source, len(row.objects)) == ("case", 6)
    assert not problems


def test_scout_with_the_same_uid_is_kept_apart_and_named(tmp_path: Path) -> None:
    paths = dicom(tmp_path / "case")
    scout = pydicom.dcmread(paths[0])
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    scout.save_as(tmp_path / "case" / "scout.dcm")
    (row,), problems = local_series(tmp_path)
    assert len(row.objects) == 6
    assert [(problem.source, problem.fatal) for problem in problems] == [("case/scout.dcm", False)]
    assert "a single slice beside series case" in problems[0].reason


def test_copied_files_count_once(tmp_path: Path) -> None:
    paths = dicom(tmp_path / "case")
    (tmp_path / "case again").mkdir()
    for path in paths:
        shutil.copy(path, tmp_path / "case again" / path.name)
    for folder in ("case", "case again"):
        nifti_label(tmp_path / folder / "label.nii.gz")
    (row,), problems = local_series(tmp_path)
    assert (row.source, len(row.objects)) == ("case", 6)
    assert row.label is not None
    assert Path(row.label.object.key).parent.name == "case"
    assert not fatal(problems)
    reasons = {problem.source: problem.reason for problem in problems}
    assert set(reasons) == {"case again", "case again/label.nii.gz"}
    assert "6 slices of series case a second time" in reasons["case again"]


def test_same_pixels_under_another_identity_are_found(tmp_path: Path) -> None:
    dicom(tmp_path / "a", seed=1, uid="one", patient="P1")
    dicom(tmp_path / "b", seed=1, uid="two", patient="P2")
    nifti_label(tmp_path / "b" / "label.nii.gz")
    (row,), problems = local_series(tmp_path)
    assert row.source == "b"  # the copy that has a label is kept
    assert [(problem.source, problem.fatal) for problem in problems] == [("a", False)]
    assert "the same series as b under another patient" in problems[0].reason


def test_two_phases_in_one_folder_are_refused_by_name(tmp_path: Path) -> None:
    dicom(tmp_path / "x", seed=1, uid="same")
    dicom(tmp_path / "y", seed=2, uid="same")
    for path in (tmp_path / "y").iterdir():
        path.rename(tmp_path / "x" / f"late-{path.name}")
    rows, problems = local_series(tmp_path)
    assert rows == ()
    assert problems[0].source == "x"
    assert "same position" in problems[0].reason


def test_series_numbers_tell_two_series_of_one_uid_and_folder_apart(tmp_path: Path) -> None:
    dicom(tmp_path / "x", seed=1, uid="same")
    for path in dicom(tmp_path / "y", seed=2, uid="same"):
        data = pydicom.dcmread(path)
        data.SeriesNumber = 77
        data.save_as(tmp_path / "x" / f"late-{path.name}")
    shutil.rmtree(tmp_path / "y")
    rows, problems = local_series(tmp_path)
    assert [len(row.objects) for row in rows] == [6, 6]
    assert not problems


def test_other_modalities_are_counted_not_read(tmp_path: Path) -> None:
    dicom(tmp_path / "ct")
    for path in dicom(tmp_path / "mr", seed=3):
        data = pydicom.dcmread(path)
        data.Modality, data.SOPClassUID = "MR", "1.2.840.10008.5.1.4.1.1.4"
        data.save_as(path)
    rows, problems = local_series(tmp_path)
    assert sources(rows) == ["ct"]
    assert [(p.source, p.reason, p.fatal) for p in problems] == [
        ("mr", "6 files not used: modality MR is not CT", False)
    ]


def test_damaged_files_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    paths = dicom(tmp_path / "a")
    truncate(paths[-1])
    truncate(nifti(tmp_path / "b" / "ct.nii.gz"))
    dicom(tmp_path / "c", seed=5)
    rows, problems = local_series(tmp_path)
    assert sources(rows) == ["a", "c"]
    assert [problem.source for problem in fatal(problems)] == [f"a/{paths[-1].name}", "b/ct.nii.gz"]
    assert all("cut short" in problem.reason for problem in problems)


@pytest.mark.parametrize("kind", ["nifti", "seg"])
def test_label_in_another_order_of_axes_fits(tmp_path: Path, kind: str) -> None:
    geometry = place(at=(-30, 20, 100))
    dicom(tmp_path / "case" / "dicom", geometry=geometry)
    affine = geometry.affine.copy()
    affine[:3, 3] += affine[:3, 0] * 5
    affine[:3, 0] *= -1
    flipped = Geometry(geometry.shape, affine)  # head first
    if kind == "nifti":
        nifti_label(tmp_path / "case" / "label.nii.gz", flipped)
    else:
        seg_label(tmp_path / "case" / "label.dcm", flipped)
    (row,), problems = local_series(tmp_path)
    assert row.label is not None
    assert row.label.kind == (FileKind.NIFTI if kind == "nifti" else FileKind.DICOM_SEG)
    assert row.label.values == (1, 2)
    assert not problems


def test_segmentation_of_some_slices_fits(tmp_path: Path) -> None:
    dicom(tmp_path / "dicom")
    seg_label(tmp_path / "label.dcm", slices=slice(2, 5))
    (row,), _ = local_series(tmp_path)
    assert row.label is not None


def test_segmentation_between_slices_does_not_fit(tmp_path: Path) -> None:
    dicom(tmp_path / "dicom")
    seg_label(tmp_path / "label.dcm", place((3, 24, 24), at=(0, 0, 1.5)))
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert problems[0].source == "label.dcm"
    assert "3 x 24 x 24 voxels" in problems[0].reason
    assert "6 x 24 x 24 voxels of 3.00 x 1.00 x 1.00 mm" in problems[0].reason


@pytest.mark.parametrize("label", [place((6, 24, 25)), place(at=(0, 0, 1)), place(at=(5, 0, 0))])
def test_label_of_another_geometry_is_named(tmp_path: Path, label: Geometry) -> None:
    nifti(tmp_path / "case" / "ct.nii.gz")
    nifti_label(tmp_path / "case" / "label.nii.gz", label)
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert [problem.source for problem in fatal(problems)] == ["case/label.nii.gz"]
    assert "fits no series; the nearest, case/ct.nii.gz" in problems[0].reason


def test_label_of_zeros_is_still_a_label(tmp_path: Path) -> None:
    write_volume(tmp_path / "x.nii.gz", np.zeros((6, 24, 24), dtype=np.float32), place())
    facts = facts_of(tmp_path / "x.nii.gz")
    assert (facts.kind, facts.values) == (Kind.LABEL, ())


def test_probabilities_are_neither_image_nor_label(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((6, 24, 24)).astype(np.float32)
    write_volume(tmp_path / "x.nii.gz", values, place())
    facts = facts_of(tmp_path / "x.nii.gz")
    assert facts.kind == Kind.BROKEN
    assert "neither HU nor labels" in facts.reason


def test_float_volume_with_holes_is_an_image(tmp_path: Path) -> None:
    hu = body()[0].astype(np.float32)
    hu[0, 0, 0] = np.nan
    write_volume(tmp_path / "x.nii.gz", hu, place())
    facts = facts_of(tmp_path / "x.nii.gz")
    assert facts.kind == Kind.VOLUME
    assert facts.hu_range == (-1024, int(body()[0].max()))


def test_datasets_of_nnunet_layout_match_by_name(tmp_path: Path) -> None:
    for number in range(1, 13):
        nifti(tmp_path / "imagesTr" / f"BONE_{number:03d}_0000.nii.gz", seed=number)
        nifti_label(tmp_path / "labelsTr" / f"BONE_{number:03d}.nii.gz")
    nifti(tmp_path / "imagesTs" / "BONE_013_0000.nii.gz", seed=13)
    rows, problems = local_series(tmp_path)
    assert len(rows) == 13
    assert [row.source for row in rows if row.label is None] == ["imagesTs/BONE_013_0000.nii.gz"]
    labels = {Path(row.source).name[:8]: Path(row.label.object.key).name[:8] for row in rows if row.label}
    assert all(image == label for image, label in labels.items())
    assert len({row.patient for row in rows}) == 13
    assert not problems


def test_trees_of_images_and_labels_match_by_folder_name(tmp_path: Path) -> None:
    for number in (1, 10, 11):
        dicom(tmp_path / "images" / f"case{number}" / "dicom", seed=number)
        nifti_label(tmp_path / "labels" / f"case{number}" / "label.nii.gz")
    rows, problems = local_series(tmp_path)
    labels = {Path(row.source).parts[1]: Path(row.label.object.key).parent.name for row in rows if row.label}
    assert labels == {"case1": "case1", "case10": "case10", "case11": "case11"}
    assert not problems


def test_label_that_may_belong_to_two_series_is_not_guessed(tmp_path: Path) -> None:
    nifti(tmp_path / "images" / "x.nii.gz", seed=1)
    nifti(tmp_path / "images" / "y.nii.gz", seed=2)
    nifti_label(tmp_path / "labels" / "bone.nii.gz")
    rows, problems = local_series(tmp_path)
    assert [row.label for row in rows] == [None, None]
    assert "fits images/x.nii.gz and images/y.nii.gz equally well" in problems[0].reason


def test_series_of_equal_geometry_keep_their_own_labels(tmp_path: Path) -> None:
    for number in range(4):
        dicom(tmp_path / f"case{number}" / "dicom", seed=number)
        seg_label(tmp_path / f"case{number}" / "label.dcm")
    rows, problems = local_series(tmp_path)
    assert [Path(row.label.object.key).parent.name for row in rows if row.label] == [f"case{n}" for n in range(4)]
    assert not problems


def test_label_of_a_damaged_series_goes_to_no_neighbour(tmp_path: Path) -> None:
    truncate(nifti(tmp_path / "a" / "ct.nii.gz", seed=1), 0.8)
    nifti_label(tmp_path / "a" / "label.nii.gz")
    nifti(tmp_path / "b" / "ct.nii.gz", seed=2)
    (row,), problems = local_series(tmp_path)
    assert (row.source, row.label) == ("b/ct.nii.gz", None)
    assert [problem.source for problem in fatal(problems)] == ["a/ct.nii.gz", "a/label.nii.gz"]


def test_damaged_label_does_not_keep_others_from_their_series(tmp_path: Path) -> None:
    for number in range(4):
        nifti(tmp_path / "images" / f"case{number}.nii.gz", seed=number)
        nifti_label(tmp_path / "labels" / f"case{number}.nii.gz")
        dicom(tmp_path / "dicom" / f"case{number}", seed=number + 10, geometry=place(at=(0, 0, 900)))
        seg_label(tmp_path / "segs" / f"case{number}.dcm", place(at=(0, 0, 900)))
    truncate(tmp_path / "labels" / "case3.nii.gz")
    truncate(tmp_path / "segs" / "case3.dcm")
    rows, problems = local_series(tmp_path)
    assert len(rows) == 8
    unlabelled = [row.source for row in rows if row.label is None]
    assert unlabelled == ["dicom/case3", "images/case3.nii.gz"]
    assert [problem.source for problem in problems] == ["labels/case3.nii.gz", "segs/case3.dcm"]


def test_label_of_a_damaged_file_goes_to_no_neighbour_in_its_folder(tmp_path: Path) -> None:
    truncate(nifti(tmp_path / "case1_ct.nii.gz", seed=1), 0.8)
    nifti_label(tmp_path / "case1_label.nii.gz")
    nifti(tmp_path / "case2_ct.nii.gz", seed=2)
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert "case1_ct.nii.gz, which cannot be read" in problems[-1].reason


def test_of_two_labels_the_nearer_is_used(tmp_path: Path) -> None:
    nifti(tmp_path / "case" / "ct.nii.gz")
    nifti_label(tmp_path / "case" / "labels.nii.gz")
    nifti_label(tmp_path / "old" / "labels.nii.gz", seed=1)
    (row,), problems = local_series(tmp_path)
    assert row.label is not None
    assert Path(row.label.object.key).parent.name == "case"
    assert [problem.source for problem in fatal(problems)] == ["old/labels.nii.gz"]
    assert "nearer label, case/labels.nii.gz" in problems[0].reason


def test_nothing_that_identifies_a_patient_is_kept(tmp_path: Path) -> None:
    paths = dicom(tmp_path / "a", patient="MUSTERMANN-123")
    uid = pydicom.dcmread(paths[0]).SeriesInstanceUID
    study = pydicom.dcmread(paths[0]).StudyInstanceUID
    facts = [facts_of(path) for path in paths]
    rows, problems = assemble(facts, SECRET)
    text = "".join(str(item.model_dump_json()) for item in (*facts, *rows, *problems))
    assert not [secret for secret in ("MUSTERMANN", uid, study) if secret in text]


def test_patient_key_depends_on_the_secret(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a")[0]
    ref = ObjectRef(key="k", size=1, etag="", sha256="")
    assert inspect(path, ref, b"one").patient != inspect(path, ref, b"two").patient


def test_real_series_are_found_with_their_labels(shared_series: Path) -> None:
    rows, problems = local_series(shared_series)
    found = {Path(row.source).parts[0]: row for row in rows}
    assert len(rows) == 7
    assert not problems
    for name, row in found.items():
        assert row.label is not None
        assert Path(row.label.object.key).parent.name == name
    assert found["acrin-flt-breast-001-pelvis"].patient == found["acrin-flt-breast-001-thorax"].patient
    assert len({row.patient for row in rows}) == 6
    assert len(found["acrin-flt-breast-001-pelvis"].objects) == 99
    assert len(found["totalsegmentator-thorax-20"].objects) == 20  # its UIDs are empty
    for row in rows:  # the label's voxels lie where the series' voxels are
        _, geometry = read_volume(Path(row.label.object.key))  # type: ignore[union-attr]
        assert geometry.spacing == pytest.approx(row.spacing, abs=1e-3)
