"""Slope, intercept and lookup tables: from stored values to HU, or refused by name."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from boneseg.dicom.series import read_series
from boneseg.errors import SeriesError
from boneseg.ingest.local import local_series
from tests.dicom.pixel_files import body, refusal, slices, store


@pytest.mark.parametrize(
    ("keyword", "text", "cause"),
    [
        ("RescaleSlope", "nan", "RescaleSlope is no finite number"),
        ("RescaleSlope", "inf", "RescaleSlope is no finite number"),
        ("RescaleSlope", "0", "RescaleSlope of 0"),
        ("RescaleSlope", "-1", "RescaleSlope of -1"),
        ("RescaleSlope", "1e30", "RescaleSlope of 1e"),
        ("RescaleSlope", "1e-30", "RescaleSlope of 1e-30"),
        ("RescaleSlope", "one", "RescaleSlope"),
        ("RescaleSlope", "1\\2", "RescaleSlope"),
        ("RescaleIntercept", "nan", "RescaleIntercept is no finite number"),
        ("RescaleIntercept", "-inf", "RescaleIntercept is no finite number"),
        ("RescaleIntercept", "1e30", "RescaleIntercept of 1e"),
        ("NumberOfFrames", "many", "NumberOfFrames"),
        ("NumberOfFrames", "-3", "NumberOfFrames of -3"),
        ("NumberOfFrames", "100000", "bytes of pixels"),
    ],
)
def test_numbers_that_no_ct_has_are_refused_by_name(tmp_path: Path, keyword: str, text: str, cause: str) -> None:
    path = slices(tmp_path)[0]
    raw_value(path, keyword, text)
    assert cause in refusal(path)
    _, problems = local_series(tmp_path)
    assert any(cause in problem.reason and problem.source == path.name for problem in problems)


def raw_value(path: Path, keyword: str, text: str) -> None:
    """Write a text as it is; pydicom would refuse it."""
    data = pydicom.dcmread(path)
    tag, value = pydicom.tag.Tag(keyword), (text + " " * (len(text) % 2)).encode()
    vr = pydicom.datadict.dictionary_VR(tag)
    data._dict[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(value), value, 0, False, True)
    data.save_as(path)


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_half_a_rescale_is_refused(tmp_path: Path, keyword: str) -> None:
    assert f"no {keyword}" in refusal(slices(tmp_path, lambda data: delattr(data, keyword))[0])


def test_one_slice_without_rescale_among_others_is_refused_by_name(tmp_path: Path) -> None:
    paths = slices(tmp_path)
    data = pydicom.dcmread(paths[1])
    del data.RescaleSlope, data.RescaleIntercept
    data.save_as(paths[1])
    with pytest.raises(SeriesError, match=r"slice-0002\.dcm: 1 of 3 slices have no RescaleSlope"):
        read_series(paths)


def test_each_slice_is_rescaled_by_its_own_numbers(tmp_path: Path) -> None:
    paths = slices(tmp_path)
    data = pydicom.dcmread(paths[1])
    store(data, 2 * (body()[1].astype(int) + 2047))
    data.RescaleSlope, data.RescaleIntercept = 0.5, -2047
    data.save_as(paths[1])
    assert np.array_equal(read_series(paths)[0], body())


@pytest.mark.parametrize("unit", ["MGML", "Z_EFF", "ED", "OD"])
def test_maps_of_other_quantities_are_not_taken_for_hu(tmp_path: Path, unit: str) -> None:
    assert f"{unit}, not HU" in refusal(slices(tmp_path, lambda data: setattr(data, "RescaleType", unit))[0])


def lut(data: pydicom.Dataset, **tags: object) -> None:
    table = pydicom.Dataset()
    for name, value in tags.items():
        table.add_new(name, "US", value)
    data.ModalityLUTSequence = [table]


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"LUTDescriptor": [256, 0, 16]},
        {"LUTData": [1] * 256},
        {"LUTDescriptor": [256, 0], "LUTData": [1] * 256},
        {"LUTDescriptor": [256, 0, 99], "LUTData": [1] * 256},
        {"LUTDescriptor": [256, 0, 16], "LUTData": [1] * 9},
    ],
)
def test_an_incomplete_lookup_table_is_named(tmp_path: Path, tags: dict[str, object]) -> None:
    assert "Modality LUT" in refusal(slices(tmp_path, lambda data: lut(data, **tags))[0])
