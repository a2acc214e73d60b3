"""Which label goes to which series: what files state decides, then geometry, then names; never a guess."""

import shutil
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from boneseg.ingest.local import local_series
from boneseg.ingest.read import LabelledSeries, read_labelled
from boneseg.nifti import write_volume
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.catalogue import Problem, SeriesRow
from tests.ct_files import body, dicom, nifti, nifti_label, place, seg_label, truncate


def seg(path: Path, sources: list[Path], names: dict[int, str], mask: NDArray[np.uint8] | None = None) -> Path:
    """Write a SEG that references its source images, each segment at a place of its own."""
    images = sorted((pydicom.dcmread(source) for source in sources), key=lambda data: data.ImagePositionPatient[2])
    if mask is None:
        bone = np.argwhere(body()[1] == 2)
        mask = np.zeros((len(images), 24, 24), np.uint8)
        for number, points in zip(sorted(names), np.array_split(bone, len(names)), strict=True):
            mask[tuple(points.T)] = number
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type="MANUAL",
        )
        for number, name in sorted(names.items())
    ]
    data = hd.seg.Segmentation(
        source_images=images,
        pixel_array=mask,
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path)
    return path


def masks(folder: Path, names: list[str], value: int = 1) -> NDArray[np.uint8]:
    """Write one mask a name, the bone's voxels shared out among them; return all of them together."""
    folder.mkdir(parents=True, exist_ok=True)
    bone = np.argwhere(body()[1] == 2)
    everything = np.zeros(body()[1].shape, np.uint8)
    for name, points in zip(names, np.array_split(bone, len(names)), strict=True):
        mask = np.zeros_like(everything)
        mask[tuple(points.T)] = value
        everything |= mask
        write_volume(folder / f"{name}.nii.gz", mask, place())
    return everything


def labels_of(row: SeriesRow) -> list[str]:
    return [] if row.label is None else [Path(p.object.key).name for p in row.label.parts or (row.label,)]


def fatal(problems: tuple[Problem, ...]) -> list[str]:
    return [problem.source for problem in problems if problem.fatal]


def read(row: SeriesRow, settings: PrepareSettings | None = None) -> LabelledSeries:
    return read_labelled(lambda ref: Path(ref.key), row, settings or PrepareSettings())


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


FOREIGN = {
    "archive": b"PK\x03\x04" + bytes(400),
    "image pair": b"\x5c\x01\x00\x00" + bytes(400),
    "noise": bytes(range(256)) * 3,
    "volume with a header in text": b"NRRD0004\ntype: short\ndimension: 3\n" + b"comment\n" * 90,
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
    (tmp_path / "labels" / "case1.seg.nrrd").write_bytes(FOREIGN["volume with a header in text"])
    (row,), problems = local_series(tmp_path)
    assert labels_of(row) == ["case1.nii.gz"]
    assert [(problem.source, problem.fatal) for problem in problems] == [("labels/case1.seg.nrrd", False)]


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
