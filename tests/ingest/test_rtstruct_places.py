"""To which series an RTSTRUCT goes, which regions count, and that its shard is that of the same mask as NIfTI."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from boneseg.dataset.prepare import prepare
from boneseg.dataset.shards import load_dataset, open_shard
from boneseg.dicom.contours import read_structures
from boneseg.errors import LabelError
from boneseg.ingest.label_file import local_file
from boneseg.ingest.local import local_series
from boneseg.ingest.pull import pull
from boneseg.ingest.read import read_labelled
from boneseg.ingest.rtstruct_regions import region_names
from boneseg.nifti import write_volume
from boneseg.scheme import BONE_SCHEME, LabelScheme
from boneseg.settings.schema import PrepareSettings, PullSettings, StoreSettings
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace
from tests.ct_files import nifti_label, place
from tests.dicom.contour_files import contours_of, rtstruct
from tests.ingest.label_files import labels_of, seg
from tests.ingest.test_by_bone import BOXES, SHAPE, truth
from tests.ingest.test_rtstruct import PELVIS, bones, ct, read, regions


def in_frame(files: list[Path], frame: str) -> list[Path]:
    """Put a series into another frame of reference."""
    for path in files:
        data = pydicom.dcmread(path)
        data.FrameOfReferenceUID = frame
        data.save_as(path)
    return files


def test_without_references_the_frame_of_reference_decides(tmp_path: Path) -> None:
    in_frame(ct(tmp_path / "p" / "one"), "1.2.1")
    in_frame(ct(tmp_path / "p" / "two", identity="two-two"), "1.2.2")
    rtstruct(tmp_path / "p" / "rs" / "rs.dcm", regions(), frame="1.2.2")
    rows, problems = local_series(tmp_path, scheme=PELVIS)
    assert {row.source: labels_of(row) for row in rows} == {"p/one": [], "p/two": ["rs.dcm"]}, problems


def test_in_no_frame_of_reference_that_is_here_it_is_nobodys(tmp_path: Path) -> None:
    in_frame(ct(tmp_path), "1.2.1")
    for frame in ("1.2.2", ""):
        rtstruct(tmp_path / "rs.dcm", regions(), frame=frame)
        (row,), problems = local_series(tmp_path, scheme=PELVIS)
        assert row.label is None
        assert any("frame of reference of its contours" in problem.reason for problem in problems), problems


def test_a_reference_into_another_frame_is_a_contradiction(tmp_path: Path) -> None:
    files = ct(tmp_path)
    rtstruct(tmp_path / "rs.dcm", regions(), files, frame="1.2.99")
    (row,), problems = local_series(tmp_path, scheme=PELVIS)
    assert row.label is None
    assert any("in another frame of reference" in problem.reason for problem in problems), problems


def test_another_series_of_the_same_space_takes_the_place_of_one_that_is_not_here(tmp_path: Path) -> None:
    other = in_frame(ct(tmp_path / "soft"), "1.2.1")
    in_frame(ct(tmp_path / "sharp", identity="two-two"), "1.2.1")
    rtstruct(tmp_path / "rs.dcm", regions(), other)
    shutil.rmtree(tmp_path / "soft")
    (row,), problems = local_series(tmp_path, scheme=PELVIS)
    assert labels_of(row) == ["rs.dcm"]
    assert any(not p.fatal and "which has the same frame of reference" in p.reason for p in problems), problems


def test_of_the_same_space_but_another_patient_it_is_refused(tmp_path: Path) -> None:
    files = in_frame(ct(tmp_path / "one", patient="P1"), "1.2.1")
    for refers in (True, False):
        path = rtstruct(tmp_path / "one" / "rs.dcm", regions(), files if refers else (), frame="1.2.1")
        data = pydicom.dcmread(path)
        data.PatientID = "P2"
        data.save_as(path)
        (row,), problems = local_series(tmp_path, scheme=PELVIS)
        assert row.label is None
        assert any("names another PatientID" in problem.reason for problem in problems), problems


def test_numbers_in_names_of_files_do_not_speak_against_it(tmp_path: Path) -> None:
    """An archive numbers every series: its names of files say nothing of what belongs together."""
    in_frame(ct(tmp_path / "p" / "2.000000-CT"), "1.2.1")
    in_frame(ct(tmp_path / "p" / "3.000000-CT", identity="two-two"), "1.2.2")
    rtstruct(tmp_path / "p" / "7.000000-RTSTRUCT" / "1-1.dcm", regions(), frame="1.2.1")
    rows, problems = local_series(tmp_path, scheme=PELVIS)
    assert {row.source: len(labels_of(row)) for row in rows} == {"p/2.000000-CT": 1, "p/3.000000-CT": 0}, problems


def test_half_of_a_series_is_not_what_it_was_drawn_on(tmp_path: Path) -> None:
    files = ct(tmp_path)
    rtstruct(tmp_path / "rs.dcm", regions(), files)
    for path in files[3:]:
        path.unlink()
    (row,), problems = local_series(tmp_path, scheme=PELVIS)
    assert row.label is None
    assert any("complete the series" in problem.reason for problem in problems), problems


@pytest.mark.parametrize(
    ("name", "kind", "read_as"),
    [
        ("Femur Lt", "ORGAN", "femur left"),
        ("FEMORAL HEAD RT", "AVOIDANCE", "femoral head right"),
        ("FemurLt", "", "femur left"),
        ("sacrum", "CTV", ""),
        ("PTV sacrum", "", ""),
        ("CTVn_sacrum", "", ""),
        ("Femur_L_PRV05", "ORGAN", ""),
        ("Femur L+5mm", "", ""),
        ("z ring femur", "", ""),
        ("~Femur_L", "ORGAN", ""),
        ("x1", "EXTERNAL", "external"),
        ("Sacrum", "EXTERNAL", "sacrum"),
    ],
)
def test_names_of_radiotherapy(tmp_path: Path, name: str, kind: str, read_as: str) -> None:
    found = read_structures(rtstruct(tmp_path / "rs.dcm", {name: []}, kinds={name: kind}))
    assert region_names(found.regions) == {1: read_as}


@pytest.mark.parametrize("scheme", [PELVIS, BONE_SCHEME])
def test_a_margin_around_a_bone_is_not_that_bone(tmp_path: Path, scheme: LabelScheme) -> None:
    files = ct(tmp_path)
    wide = np.zeros(SHAPE, dtype=bool)
    wide[1:6, 12:24, 10:22] = True
    rtstruct(tmp_path / "rs.dcm", {**regions(), "sacrum+5mm": contours_of(wide, place(SHAPE))}, files)
    np.testing.assert_array_equal(read(tmp_path, scheme).label > 1, truth() > 0)


def test_by_a_label_map_regions_go_by_their_numbers(tmp_path: Path) -> None:
    files = ct(tmp_path)
    rtstruct(tmp_path / "rs.dcm", {f"region {number}": c for number, c in enumerate(regions().values())}, files)
    (row,), _ = local_series(tmp_path, scheme=PELVIS)
    names = dict(enumerate(BOXES, start=1))
    mapped = PrepareSettings.model_validate({"label_map": {**names, "others": "background"}})
    np.testing.assert_array_equal(bones(read_labelled(local_file, row, mapped, PELVIS)), truth())
    with pytest.raises(LabelError, match=r"rs\.dcm: by its name none of 6 regions is a bone.*prepare.label_map"):
        read_labelled(local_file, row, PrepareSettings(), PELVIS)


def test_a_bone_across_the_slices_refuses_the_label_and_a_target_does_not(tmp_path: Path) -> None:
    files = ct(tmp_path)
    square = np.array([[1, 9, 9], [4, 9, 9], [4, 9, 13], [1, 9, 13]], dtype=float)
    across = [place(SHAPE).to_patient(square)]
    rtstruct(tmp_path / "rs.dcm", {**regions(), "PTV": across}, files)
    np.testing.assert_array_equal(bones(read(tmp_path)), truth())
    rtstruct(tmp_path / "rs.dcm", {**regions(), "spine": across}, files)
    with pytest.raises(LabelError, match=r"rs\.dcm: the contours of region 6 lie at 90 degrees to the slices"):
        read(tmp_path)


def test_two_files_with_bones_of_their_own_are_joined(tmp_path: Path) -> None:
    """One RTSTRUCT has the hips and targets, another the rest, and a DICOM SEG has the spine."""
    files, drawn = ct(tmp_path), regions()
    hips = {name: drawn.pop(name) for name in ("hip left", "hip right")}
    drawn.pop("spine")
    rtstruct(tmp_path / "hips.dcm", {"PTV": hips["hip left"], **hips}, files)
    rtstruct(tmp_path / "rest.dcm", drawn, files)
    seg(tmp_path / "seg.dcm", files, {1: "spine"}, (truth("spine") > 0).astype(np.uint8))
    np.testing.assert_array_equal(bones(read(tmp_path)), truth())
    np.testing.assert_array_equal(read(tmp_path, BONE_SCHEME).label > 1, truth() > 0)


def test_the_same_bone_in_two_files_is_settled_by_nobody(tmp_path: Path) -> None:
    files = ct(tmp_path)
    rtstruct(tmp_path / "one.dcm", regions(), files)
    rtstruct(tmp_path / "two.dcm", {"sacrum": contours_of(truth("sacrum", "spine") > 0, place(SHAPE))}, files)
    (row,), problems = local_series(tmp_path, scheme=PELVIS)
    assert row.label is None
    assert any("sacrum is there more than once" in problem.reason for problem in problems), problems


def test_a_copy_counts_once(tmp_path: Path) -> None:
    files = ct(tmp_path)
    rtstruct(tmp_path / "one.dcm", regions(), files)
    rtstruct(tmp_path / "two.dcm", regions(), files)
    (row,), problems = local_series(tmp_path, scheme=PELVIS)
    assert labels_of(row) == ["one.dcm"]
    assert any(problem.reason == "a copy of one.dcm" for problem in problems)


def test_of_several_passes_it_is_drawn_on_each_and_goes_to_that_on_whose_bones_it_lies(tmp_path: Path) -> None:
    first, second = ct(tmp_path / "new"), ct(tmp_path / "other")
    for number, files in enumerate((first, second), start=1):
        for index, path in enumerate(files):
            data = pydicom.dcmread(path)
            data.AcquisitionNumber, data.SOPInstanceUID = number, f"1.2.3.{number}.{index}"
            data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
            if number == 1:
                hu = np.roll(data.pixel_array, 9, axis=1)
                data.PixelData = hu.tobytes()
            data.save_as(tmp_path / f"pass{number}-{index}.dcm")
    shutil.rmtree(tmp_path / "new")
    shutil.rmtree(tmp_path / "other")
    frame = pydicom.dcmread(tmp_path / "pass1-0.dcm").FrameOfReferenceUID
    rtstruct(tmp_path / "rs.dcm", regions(), frame=frame)
    rows, problems = local_series(tmp_path, scheme=PELVIS)
    assert [Path(row.objects[0].key).name[:5] for row in rows if row.label] == ["pass2"], problems


def test_a_damaged_one_is_named_and_the_series_goes_on(tmp_path: Path) -> None:
    files = ct(tmp_path)
    path = rtstruct(tmp_path / "rs.dcm", regions(), files)
    path.write_bytes(path.read_bytes()[:-900])
    nifti_label(tmp_path / "label.nii.gz", place(SHAPE))
    (row,), problems = local_series(tmp_path)
    assert labels_of(row) == ["label.nii.gz"]
    assert [problem.source for problem in problems if problem.fatal] == ["rs.dcm"], problems


def shards(
    workspace: Workspace, folder: Path, scheme: LabelScheme
) -> list[tuple[NDArray[np.int16], NDArray[np.uint8]]]:
    upload_folder(workspace.store, folder, f"raw/{folder.name}/")
    found = pull(workspace, StoreSettings(raw_prefix=f"raw/{folder.name}/"), PullSettings(), scheme=scheme)
    assert found.labelled == 3, found.problems
    made = prepare(workspace, found.catalogue_uri, PrepareSettings(parallel=1), scheme)
    entries = load_dataset(workspace, made.dataset_uri).entries
    opened = [open_shard(workspace, entry.shard) for entry in sorted(entries, key=lambda item: item.shard.series)]
    return [(np.array(shard.image), np.array(shard.label)) for shard in opened]


@pytest.mark.parametrize("scheme", [PELVIS, BONE_SCHEME], ids=["pelvis", "bone"])
def test_its_shard_is_that_of_the_same_mask_as_nifti(workspace: Workspace, tmp_path: Path, scheme: LabelScheme) -> None:
    for number in range(3):
        files = ct(tmp_path / "rs" / f"case{number}", patient=f"P{number}", identity="x" * (number + 1))
        shutil.copytree(tmp_path / "rs" / f"case{number}", tmp_path / "nifti" / f"case{number}")
        rtstruct(tmp_path / "rs" / f"case{number}" / "rs.dcm", regions(), files)
        for name in BOXES:
            mask = (truth(name) > 0).astype(np.uint8)
            write_volume(tmp_path / "nifti" / f"case{number}" / f"{name.replace(' ', '_')}.nii.gz", mask, place(SHAPE))
    one, other = shards(workspace, tmp_path / "rs", scheme), shards(workspace, tmp_path / "nifti", scheme)
    assert len(one) == 3
    for (image, label), (same_image, same_label) in zip(one, other, strict=True):
        np.testing.assert_array_equal(image, same_image)
        np.testing.assert_array_equal(label, same_label)
        assert set(np.unique(label)) == set(range(scheme.size))
