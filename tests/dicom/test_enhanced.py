"""Enhanced CT: one file that holds a volume is read as the slices that it was made of."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import JPEGLSLossless, RLELossless

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.segmentation import read_segmentation
from boneseg.dicom.segmentation_write import write_segmentation
from boneseg.dicom.series import read_series
from boneseg.dicom.sop_classes import CT_CLASSES, CT_IMAGE
from boneseg.errors import SeriesError
from boneseg.geometry import Geometry
from boneseg.ingest.local import local_series
from boneseg.ingest.read import read_image, read_labelled
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.catalogue import FileKind
from tests.ct_files import body, nifti_label, place
from tests.fuzz.dicom_files import enhanced, item

SHAPE = (6, 24, 24)
Change = Callable[[pydicom.Dataset], object]


def made(folder: Path, change: Change = lambda _: None) -> tuple[Path, NDArray[np.int16], Geometry]:
    """Write slices and one Enhanced CT file of them; returns the file and what the slices hold."""
    hu = body(3, SHAPE)[0]
    slices = write_ct_series(folder / "slices", hu, place(SHAPE), identity="a")
    data = enhanced(slices)
    change(data)
    path = folder / "whole" / "volume.dcm"
    path.parent.mkdir()
    data.save_as(path)
    return path, hu, place(SHAPE)


def test_a_volume_in_one_file_is_the_series_that_its_slices_are(tmp_path: Path) -> None:
    path, hu, geometry = made(tmp_path)
    read, own, warnings = read_series([path])
    assert np.array_equal(read, hu)
    assert own == geometry
    assert warnings == []
    of_slices, of_file = (local_series(tmp_path / name)[0][0] for name in ("slices", "whole"))
    assert of_file.series == of_slices.series
    assert (of_file.patient, of_file.study) == (of_slices.patient, of_slices.study)
    assert of_file.kind == FileKind.DICOM


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_frames_are_read_each_in_its_place(tmp_path: Path, syntax: str) -> None:
    path, hu, _ = made(tmp_path, lambda data: data.compress(syntax, generate_instance_uid=False))
    assert np.array_equal(read_series([path])[0], hu)


def test_frames_are_sorted_by_position_and_rescaled_each_by_its_own_numbers(tmp_path: Path) -> None:
    def shuffle(data: pydicom.Dataset) -> None:
        frames, size = data.PerFrameFunctionalGroupsSequence, 2 * SHAPE[1] * SHAPE[2]
        del data.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
        for index, frame in enumerate(frames):
            frame.PixelValueTransformationSequence = [item(RescaleIntercept=-1024 + 10 * index, RescaleSlope=1)]
        order = [3, 0, 5, 1, 4, 2]
        data.PerFrameFunctionalGroupsSequence = [frames[index] for index in order]
        data.PixelData = b"".join(data.PixelData[index * size : (index + 1) * size] for index in order)

    path, hu, geometry = made(tmp_path, shuffle)
    read, own, _ = read_series([path])
    assert np.array_equal(read, hu + 10 * np.arange(SHAPE[0], dtype=np.int16)[:, None, None])
    assert own == geometry


def test_legacy_converted_files_are_read_too(tmp_path: Path) -> None:
    path, hu, _ = made(tmp_path, lambda data: setattr(data, "SOPClassUID", CT_CLASSES[2]))
    assert np.array_equal(read_series([path])[0], hu)


def test_its_label_is_found_and_both_are_read_for_training(tmp_path: Path) -> None:
    path, hu, _ = made(tmp_path)
    nifti_label(path.parent / "label.nii.gz", place(SHAPE))
    rows, problems = local_series(path.parent)
    assert problems == ()
    series = read_labelled(lambda item: Path(item.key), rows[0], PrepareSettings())
    assert np.array_equal(series.hu, hu)
    assert series.label.any()
    assert np.array_equal(read_image(lambda item: Path(item.key), rows[0], PrepareSettings())[0], hu)


def test_a_mask_of_it_refers_to_its_frames(tmp_path: Path) -> None:
    path, hu, geometry = made(tmp_path)
    mask = (hu > 300).astype(np.uint8) * 2
    notes = write_segmentation(tmp_path / "mask.dcm", mask, geometry, [path])
    assert notes == []
    source, written = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "mask.dcm")
    (referenced,) = written.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert referenced.ReferencedSOPClassUID == CT_CLASSES[1]
    assert referenced.ReferencedSOPInstanceUID == source.SOPInstanceUID
    for frame in written.PerFrameFunctionalGroupsSequence:
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        own = source.PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1]
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert place == own.PlanePositionSequence[0].ImagePositionPatient
    back, where, _ = read_segmentation(tmp_path / "mask.dcm")
    assert np.array_equal(back, mask)
    assert where == geometry


def two_stacks(data: pydicom.Dataset) -> None:
    for index, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence[0].StackID = str(1 + index % 2)


def one_place_too_few(data: pydicom.Dataset) -> None:
    del data.PerFrameFunctionalGroupsSequence[-1]


def no_places(data: pydicom.Dataset) -> None:
    del data.PerFrameFunctionalGroupsSequence, data.SharedFunctionalGroupsSequence


def a_part(data: pydicom.Dataset) -> None:
    data.InConcatenationTotalNumber = 3


def a_doubled_frame(data: pydicom.Dataset) -> None:
    frames = data.PerFrameFunctionalGroupsSequence
    frames[1].PlanePositionSequence = frames[0].PlanePositionSequence


def another_direction(data: pydicom.Dataset) -> None:
    frame = data.PerFrameFunctionalGroupsSequence[2]
    frame.PlaneOrientationSequence = [item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])]


def one_frame_without_rescale(data: pydicom.Dataset) -> None:
    shared = data.SharedFunctionalGroupsSequence[0]
    for frame in data.PerFrameFunctionalGroupsSequence[1:]:
        frame.PixelValueTransformationSequence = shared.PixelValueTransformationSequence
    del shared.PixelValueTransformationSequence


def a_map_of_iodine(data: pydicom.Dataset) -> None:
    data.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].RescaleType = "MGML"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (two_stacks, "2 volumes .* in one file"),
        (one_place_too_few, "6 frames and says of 5"),
        (no_places, "6 frames without their places"),
        (a_part, "3 files of a concatenation"),
        (a_doubled_frame, "frame 1 and .* frame 2 lie at the same position"),
        (another_direction, "mixed orientation"),
        (one_frame_without_rescale, "frame 1: .*no RescaleSlope"),
        (a_map_of_iodine, "MGML, not HU"),
        (lambda data: setattr(data, "NumberOfFrames", 5), "bytes of pixels"),
        (lambda data: setattr(data, "NumberOfFrames", 7), "bytes of pixels"),
        (lambda data: setattr(data, "SOPClassUID", CT_IMAGE) or no_places(data), "without their places"),
    ],
)
def test_what_is_not_one_volume_is_refused_with_its_cause(tmp_path: Path, change: Change, cause: str) -> None:
    path, _, _ = made(tmp_path, change)
    with pytest.raises(SeriesError, match=cause):
        read_series([path])
    rows, problems = local_series(path.parent)
    assert rows == ()
    assert any(re.search(cause, problem.reason) for problem in problems), problems


def test_multi_frame_objects_of_other_kinds_are_named(tmp_path: Path) -> None:
    path, _, _ = made(tmp_path, lambda data: data.update({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}))
    _, problems = local_series(path.parent)
    assert "secondary captures" in problems[0].reason


def test_single_frames_of_enhanced_ct_form_a_series(tmp_path: Path) -> None:
    path, hu, geometry = made(tmp_path)
    size, frames = 2 * SHAPE[1] * SHAPE[2], pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    for index in range(SHAPE[0]):
        data = pydicom.dcmread(path)
        data.PerFrameFunctionalGroupsSequence, data.NumberOfFrames = [frames[index]], 1
        data.PixelData = data.PixelData[index * size : (index + 1) * size]
        data.SOPInstanceUID = f"1.2.3.{index}"
        data.save_as(path.parent / f"one-{index}.dcm")
    path.unlink()
    read, own, _ = read_series(sorted(path.parent.iterdir()))
    assert np.array_equal(read, hu)
    assert own == geometry
    assert len(local_series(path.parent)[0]) == 1
