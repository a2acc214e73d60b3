"""A slice that one damaged tag takes out of its series is named, also at an end, where no gap tells of it."""

from pathlib import Path
from typing import Any

import pydicom
import pytest

from boneseg.errors import SeriesError
from boneseg.ingest.label_file import local_file
from boneseg.ingest.local import local_series
from boneseg.ingest.read import read_image
from boneseg.predict.find_series import look
from boneseg.settings.schema import PrepareSettings
from tests.ct_files import dicom

CHANGES: dict[str, tuple[str, Any]] = {
    "ImagePositionPatient": ("ImagePositionPatient", None),
    "half a position": ("ImagePositionPatient", [1.0, 2.0]),
    "ImageOrientationPatient": ("ImageOrientationPatient", None),
    "PixelSpacing": ("PixelSpacing", None),
    "PatientID": ("PatientID", "somebody"),
    "no PatientID": ("PatientID", ""),
    "SeriesInstanceUID": ("SeriesInstanceUID", "1.2.3"),
    "StudyInstanceUID": ("StudyInstanceUID", ""),
}


def change(path: Path, tag: str, value: Any) -> None:
    data = pydicom.dcmread(path)
    if value is None:
        delattr(data, tag)
    elif isinstance(value, list):
        data[tag].value = value
    else:
        setattr(data, tag, value)
    data.save_as(path)


@pytest.mark.parametrize("where", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("name", list(CHANGES))
def test_a_slice_that_lost_one_tag_is_named_and_counts_as_lost(tmp_path: Path, name: str, where: int) -> None:
    paths = dicom(tmp_path / "ct")
    change(paths[where], *CHANGES[name])
    (row,), problems = local_series(tmp_path)
    assert len(row.objects) == 5
    (problem,) = [problem for problem in problems if problem.source == f"ct/{paths[where].name}"]
    assert problem.fatal
    assert "belongs to series ct" in problem.reason
    assert CHANGES[name][0] in problem.reason
    assert len(look(tmp_path).lost) == 1


@pytest.mark.parametrize("same_uid", [True, False])
def test_a_scout_beside_a_series_costs_it_nothing(tmp_path: Path, same_uid: bool) -> None:
    paths = dicom(tmp_path / "ct")
    scout = pydicom.dcmread(paths[0])
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    if not same_uid:
        scout.SeriesInstanceUID = "1.2.3"
    scout.save_as(tmp_path / "ct" / "scout.dcm")
    found = look(tmp_path)
    assert (len(found.rows), found.lost) == (1, ())


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("RescaleSlope", 2),
        ("RescaleSlope", 99),
        ("RescaleIntercept", -924),
        ("RescaleIntercept", 1024),
        ("RescaleIntercept", -9024),
    ],
)
@pytest.mark.parametrize("where", [0, 2])
def test_one_slice_with_a_wrong_rescale_is_named(tmp_path: Path, tag: str, value: int, where: int) -> None:
    paths = dicom(tmp_path / "ct")
    change(paths[where], tag, value)
    (row,), _ = local_series(tmp_path)
    with pytest.raises(SeriesError, match=rf"{paths[where].name}: has a RescaleSlope of .* export the series again"):
        read_image(local_file, row, PrepareSettings())


def test_slices_that_are_stored_in_another_way_and_mean_the_same_are_read(tmp_path: Path) -> None:
    paths = dicom(tmp_path / "ct")
    (row,), _ = local_series(tmp_path)
    before = read_image(local_file, row, PrepareSettings())[0]
    data = pydicom.dcmread(paths[2])
    stored = data.pixel_array.astype("int32") * int(data.RescaleSlope) + int(data.RescaleIntercept) + 2000
    data.RescaleSlope, data.RescaleIntercept, data.PixelRepresentation = 1, -2000, 0
    data.PixelData = stored.astype("uint16").tobytes()
    data.BitsStored, data.HighBit = 16, 15
    data.save_as(paths[2])
    (row,), _ = local_series(tmp_path)
    assert (read_image(local_file, row, PrepareSettings())[0] == before).all()
