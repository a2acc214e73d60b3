"""Slices that are lost at an end of a series leave no gap; what the files say of their number tells of them."""

from pathlib import Path

import pydicom
import pytest

from boneseg.ingest.local import local_series
from tests.ct_files import dicom, place


def write(folder: Path, count: int = 8, first: int = 1, **tags: object) -> list[Path]:
    paths = dicom(folder, seed=count, uid=folder.name, geometry=place((count, 24, 24)))
    for index, path in enumerate(paths):
        data = pydicom.dcmread(path)
        data.InstanceNumber = first + index
        for name, value in tags.items():
            setattr(data, name, value)
        data.save_as(path)
    return paths


def said(folder: Path) -> list[str]:
    rows, problems = local_series(folder)
    assert rows
    assert not any(problem.fatal for problem in problems)
    return [problem.reason for problem in problems]


@pytest.mark.parametrize("keyword", ["ImagesInAcquisition", "NumberOfSlices"])
@pytest.mark.parametrize("lost", [slice(0, 1), slice(6, 8)])
def test_a_slice_lost_at_an_end_is_told_by_what_the_files_say(tmp_path: Path, keyword: str, lost: slice) -> None:
    paths = write(tmp_path / "ct", **{keyword: 8})
    assert said(tmp_path) == []
    for path in paths[lost]:
        path.unlink()
    (reason,) = said(tmp_path)
    assert f"its files speak of 8 images (ImagesInAcquisition or NumberOfSlices), {8 - len(paths[lost])} are" in reason


@pytest.mark.parametrize(("first", "told"), [(1, False), (0, False), (2, True), (9, True), (101, False)])
def test_numbers_that_begin_late_tell_of_lost_slices(tmp_path: Path, first: int, told: bool) -> None:
    write(tmp_path / "ct", first=first)
    assert [f"InstanceNumbers begin at {first}" in reason for reason in said(tmp_path)] == [True] * told


def test_copies_do_not_stand_for_lost_slices(tmp_path: Path) -> None:
    paths = write(tmp_path / "ct", ImagesInAcquisition=8)
    (tmp_path / "ct" / "copy.dcm").write_bytes(paths[0].read_bytes())
    paths[7].unlink()
    assert any("speak of 8 images" in reason and "7 are here" in reason for reason in said(tmp_path))


def test_each_acquisition_has_its_own_number_of_images(tmp_path: Path) -> None:
    paths = write(tmp_path / "ct", ImagesInAcquisition=4)
    for path in paths[4:]:
        data = pydicom.dcmread(path)
        data.AcquisitionNumber = 2
        data.save_as(path)
    assert said(tmp_path) == []
    paths[7].unlink()
    assert "speak of 8 images" in said(tmp_path)[0]


def test_images_of_one_acquisition_may_be_in_two_series(tmp_path: Path) -> None:
    write(tmp_path / "a", ImagesInAcquisition=13, StudyInstanceUID="1.2.3")
    write(tmp_path / "b", 5, ImagesInAcquisition=13, StudyInstanceUID="1.2.3", SliceThickness="5")
    for path in (tmp_path / "b").iterdir():
        data = pydicom.dcmread(path)
        data.PixelSpacing = [2, 2]
        data.save_as(path)
    assert said(tmp_path) == []


@pytest.mark.parametrize("odd", ["", "0", "-3", "1e9", "x"])
def test_a_number_that_says_nothing_is_passed_over(tmp_path: Path, odd: str) -> None:
    for path in write(tmp_path / "ct"):
        data = pydicom.dcmread(path)
        tag = pydicom.tag.Tag("ImagesInAcquisition")
        value = odd.encode() + b" " * (len(odd) % 2)
        data._dict[tag] = pydicom.dataelem.RawDataElement(tag, "IS", len(value), value, 0, False, True)
        data.save_as(path)
    assert said(tmp_path) == []
