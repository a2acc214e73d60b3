"""Passes of one series UID: told apart by what the files state, or named; never mixed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from boneseg.dicom.marks import read_marks
from boneseg.ingest.local import local_series
from boneseg.nifti import write_volume
from boneseg.storage.catalogue import Problem, SeriesRow
from tests.ct_files import body, dicom, nifti_label, place

Change = Callable[[Dataset, int], None]


def write_pass(
    folder: Path, seed: int, change: Change, name: str, move: float = 0.0, keep: slice = slice(None)
) -> None:
    """Write one pass of a series that others share UID and folder with."""
    for index, path in enumerate(dicom(folder / f"new{seed}", seed=seed, uid="same")[keep]):
        data = pydicom.dcmread(path)
        data.ImagePositionPatient[2] = float(data.ImagePositionPatient[2]) + move
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{seed}.{index}"
        change(data, index)
        data.save_as(folder / f"{name}{index:02d}.dcm")
        path.unlink()
    for path in (folder / f"new{seed}").iterdir():
        path.unlink()
    (folder / f"new{seed}").rmdir()


def tag(**values: object) -> Change:
    def change(data: Dataset, index: int) -> None:
        for name, value in values.items():
            setattr(data, name, value(index) if callable(value) else value)

    return change


def pixels_of(row: SeriesRow) -> set[str]:
    return {Path(item.key).name[:1] for item in row.objects}


def fatal(problems: tuple[Problem, ...]) -> list[Problem]:
    return [problem for problem in problems if problem.fatal]


TOLD = {
    "acquisition": (tag(AcquisitionNumber=1), tag(AcquisitionNumber=2)),
    "acquisition time": (tag(AcquisitionTime="101010"), tag(AcquisitionTime="10:11:10.5")),
    "acquisition date and time": (
        tag(AcquisitionDateTime="20200101101010.00"),
        tag(AcquisitionDateTime="20200101101110.00"),
    ),
    "temporal position": (tag(TemporalPositionIdentifier=1), tag(TemporalPositionIdentifier=2)),
    "kernel": (tag(ConvolutionKernel="B30f"), tag(ConvolutionKernel="B60f")),
    "image type": (
        tag(ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "M"]),
        tag(ImageType=["DERIVED", "PRIMARY", "AXIAL"]),
    ),
    "scan options": (tag(ScanOptions="HELICAL"), tag(ScanOptions="AXIAL")),
    "tube voltage": (tag(KVP=80), tag(KVP=140)),
    "cardiac phase": (tag(NominalPercentageOfCardiacPhase=30), tag(NominalPercentageOfCardiacPhase=70)),
    "trigger": (tag(TriggerTime=0), tag(TriggerTime=300)),
    "echo": (tag(EchoNumbers=1), tag(EchoNumbers=2)),
    "thickness": (tag(SliceThickness=3), tag(SliceThickness=5)),
    "only one is marked": (tag(), tag(ContrastBolusAgent="iodine")),
    "a number that is the same, and a time that is not": (
        tag(AcquisitionNumber=1, AcquisitionTime="101010"),
        tag(AcquisitionNumber=1, AcquisitionTime="101110"),
    ),
    "a time for each slice, one pass after the other": (
        tag(AcquisitionDate="20200101", AcquisitionTime=lambda index: f"2359{50 + index}"),
        tag(AcquisitionDate="20200102", AcquisitionTime=lambda index: f"0000{index:02d}"),
    ),
    "content time for each slice": (
        tag(ContentTime=lambda index: f"1010{index:02d}"),
        tag(ContentTime=lambda index: f"1020{index:02d}"),
    ),
    "numbered through": (tag(InstanceNumber=lambda index: index + 1), tag(InstanceNumber=lambda index: index + 101)),
    "numbered through, back on the second way": (
        tag(InstanceNumber=lambda index: index + 1),
        tag(InstanceNumber=lambda index: 107 - index),
    ),
    "an acquisition number for each step of the table": (
        tag(AcquisitionNumber=lambda index: 1 + index // 2),
        tag(AcquisitionNumber=lambda index: 11 + index // 2),
    ),
}


@pytest.mark.parametrize(("first", "second"), TOLD.values(), ids=TOLD)
def test_two_passes_at_the_same_positions_are_two_series(tmp_path: Path, first: Change, second: Change) -> None:
    write_pass(tmp_path, 1, first, "a")
    write_pass(tmp_path, 2, second, "b")
    rows, problems = local_series(tmp_path)
    assert sorted(len(row.objects) for row in rows) == [6, 6]
    assert sorted(map(sorted, map(pixels_of, rows))) == [["a"], ["b"]]
    assert not fatal(problems)
    assert "2 passes, told apart by" in problems[0].reason


def test_passes_that_differ_in_two_ways_are_four_series(tmp_path: Path) -> None:
    for number, name in enumerate("abcd"):
        change = tag(AcquisitionNumber=1 + number // 2, ConvolutionKernel=("soft", "sharp")[number % 2])
        write_pass(tmp_path, number, change, name)
    rows, problems = local_series(tmp_path)
    assert sorted(map(sorted, map(pixels_of, rows))) == [["a"], ["b"], ["c"], ["d"]]
    assert not fatal(problems)


def test_passes_of_different_reach_are_series_of_their_own(tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        write_pass(tmp_path, number, tag(AcquisitionNumber=number), name, move=12.0 * number)
    rows, problems = local_series(tmp_path)
    assert sorted(map(sorted, map(pixels_of, rows))) == [["a"], ["b"], ["c"]]
    assert not fatal(problems)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (tag(AcquisitionNumber=1), tag(AcquisitionNumber=2)),
        (tag(ConvolutionKernel="B30f"), tag(ConvolutionKernel="B60f")),
        (
            tag(AcquisitionTime=lambda index: f"1010{index:02d}"),
            tag(AcquisitionTime=lambda index: f"1020{index:02d}"),
        ),
    ],
    ids=["acquisition", "kernel", "times"],
)
def test_passes_that_lie_between_each_other_are_not_mixed(tmp_path: Path, first: Change, second: Change) -> None:
    write_pass(tmp_path, 1, first, "a")
    write_pass(tmp_path, 2, second, "b", move=1.5)
    rows, _ = local_series(tmp_path)
    assert sorted(map(sorted, map(pixels_of, rows))) == [["a"], ["b"]]
    assert [row.spacing[0] for row in rows] == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize(
    "change",
    [
        tag(AcquisitionNumber=lambda index: index),
        tag(AcquisitionNumber=lambda index: index // 2),
        tag(AcquisitionTime=lambda index: f"1010{index:02d}", ContentTime=lambda index: f"1010{60 - index}"),
        tag(InstanceNumber=lambda index: (index * 5) % 7),
        tag(SliceThickness=lambda index: 3 if index < 3 else 5),
        tag(TriggerTime=lambda index: index * 10),
    ],
    ids=["numbered", "steps", "times", "numbers in disorder", "thickness", "trigger"],
)
def test_one_pass_stays_whole_whatever_differs_from_slice_to_slice(tmp_path: Path, change: Change) -> None:
    write_pass(tmp_path, 1, change, "a")
    (row,), problems = local_series(tmp_path)
    assert len(row.objects) == 6
    assert not problems


def test_a_repeated_slice_that_nothing_tells_apart_is_a_row_naming_both_files(tmp_path: Path) -> None:
    write_pass(tmp_path, 1, tag(), "a")
    write_pass(tmp_path, 2, tag(), "again", keep=slice(2, 3))
    rows, problems = local_series(tmp_path)
    assert rows == ()
    (problem,) = problems
    assert problem.fatal
    assert "a02.dcm and again00.dcm lie at the same position" in problem.reason.replace("again00.dcm and a02", "a02")


def test_a_slice_taken_again_in_another_acquisition_leaves_the_series_whole(tmp_path: Path) -> None:
    write_pass(tmp_path, 1, tag(AcquisitionNumber=1), "a")
    write_pass(tmp_path, 2, tag(AcquisitionNumber=2), "again", keep=slice(2, 3))
    nifti_label(tmp_path / "label.nii.gz")
    (row,), problems = local_series(tmp_path)
    assert (len(row.objects), row.label is not None) == (6, True)
    assert [(problem.source, problem.fatal) for problem in problems] == [("again00.dcm", False)]


def test_slices_of_air_are_kept_in_both_passes(tmp_path: Path) -> None:
    """Where passes have an equal slice, it is no copy: each pass needs its own."""
    for seed, name in ((1, "a"), (2, "b")):
        write_pass(tmp_path, seed, tag(AcquisitionNumber=seed), name)
        path = tmp_path / f"{name}05.dcm"
        data = pydicom.dcmread(path)
        data.PixelData = np.zeros((24, 24), np.uint16).tobytes()
        data.save_as(path)
    rows, problems = local_series(tmp_path)
    assert [len(row.objects) for row in rows] == [6, 6]
    assert not fatal(problems)


def test_one_label_for_two_passes_goes_to_the_first_and_says_so(tmp_path: Path) -> None:
    write_pass(tmp_path / "ct", 1, tag(AcquisitionNumber=2), "late")
    write_pass(tmp_path / "ct", 2, tag(AcquisitionNumber=1), "native")
    nifti_label(tmp_path / "label.nii.gz")
    rows, problems = local_series(tmp_path)
    (labelled,) = [row for row in rows if row.label]
    assert pixels_of(labelled) == {"n"}
    assert [problem.source for problem in problems if "passes of one series" in problem.reason] == ["label.nii.gz"]


def test_kernels_have_no_first_pass_so_their_label_is_not_guessed(tmp_path: Path) -> None:
    write_pass(tmp_path / "ct", 1, tag(ConvolutionKernel="B30f", InstanceNumber=None), "a")
    write_pass(tmp_path / "ct", 2, tag(ConvolutionKernel="B60f", InstanceNumber=None), "b")
    nifti_label(tmp_path / "label.nii.gz")
    rows, problems = local_series(tmp_path)
    assert [row.label for row in rows] == [None, None]
    assert [problem.source for problem in fatal(problems)] == ["label.nii.gz"]


@pytest.mark.parametrize("copied", [slice(0, 1), slice(1, 4), slice(None)], ids=["one", "several", "all"])
@pytest.mark.parametrize("folder", ["0 earlier", "zz later", "case/dicom/0", "0/deep/er"])
@pytest.mark.parametrize("others", [False, True], ids=["alone", "among others"])
def test_copies_of_slices_take_no_label_away(tmp_path: Path, copied: slice, folder: str, others: bool) -> None:
    paths = dicom(tmp_path / "case" / "dicom", seed=1)
    nifti_label(tmp_path / "case" / "label.nii.gz")
    for number in (3, 4) if others else ():
        dicom(tmp_path / f"other{number}" / "dicom", seed=number)
        nifti_label(tmp_path / f"other{number}" / "label.nii.gz", seed=number)
    before, _ = local_series(tmp_path)
    (tmp_path / folder).mkdir(parents=True)
    for path in paths[copied]:
        (tmp_path / folder / path.name).write_bytes(path.read_bytes())
    rows, problems = local_series(tmp_path)
    assert [(row.series, row.source, row.label) for row in rows] == [
        (row.series, row.source, row.label) for row in before
    ]
    assert [problem.source for problem in problems] == [folder]
    assert not fatal(problems)


@pytest.mark.parametrize(
    ("tags", "seconds"),
    [
        ({"AcquisitionDate": "00010101", "AcquisitionTime": "000010"}, 86410.0),
        ({"AcquisitionDate": "0001.01.01", "AcquisitionTime": "00:00:10.5"}, 86410.5),
        ({"AcquisitionTime": "0102"}, 3720.0),
        ({"AcquisitionTime": "noon"}, None),
        ({"AcquisitionDate": "yesterday", "AcquisitionTime": "000001"}, 1.0),
        ({"AcquisitionDateTime": "00010101000020.000000+0100"}, 86420.0),
    ],
)
def test_times_are_read_as_they_stand_in_real_files(
    tmp_path: Path, tags: dict[str, str], seconds: float | None
) -> None:
    path = dicom(tmp_path)[0]
    data = pydicom.dcmread(path)
    for name in ("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "StudyDate"):
        if name in data:
            delattr(data, name)
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path)
    assert read_marks(path).orders[1] == seconds


def test_no_time_and_no_text_of_a_header_is_kept(tmp_path: Path) -> None:
    from tests.ingest.test_recognise import facts_of

    write_pass(tmp_path, 1, tag(AcquisitionDate="19991231", AcquisitionTime="235911", ProtocolName="MUSTERMANN"), "a")
    text = facts_of(tmp_path / "a00.dcm").model_dump_json()
    day = np.datetime64("1999-12-31").astype("datetime64[s]").astype(int)
    assert "MUSTERMANN" not in text
    assert "1999" not in text
    assert "235911" not in text
    assert str(day)[:5] not in text
    facts = [facts_of(path) for path in sorted(tmp_path.glob("*.dcm"))]
    assert len({item.orders[1] for item in facts}) == 1


def test_label_of_a_whole_and_of_a_split_series_is_read(tmp_path: Path) -> None:
    write_pass(tmp_path, 1, tag(AcquisitionNumber=1), "a")
    write_volume(tmp_path / "label.nii.gz", body(1)[1], place())
    (row,), problems = local_series(tmp_path)
    assert row.label is not None
    assert not problems
