"""Which label goes to which series: what files state decides, then geometry, then names; never a guess."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from boneseg.ingest.local import local_series
from boneseg.nifti import write_volume
from tests.ct_files import dicom, nifti, nifti_label, place, seg_label, truncate
from tests.ingest.label_files import fatal, labels_of, seg


@pytest.mark.parametrize("folder", ["SEG", "3_CT_BONE", "3_CT_BONE/seg", "."])
def test_a_seg_goes_to_the_series_that_it_references(tmp_path: Path, folder: str) -> None:
    soft = dicom(tmp_path / "2_CT_SOFT", seed=1)
    dicom(tmp_path / "3_CT_BONE", seed=2)
    seg(tmp_path / folder / "BONE.dcm", soft, {1: "bone"})
    rows, problems = local_series(tmp_path)
    assert {row.source: labels_of(row) for row in rows} == {"2_CT_SOFT": ["BONE.dcm"], "3_CT_BONE": []}
    assert not fatal(problems)


@pytest.mark.parametrize("phase", [1, 2])
def test_a_seg_goes_to_the_pass_whose_images_it_references(tmp_path: Path, phase: int) -> None:
    paths = []
    for number in (1, 2):
        for path in dicom(tmp_path / f"pass{number}", seed=number, uid="same"):
            data = pydicom.dcmread(path)
            data.AcquisitionNumber = number
            data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            (tmp_path / "ct").mkdir(exist_ok=True)
            target = tmp_path / "ct" / f"{number}{path.name}"
            data.save_as(target)
            paths += [target] if number == phase else []
        shutil.rmtree(tmp_path / f"pass{number}")
    seg(tmp_path / "seg.dcm", paths, {1: "bone"})
    rows, problems = local_series(tmp_path)
    (labelled,) = [row for row in rows if row.label]
    assert {Path(item.key).name[0] for item in labelled.objects} == {str(phase)}
    assert not fatal(problems)


@pytest.mark.parametrize("loss", ["removed", "cut", "beyond knowing"])
def test_a_seg_whose_series_is_lost_goes_to_no_other_of_the_study(tmp_path: Path, loss: str) -> None:
    soft = dicom(tmp_path / "soft", seed=1)
    bone = dicom(tmp_path / "bone", seed=2)
    study = pydicom.dcmread(soft[0]).StudyInstanceUID
    for path in bone:
        data = pydicom.dcmread(path)
        data.StudyInstanceUID = study
        data.save_as(path)
    seg(tmp_path / "seg.dcm", soft, {1: "bone"})
    for path in soft:
        if loss == "removed":
            path.unlink()
        else:
            truncate(path, 0.8 if loss == "cut" else 0.1)
    (row,), problems = local_series(tmp_path)
    assert (row.source, row.label) == ("bone", None)
    assert "seg.dcm" in fatal(problems)
    (reason,) = [problem.reason for problem in problems if problem.source == "seg.dcm"]
    assert "it was drawn on" in reason


def test_a_seg_of_another_patient_is_refused_though_the_grid_fits(tmp_path: Path) -> None:
    mine = dicom(tmp_path / "a", seed=1, patient="P1")
    dicom(tmp_path / "b", seed=2, patient="P2")
    seg(tmp_path / "b" / "seg.dcm", mine, {1: "bone"})
    shutil.rmtree(tmp_path / "a")
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert "another PatientID" in problems[0].reason


def test_a_seg_on_another_grid_than_the_series_it_references_names_that_series(tmp_path: Path) -> None:
    soft = dicom(tmp_path / "soft", seed=1)
    seg(tmp_path / "seg.dcm", soft, {1: "bone"})
    for path in soft[1:3]:
        path.unlink()
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert "it says that it was drawn on soft" in problems[0].reason


def test_a_seg_without_known_references_is_placed_by_its_grid(tmp_path: Path) -> None:
    nifti(tmp_path / "ct.nii.gz")
    seg_label(tmp_path / "seg.dcm")
    (row,), problems = local_series(tmp_path)
    assert labels_of(row) == ["seg.dcm"]
    assert not problems


FOREIGN = {
    "archive": b"PK\x03\x04" + bytes(400),
    "image pair": b"\x5c\x01\x00\x00" + bytes(400),
    "noise": bytes(range(256)) * 3,
    "volume in HDF5": b"\x89HDF\r\n\x1a\n" + bytes(400),
    "damaged volume with a header in text": b"NRRD0004\ntype: short\ndimension: 3\n" + b"comment\n" * 90,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_label_beside_an_image_that_is_not_read_goes_to_no_neighbour(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "series.bin").write_bytes(content)
    nifti_label(tmp_path / "a" / "label.nii.gz")
    nifti(tmp_path / "b" / "ct.nii.gz")
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert "a/label.nii.gz" in fatal(problems)


def test_a_foreign_label_beside_a_label_is_no_image(tmp_path: Path) -> None:
    nifti(tmp_path / "images" / "case1.nii.gz")
    nifti_label(tmp_path / "labels" / "case1.nii.gz")
    (tmp_path / "labels" / "case1.seg.h5").write_bytes(FOREIGN["volume in HDF5"])
    (row,), problems = local_series(tmp_path)
    assert labels_of(row) == ["case1.nii.gz"]
    assert [(problem.source, problem.fatal) for problem in problems] == [("labels/case1.seg.h5", False)]


def test_a_label_beside_the_mr_that_it_was_drawn_on_goes_to_no_ct(tmp_path: Path) -> None:
    for path in dicom(tmp_path / "a" / "mr", seed=3):
        data = pydicom.dcmread(path)
        data.Modality, data.SOPClassUID = "MR", "1.2.840.10008.5.1.4.1.1.4"
        data.save_as(path)
    nifti_label(tmp_path / "a" / "label.nii.gz")
    nifti(tmp_path / "b" / "ct.nii.gz")
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert fatal(problems) == ["a/label.nii.gz"]


def test_dicom_slices_broken_beside_their_label_keep_it_from_neighbours(tmp_path: Path) -> None:
    for path in dicom(tmp_path / "a", seed=1):
        truncate(path)
    nifti_label(tmp_path / "a" / "label.nii.gz")
    dicom(tmp_path / "b", seed=2)
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert problems[0].source == "a"
    assert "6 files, the first of them a/" in problems[0].reason


@pytest.mark.parametrize(("image", "label"), [("case1", "case10"), ("case1_ct", "case2_seg"), ("p1/ct", "p3/seg")])
def test_a_label_with_another_number_is_not_taken_though_only_one_series_fits(
    tmp_path: Path, image: str, label: str
) -> None:
    nifti(tmp_path / "images" / f"{image}.nii.gz")
    nifti(tmp_path / "images" / "case77.nii.gz", seed=7, geometry=place(at=(0, 0, 500)))
    nifti_label(tmp_path / "labels" / f"{label}.nii.gz")
    rows, problems = local_series(tmp_path)
    assert [row.label for row in rows] == [None, None]
    assert "another number" in problems[0].reason


def test_a_second_label_makes_a_clear_choice_a_row_not_another_choice(tmp_path: Path) -> None:
    nifti(tmp_path / "ct.nii.gz")
    nifti_label(tmp_path / "first.nii.gz")
    (row,), _ = local_series(tmp_path)
    assert labels_of(row) == ["first.nii.gz"]
    nifti_label(tmp_path / "ct2.nii.gz", seed=3)
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert fatal(problems) == ["ct2.nii.gz", "first.nii.gz"]


def test_one_drawing_in_two_files_is_one_label(tmp_path: Path) -> None:
    nifti(tmp_path / "ct.nii.gz")
    nifti_label(tmp_path / "label.nii.gz")
    nifti_label(tmp_path / "copy.nii")
    (row,), problems = local_series(tmp_path)
    assert row.label is not None
    assert [(problem.fatal, "a copy of" in problem.reason) for problem in problems] == [(False, True)]


def test_two_labels_for_one_series_under_two_names_are_refused(tmp_path: Path) -> None:
    for name, number in (("a", 1), ("b", 2)):
        dicom(tmp_path / name / "ct", seed=1, uid=name, patient=f"P{number}")
        nifti_label(tmp_path / name / "label.nii.gz", seed=number)
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert fatal(problems) == ["a/label.nii.gz", "b/label.nii.gz"]


def test_a_ct_windowed_to_grey_values_is_named_as_that(tmp_path: Path) -> None:
    grey = np.arange(6 * 24 * 24).reshape(6, 24, 24) % 256
    write_volume(tmp_path / "ct.nii.gz", grey.astype(np.uint8), place())
    rows, problems = local_series(tmp_path)
    assert rows == ()
    assert "grey values of a picture (a CT windowed to 8 bits?)" in problems[0].reason
    nifti(tmp_path / "hu.nii.gz")
    nifti_label(tmp_path / "label.nii.gz")
    (row,), problems = local_series(tmp_path)
    assert labels_of(row) == ["label.nii.gz"]
    assert fatal(problems) == ["ct.nii.gz"]


@pytest.mark.parametrize(("name", "content"), [("im-9.dcm", b""), ("im-9.dcm", b"x" * 90)], ids=["empty", "cut"])
def test_a_lost_slice_is_named_by_its_likeness_to_the_others(tmp_path: Path, name: str, content: bytes) -> None:
    for number, path in enumerate(dicom(tmp_path / "ct")):
        path.rename(path.with_name(f"im-{number}.dcm"))
    (tmp_path / "ct" / name).write_bytes(content)
    (row,), problems = local_series(tmp_path)
    assert len(row.objects) == 6
    assert fatal(problems) == [f"ct/{name}"]


def test_a_label_whose_series_is_refused_says_so_and_goes_to_no_other(tmp_path: Path) -> None:
    dicom(tmp_path / "a" / "ct", seed=1, uid="same")
    again = dicom(tmp_path / "a" / "x", seed=2, uid="same")[2]
    shutil.move(again, tmp_path / "a" / "ct" / "again.dcm")
    shutil.rmtree(tmp_path / "a" / "x")
    nifti_label(tmp_path / "a" / "label.nii.gz")
    dicom(tmp_path / "b" / "ct", seed=3)
    (row,), problems = local_series(tmp_path)
    assert (row.source, row.label) == ("b/ct", None)
    assert [problem.source for problem in problems] == ["a/ct", "a/label.nii.gz"]
    assert "form no series that can be used" in problems[1].reason


def test_every_file_is_in_a_row_or_in_a_problem(tmp_path: Path) -> None:
    dicom(tmp_path / "case" / "ct")
    nifti_label(tmp_path / "case" / "label.nii.gz")
    others = {"notes.txt": b"hello", "table.csv": b"a,b", "empty": b"", "picture.png": b"\x89PNG\r\n" + bytes(50)}
    for name, content in others.items():
        (tmp_path / "case" / name).write_bytes(content)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "label.nii.gz").write_bytes(b"no volume")
    (row,), problems = local_series(tmp_path)
    assert row.label is not None
    assert fatal(problems) == ["x/label.nii.gz"]
    assert problems[0].source == "x/label.nii.gz"  # what matters stands first
    counted = {problem.source: problem.reason[:6] for problem in problems[1:]}
    assert counted == {"case": "2 file", "case/empty": "1 file", "case/picture.png": "1 file"}
