"""However a file is encoded, its pixels are read from where they are; and a file that lies about it is named."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.file import remains
from boneseg.dicom.header import read_header
from boneseg.dicom.series import read_series, read_slice
from boneseg.errors import SeriesError
from boneseg.geometry import axial
from boneseg.ingest.facts import Kind, inspect
from boneseg.ingest.local import local_series
from boneseg.predict.find_series import look
from boneseg.storage.catalogue import ObjectRef
from tests.ct_files import body

SHAPE = (4, 24, 24)
HU = body(2, SHAPE)[0]


def slices(folder: Path) -> list[Path]:
    return write_ct_series(folder, HU, axial(SHAPE, (3, 1, 1)), identity="a")


def encoded(
    path: Path, *, implicit: bool = False, meta: bool = True, preamble: bool = True, syntax: str | None = None
) -> None:
    """Write a file's data set anew; its meta header says ``syntax``, whatever is true."""
    data = pydicom.dcmread(path)
    said = data.file_meta
    said.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    body = io.BytesIO()
    pydicom.filewriter.write_dataset(_raw_stream(body, implicit), pydicom.Dataset({e.tag: e for e in data}))
    head = io.BytesIO()
    if syntax == "":
        del said.TransferSyntaxUID
    elif syntax is not None:
        said.TransferSyntaxUID = syntax
    if meta:
        pydicom.filewriter.write_file_meta_info(head, said, enforce_standard=False)
    start = bytes(128) + b"DICM" if preamble else b""
    path.write_bytes(start + head.getvalue() + body.getvalue())


def _raw_stream(buffer: io.BytesIO, implicit: bool) -> pydicom.filebase.DicomIO:
    stream = pydicom.filebase.DicomIO(buffer)
    stream.is_little_endian, stream.is_implicit_VR = True, implicit
    return stream


def facts_kind(path: Path) -> tuple[Kind, str]:
    facts = inspect(path, ObjectRef(key=f"raw/{path.name}", size=0, etag="", sha256=""), b"s")
    return facts.kind, facts.reason


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("meta", "preamble", "syntax"),
    [(True, True, None), (True, False, None), (False, False, None), (False, True, None), (True, True, "")],
)
def test_files_without_preamble_meta_header_or_transfer_syntax_are_read(
    tmp_path: Path, implicit: bool, meta: bool, preamble: bool, syntax: str | None
) -> None:
    for path in slices(tmp_path):
        encoded(path, implicit=implicit, meta=meta, preamble=preamble, syntax=syntax)
    assert np.array_equal(read_series(sorted(tmp_path.iterdir()))[0], HU)
    assert facts_kind(tmp_path / "slice-0001.dcm")[0] == Kind.SLICE


@pytest.mark.parametrize("first", ["SpecificCharacterSet", "ImageType", "SOPClassUID", "StudyDate"])
def test_a_bare_file_may_start_with_any_element(tmp_path: Path, first: str) -> None:
    path = slices(tmp_path)[0]
    data = pydicom.dcmread(path)
    for element in list(data):
        if element.tag < pydicom.tag.Tag(first):
            del data[element.tag]
    data.save_as(path)
    encoded(path, meta=False, preamble=False)
    assert np.array_equal(read_slice(path), HU[0])


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("said", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_transfer_syntax_that_lies_about_value_types_shifts_nothing(
    tmp_path: Path, implicit: bool, said: str
) -> None:
    path = slices(tmp_path)[0]
    encoded(path, implicit=implicit, syntax=said)
    assert np.array_equal(read_slice(path), HU[0])


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (RLELossless, "says its pixels are RLE Lossless, but they are plain"),
        (JPEG2000Lossless, "says its pixels are JPEG 2000 .*, but they are plain"),
        ("1.2.3.4", "transfer syntax that is not known"),
        ("1.2.840.113619.5.2", "transfer syntax that is not known"),
        (DeflatedExplicitVRLittleEndian, "deflated data cannot be unpacked"),
        (ExplicitVRBigEndian, "damaged"),
    ],
)
def test_a_transfer_syntax_that_lies_about_pixels_is_named(tmp_path: Path, said: str, cause: str) -> None:
    path = slices(tmp_path)[0]
    encoded(path, syntax=said)
    with pytest.raises(SeriesError, match=cause):
        read_slice(path)


def test_compressed_pixels_in_a_file_that_says_they_are_plain_are_named(tmp_path: Path) -> None:
    path = write_ct_series(tmp_path, HU, axial(SHAPE, (3, 1, 1)), identity="a", transfer_syntax=RLELossless)[0]
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.1\0"))
    with pytest.raises(SeriesError, match="Explicit VR Little Endian, but they are compressed"):
        read_slice(path)


def cut(content: bytes) -> bytes:
    return content[:130]


def without_mark(content: bytes) -> bytes:
    return content[:128] + b"XXXX" + content[132:]


def zeroed_start(content: bytes) -> bytes:
    return bytes(200) + content[200:]


def shifted(content: bytes) -> bytes:
    return b"garbage" + content


def tail(content: bytes) -> bytes:
    return content[-3000:-100]


def empty(content: bytes) -> bytes:
    return content[:0]


@pytest.mark.parametrize("damage", [cut, without_mark, zeroed_start, shifted, empty, tail])
@pytest.mark.parametrize("which", [0, 1, 3])
def test_no_slice_of_a_volume_is_lost_without_a_word(
    tmp_path: Path, damage: Callable[[bytes], bytes], which: int
) -> None:
    paths = slices(tmp_path)
    paths[which].write_bytes(damage(paths[which].read_bytes()))
    _, problems = local_series(tmp_path)
    told = [problem for problem in problems if paths[which].name in problem.source]
    assert told, problems
    assert told[0].fatal
    assert told[0].reason
    assert any(paths[which].name in sentence for sentence in look(tmp_path).lost)


def test_files_that_were_never_dicom_are_not_called_damaged(tmp_path: Path) -> None:
    for name, content in (("a.txt", b"text " * 200), ("b.bin", bytes(range(256)) * 8), ("c", b""), ("d", b"\x08\x00")):
        (tmp_path / name).write_bytes(content)
        assert read_header(tmp_path / name) is None
        assert remains(tmp_path / name) is None


def changed(content: bytes, place: int, by: bytes) -> bytes:
    """Insert bytes within the pixels."""
    start = content.index(struct.pack("<HH", 0x7FE0, 0x10)) + 12
    return content[: start + place] + by + content[start + place :]


@pytest.mark.parametrize("more", [b"\1", b"\0" * 2, b"\7" * 12, b"\0" * 100])
def test_bytes_inserted_among_the_pixels_are_noticed_at_the_end(tmp_path: Path, more: bytes) -> None:
    path = slices(tmp_path)[0]
    path.write_bytes(changed(path.read_bytes(), 300, more))
    with pytest.raises(SeriesError, match="belong to nothing"):
        read_slice(path)


def test_elements_and_padding_after_the_pixels_are_usual(tmp_path: Path) -> None:
    first, second, third = slices(tmp_path)[:3]
    data = pydicom.dcmread(first)
    data.add_new((0xFFFC, 0xFFFC), "OB", b"\0" * 50)
    data.save_as(first)
    content = second.read_bytes()
    second.write_bytes(content + bytes(-len(content) % 2048))
    data = pydicom.dcmread(third)
    data.PixelData = data.PixelData + b"\0\0"
    data.save_as(third)
    assert np.array_equal(read_slice(first), HU[0])
    assert np.array_equal(read_slice(second), HU[1])
    assert np.array_equal(read_slice(third), HU[2])


def test_odd_numbers_that_are_not_needed_are_passed_over(tmp_path: Path) -> None:
    for path in slices(tmp_path):
        content = path.read_bytes()
        for tag, text in (((0x20, 0x11), b"A1"), ((0x20, 0x13), b"x.")):
            mark = struct.pack("<HH", *tag) + b"IS" + struct.pack("<H", 2)
            place = content.index(mark) + len(mark)
            content = content[:place] + text + content[place + 2 :]
        path.write_bytes(content)
    volume, _, warnings = read_series(sorted(tmp_path.iterdir()))
    assert np.array_equal(volume, HU)
    assert warnings == []
    header = read_header(tmp_path / "slice-0001.dcm")
    assert header is not None
    assert (header.series_number, header.instance_number) == (None, None)


def change(path: Path, values: dict[str, object]) -> NDArray[np.int16] | None:
    data = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(data, keyword, value)
    data.save_as(path)
    return None


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]}, "directions of length 2 and 2"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "directions of length 0 and 0"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.5, 0]}, "directions of length 1 and 0.5"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.5, 0.866025, 0]}, "meet at 60.0 degrees"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "meet at 0.0 degrees"),
        ({"ImageOrientationPatient": [1e30, 0, 0, 0, 1, 0]}, "directions of length"),
        ({"PixelSpacing": [1e-30, 1e-30]}, "PixelSpacing is 1e-30"),
        ({"PixelSpacing": [1000, 1000]}, "PixelSpacing is 1000"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing is 0 x 1"),
        ({"PixelSpacing": [-1, 1]}, "PixelSpacing is -1 x 1"),
    ],
)
def test_places_that_would_stretch_or_shear_the_volume_are_refused(
    tmp_path: Path, values: dict[str, object], cause: str
) -> None:
    paths = slices(tmp_path)
    for path in paths:
        change(path, values)
    with pytest.raises(SeriesError, match=cause):
        read_series(paths)
    rows, problems = local_series(tmp_path)
    assert rows == ()
    assert cause in problems[0].reason


@pytest.mark.parametrize(("step", "cause"), [(1000.0, "1000 mm apart"), (1e6, "farther than 100 m")])
def test_slices_impossibly_far_apart_are_refused(tmp_path: Path, step: float, cause: str) -> None:
    paths = slices(tmp_path)
    for index, path in enumerate(paths):
        change(path, {"ImagePositionPatient": [0, 0, index * step]})
    with pytest.raises(SeriesError, match=cause):
        read_series(paths)


def test_directions_rounded_in_the_file_do_not_change_the_voxel(tmp_path: Path) -> None:
    paths = slices(tmp_path)
    for path in paths:
        change(path, {"ImageOrientationPatient": [0.998, 0, 0, 0, 1.004, 0]})
    assert read_series(paths)[1].spacing == pytest.approx((3, 1, 1))
