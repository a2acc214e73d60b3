"""RTSTRUCT as the label of a series: found by what it references, read by the names of its regions."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.segmentation_write import write_segmentation
from boneseg.geometry import Geometry
from boneseg.ingest.label_file import local_file
from boneseg.ingest.local import local_series
from boneseg.ingest.read import LabelledSeries, read_labelled
from boneseg.ingest.understood import labels_of, understood
from boneseg.nifti import write_volume
from boneseg.scheme import BONE_SCHEME, BUILT_IN, LabelScheme
from boneseg.settings.schema import PrepareSettings
from tests.ct_files import place
from tests.dicom.contour_files import Points, contours_of, halfway, rtstruct, through_centres
from tests.ingest.test_by_bone import BOXES, SHAPE, meanings, truth

PELVIS = BUILT_IN["pelvis"]


def ct(folder: Path, patient: str = "P1", geometry: Geometry | None = None, identity: str = "one") -> list[Path]:
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[:, 4:28, 4:28] = 40
    hu[truth() > 0] = 700
    noise = np.random.default_rng(len(identity)).integers(-20, 20, SHAPE)
    geometry = geometry or place(SHAPE)
    return write_ct_series(folder, (hu + noise).astype(np.int16), geometry, identity=identity, patient_id=patient)


def regions(trace=halfway, geometry: Geometry | None = None) -> dict[str, list[Points]]:  # noqa: ANN001
    return {name: contours_of(truth(name) > 0, geometry or place(SHAPE), trace) for name in BOXES}


def read(folder: Path, scheme: LabelScheme = PELVIS) -> LabelledSeries:
    (row,), problems = local_series(folder, scheme=scheme)
    assert row.label is not None, problems
    return read_labelled(local_file, row, PrepareSettings(), scheme)


def bones(series: LabelledSeries) -> NDArray[np.uint8]:
    return np.where(series.label > 1, series.label, 0)


@pytest.mark.parametrize("trace", [halfway, through_centres])
@pytest.mark.parametrize("scheme", [PELVIS, BONE_SCHEME])
def test_it_gives_the_label_that_the_same_mask_gives_as_nifti(tmp_path: Path, trace, scheme: LabelScheme) -> None:  # noqa: ANN001
    files = ct(tmp_path / "a")
    rtstruct(tmp_path / "a" / "rs.dcm", regions(trace), files)
    shutil.copytree(tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns("rs.dcm"))
    for name in BOXES:
        mask = (truth(name) > 0).astype(np.uint8)
        write_volume(tmp_path / "b" / f"{name.replace(' ', '_')}.nii.gz", mask, place(SHAPE))
    one, other = read(tmp_path / "a", scheme), read(tmp_path / "b", scheme)
    np.testing.assert_array_equal(one.label, other.label)
    np.testing.assert_array_equal(one.hu, other.hu)
    assert one.labelling == other.labelling


def test_targets_of_a_plan_are_left_out_and_the_body_is_the_outline(tmp_path: Path) -> None:
    files = ct(tmp_path)
    body = np.zeros(SHAPE, dtype=bool)
    body[:, 3:29, 3:29] = True
    drawn = {
        "BODY": contours_of(body, place(SHAPE)),
        "PTV 45": contours_of(truth("sacrum") > 0, place(SHAPE)),
        "bladder": contours_of(truth("hip left") > 0, place(SHAPE)),
        **regions(),
    }
    rtstruct(tmp_path / "rs.dcm", drawn, files, kinds={"BODY": "EXTERNAL", "PTV 45": "PTV"})
    for scheme in (PELVIS, BONE_SCHEME):
        series = read(tmp_path, scheme)
        assert not series.outline_computed
        np.testing.assert_array_equal(series.label >= 1, body)
        np.testing.assert_array_equal(series.label > 1, truth() > 0)
        assert any("2 regions are left out" in warning for warning in series.warnings), series.warnings


def test_where_bones_overlap_the_smaller_one_counts_and_it_is_counted(tmp_path: Path) -> None:
    files = ct(tmp_path)
    wide = truth("sacrum", "spine") > 0
    rtstruct(tmp_path / "rs.dcm", {**regions(), "sacrum": contours_of(wide, place(SHAPE))}, files)
    series = read(tmp_path)
    np.testing.assert_array_equal(bones(series), truth())
    both = int((truth() == 7).sum())
    assert any(f"{both} voxels are marked as two bones" in warning for warning in series.warnings)


def test_a_region_without_contours_says_nothing(tmp_path: Path) -> None:
    """Planning systems list regions of a template that nobody has drawn."""
    files = ct(tmp_path)
    some = {name: contours for name, contours in regions().items() if not name.startswith("femur")}
    for drawn in (some, {**some, "femur left": [], "femur right": []}):
        rtstruct(tmp_path / "rs.dcm", drawn, files)
        assert any("says nothing of femur left, femur right" in warning for warning in read(tmp_path).warnings)


def test_it_goes_to_the_series_that_it_references_wherever_it_lies(tmp_path: Path) -> None:
    one = ct(tmp_path / "one", identity="one")
    ct(tmp_path / "two", identity="two-two")
    rtstruct(tmp_path / "two" / "rs.dcm", regions(), one)
    rows, problems = local_series(tmp_path, scheme=PELVIS)
    assert {row.source: row.label is not None for row in rows} == {"one": True, "two": False}, problems


def test_it_never_goes_to_another_patient(tmp_path: Path) -> None:
    one = ct(tmp_path / "elsewhere", patient="P2", identity="other")
    rtstruct(tmp_path / "case" / "rs.dcm", regions(), one)
    shutil.rmtree(tmp_path / "elsewhere")
    ct(tmp_path / "case", patient="P1")
    (row,), problems = local_series(tmp_path, scheme=PELVIS)
    assert row.label is None
    assert any("no series beside it is the one that it says it was drawn on" in item.reason for item in problems)


def test_contours_beyond_the_series_are_of_no_series_here(tmp_path: Path) -> None:
    files = ct(tmp_path)
    far = place(SHAPE, (0, 0, 500))
    rtstruct(tmp_path / "rs.dcm", regions(geometry=far), files)
    (row,), problems = local_series(tmp_path, scheme=PELVIS)
    assert row.label is None
    assert any("reach beyond the series" in problem.reason for problem in problems), problems


def test_beside_a_dicom_seg_an_rtstruct_without_bones_is_that_of_a_plan(tmp_path: Path) -> None:
    files = ct(tmp_path)
    write_volume(tmp_path / "bones.nii.gz", np.where(truth() > 1, truth() - 1, 0).astype(np.uint8), place(SHAPE))
    rtstruct(tmp_path / "rs.dcm", {"PTV": contours_of(truth("sacrum") > 0, place(SHAPE))}, files)
    np.testing.assert_array_equal(bones(read(tmp_path)), truth())


def test_alone_without_a_bone_it_is_refused_in_a_sentence(tmp_path: Path) -> None:
    files = ct(tmp_path)
    rtstruct(tmp_path / "rs.dcm", {"bladder": contours_of(truth("sacrum") > 0, place(SHAPE))}, files)
    (row,), problems = local_series(tmp_path, scheme=PELVIS)
    assert row.label is None
    assert any("bladder" in problem.reason and "add the bones" in problem.reason for problem in problems), problems


def test_only_points_mark_nothing(tmp_path: Path) -> None:
    ct(tmp_path)
    rtstruct(tmp_path / "rs.dcm", {"isocentre": []})
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert any("without closed contours" in problem.reason for problem in problems)


def test_what_a_scheme_understands_of_it(tmp_path: Path) -> None:
    files = ct(tmp_path)
    rtstruct(tmp_path / "rs.dcm", {**regions(), "PTV": contours_of(truth("sacrum") > 0, place(SHAPE))}, files)
    found = understood(labels_of(tmp_path, PELVIS), PELVIS)
    assert found.whole == 1
    assert {"hip left", "spine"} <= found.classes.keys()


def test_on_a_volume_file_it_is_found_by_its_place(tmp_path: Path) -> None:
    """A CT converted to NIfTI lost its UIDs; the contours lie where its voxels lie."""
    write_volume(tmp_path / "ct.nii.gz", np.full(SHAPE, -1000, dtype=np.int16), place(SHAPE))
    files = ct(tmp_path / "dicom")
    rtstruct(tmp_path / "rs.dcm", regions(), files)
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[:, 4:28, 4:28] = 40
    hu[truth() > 0] = 700
    write_volume(tmp_path / "ct.nii.gz", hu, place(SHAPE))
    shutil.rmtree(tmp_path / "dicom")
    series = read(tmp_path)
    np.testing.assert_array_equal(bones(series), truth())
    assert set(meanings(series)[truth() == 2]) == {frozenset({"hip left"})}


def test_a_seg_and_an_rtstruct_with_the_same_bones_are_two_labels(tmp_path: Path) -> None:
    """Which of them is right nobody says, so neither is used."""
    files = ct(tmp_path)
    rtstruct(tmp_path / "rs.dcm", regions(), files)
    write_segmentation(tmp_path / "seg.dcm", truth(), place(SHAPE), files, scheme=PELVIS)
    (row,), problems = local_series(tmp_path, scheme=PELVIS)
    assert row.label is None
    assert any("is there more than once; keep one label a series" in problem.reason for problem in problems), problems
