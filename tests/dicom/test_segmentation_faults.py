"""SEG files that say too little, contradict themselves, or claim to be huge: each is refused with its reason."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.segmentation import read_segmentation
from boneseg.dicom.segmentation_write import write_segmentation
from boneseg.errors import LabelError
from boneseg.geometry import axial, from_dicom
from boneseg.ingest.facts import Kind, inspect
from boneseg.storage.catalogue import ObjectRef
from tests.ct_files import body

SHAPE = (5, 16, 20)
FRAMES = "PerFrameFunctionalGroupsSequence"


def seg(folder: Path, change: Callable[[Any], object]) -> Path:
    """Write a SEG with two segments on five slices: ten frames, those of segment 1 first; then change it."""
    geometry = axial(SHAPE, (3.0, 0.9, 0.8))
    files = write_ct_series(folder / "ct", body(shape=SHAPE)[0], geometry, identity="a")
    write_segmentation(folder / "seg.dcm", body(shape=SHAPE)[1], geometry, files)
    data = pydicom.dcmread(folder / "seg.dcm")
    change(data)
    data.save_as(folder / "seg.dcm")
    return folder / "seg.dcm"


def put(place: str, value: object, frame: int = 3) -> Callable[[Any], object]:
    """Return a change of a frame's functional groups, or of the file; ``None`` removes what is there."""

    def change(data: Any) -> None:
        *groups, keyword = place.split(".")
        item = data[FRAMES][frame] if groups or keyword in data[FRAMES][frame] else data
        for group in groups:
            item = item[group][0]
        if value is None:
            del item[keyword]
        else:
            setattr(item, keyword, value)

    return change


def times(data: Any, count: int) -> None:
    data[FRAMES].value = Sequence([data[FRAMES][0]] * count)
    data.NumberOfFrames = count


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (put("SegmentSequence", None), "describes no segment"),
        (put("SegmentSequence", Sequence()), "describes no segment"),
        (put("Rows", None), "holds no frames|cut short or damaged|Rows"),
        (put("Columns", 0), "holds no frames|cut short or damaged|Columns"),
        (put("Rows", 65535), "bytes of pixels where Rows, Columns, frames and bits come to"),
        (put("NumberOfFrames", 9), "holds 9 frames and says of 10 where they are|bytes of pixels"),
        (put("NumberOfFrames", 2_000_000_000), "bytes of pixels|holds 2000000000 frames"),
        (put("SegmentationType", "OTHER"), "SegmentationType"),
        (put("SegmentationType", "FRACTIONAL"), "MaximumFractionalValue of None"),
        (put(FRAMES, None), "holds 10 frames and says of 0 where they are"),
        (put("SegmentIdentificationSequence", None), "frame 4 names no segment"),
        (put("SegmentIdentificationSequence.ReferencedSegmentNumber", 7), "frame 4 is of segment 7"),
        (put("SegmentIdentificationSequence.ReferencedSegmentNumber", 0), "frame 4 is of segment 0"),
        (put("SegmentIdentificationSequence.ReferencedSegmentNumber", 2), "2 frames of segment 2 at one place"),
        (put("PlanePositionSequence", None), "frame 4 has no position"),
        (put("PlanePositionSequence.ImagePositionPatient", [0, 0]), "frame 4 has no position"),
        (put("PlanePositionSequence.ImagePositionPatient", [9, 0, 9]), "shifted against each other"),
        (put("PlanePositionSequence.ImagePositionPatient", [0, 0, 1e30]), "farther"),
        (lambda data: times(data, 3), "bytes of pixels"),
        (lambda data: data.SegmentSequence.append(data.SegmentSequence[0]), "describes segment 1 twice"),
        (put("PixelData", b"\0" * 10), "bytes of pixels"),
        (put("BitsAllocated", 16), "bytes of pixels|BitsAllocated|16 bits"),
        (put("InConcatenationTotalNumber", 2), "one of 2 files of a concatenation"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_seg_that_says_too_little_is_refused_with_the_reason(
    tmp_path: Path, change: Callable[[Any], object], why: str
) -> None:
    path = seg(tmp_path, change)
    with pytest.raises(LabelError, match=rf"^seg\.dcm: .*({why})"):
        read_segmentation(path)
    found = inspect(path, ObjectRef(key="raw/seg.dcm", size=1, etag="", sha256=""), b"")
    assert found.kind == Kind.BROKEN
    assert found.reason


def test_a_frame_far_away_takes_no_memory(tmp_path: Path) -> None:
    """Its volume would have 300 million slices, were they counted by their distance."""
    path = seg(tmp_path, put("PlanePositionSequence.ImagePositionPatient", [0, 0, 99_999], frame=9))
    read_segmentation(path)  # what libraries load once does not count
    tracemalloc.start()
    try:
        mask, geometry, _ = read_segmentation(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert mask.shape == (6, *SHAPE[1:])
    assert geometry.to_patient(np.array([[5.0, 0, 0]]))[0] == pytest.approx([0, 0, 99_999])


@pytest.mark.parametrize("heights", [(0, 3, 6, 10, 14), (0, 2, 4, 8, 12), (0, 3, 9, 12, 15)])
def test_frames_at_uneven_distances_keep_their_places(tmp_path: Path, heights: tuple[int, ...]) -> None:
    positions = np.array([[1.0, 2.0, height] for height in heights])
    geometry = from_dicom(positions, np.array([1.0, 0, 0, 0, 1, 0]), (0.9, 0.8), *SHAPE[1:])
    label = body(shape=SHAPE)[1]
    write_segmentation(tmp_path / "seg.dcm", label, geometry)
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    for index, frame in enumerate(data[FRAMES]):
        frame.PlanePositionSequence[0].ImagePositionPatient = positions[index % SHAPE[0]].tolist()
    data.save_as(tmp_path / "seg.dcm")
    mask, place, _ = read_segmentation(tmp_path / "seg.dcm")
    assert np.array_equal(mask, label)
    for index, position in enumerate(positions):
        assert place.to_patient(np.array([[index, 0.0, 0.0]]))[0] == pytest.approx(position)


def test_empty_frame_groups_without_end_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """Eight bytes a frame in the file become more than a kilobyte each in memory."""

    path = seg(tmp_path, lambda data: data[FRAMES].value.clear())
    raw = path.read_bytes()
    start = raw.index(b"\x00\x52\x30\x92SQ")
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 1_000_000
    path.write_bytes(raw[: start + 8] + len(items).to_bytes(4, "little") + items + raw[start + 12 :])
    tracemalloc.start()
    try:
        with pytest.raises(LabelError, match=r"would take 14\d\d MB of memory"):
            read_segmentation(path)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
