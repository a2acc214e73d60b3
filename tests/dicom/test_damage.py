"""A damaged file is refused with what is damaged in it, as far as its own structure tells."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.damage import fault_in
from boneseg.dicom.series import read_slice
from boneseg.errors import SeriesError
from boneseg.geometry import axial
from boneseg.ingest.local import local_series
from tests.ct_files import body
from tests.fuzz.dicom_files import enhanced

SHAPE = (3, 40, 44)
PIXELS = 40 * 44 * 2
Damage = Callable[[bytes], bytes]


def files(folder: Path) -> list[Path]:
    return write_ct_series(folder, body(1, SHAPE)[0], axial(SHAPE, (3.0, 0.9, 0.8)), identity="a")


def encoded(folder: Path, syntax: str) -> bytes:
    data = pydicom.dcmread(files(folder)[1])
    if syntax in (RLELossless, JPEGLSLossless):
        data.compress(syntax, generate_instance_uid=False)
    elif syntax:
        data.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    data.save_as(buffer)
    return buffer.getvalue()


def element(data: bytes, group: int, number: int) -> int:
    return data.index(struct.pack("<HH", group, number), 132)


def cut(missing: int) -> Damage:
    return lambda data: data[:-missing]


def overwritten(group: int, number: int, offset: int, value: bytes) -> Damage:
    def damage(data: bytes) -> bytes:
        place = element(data, group, number) + offset
        return data[:place] + value + data[place + len(value) :]

    return damage


def removed(group: int, number: int, offset: int, count: int) -> Damage:
    def damage(data: bytes) -> bytes:
        place = element(data, group, number) + offset
        return data[:place] + data[place + count :]

    return damage


def before_pixels(data: bytes) -> bytes:
    return data[: element(data, 0x7FE0, 0x10)]


def first_fragment(data: bytes) -> bytes:
    """Spoil what the first fragment of the compressed picture holds."""
    place = element(data, 0x7FE0, 0x10) + 12 + 8 + 4 * (data[element(data, 0x7FE0, 0x10) + 16] // 4) + 8
    return data[:place] + b"\x37" * 8 + data[place + 8 :]


@pytest.mark.parametrize(
    ("syntax", "damage", "cause"),
    [
        ("", cut(100), f"its pixels take {PIXELS} bytes, of which {PIXELS - 100} are there"),
        (ImplicitVRLittleEndian, cut(1), f"its pixels take {PIXELS} bytes, of which {PIXELS - 1} are there"),
        ("", before_pixels, r"it ends at byte \d+, after RescaleType, without pixels"),
        ("", overwritten(0x7FE0, 0x10, 8, b"\xf0\xff\xff\x7f"), f"where Rows, .* and bits come to {PIXELS}"),
        ("", lambda data: data[: element(data, 0x28, 0x10) + 5], r"it ends at byte \d+, after PhotometricInterpret"),
        ("", lambda data: data[: element(data, 0x20, 0x32) + 12], r"ImagePositionPatient at byte \d+ claims"),
        ("", overwritten(0x28, 0x10, 6, b"\xff\xff"), r"Rows at byte \d+ claims 65535 bytes, of which"),
        ("", removed(0x20, 0x13, 8, 1), "after InstanceNumber, no element starts: .* bytes were lost or added"),
        ("", overwritten(0x28, 0x101, 4, b"ZZ"), "BitsStored cannot be read"),
        (ImplicitVRLittleEndian, overwritten(0x28, 0x10, 4, b"\0\0\xf0\0"), "Rows at byte .* claims 15728640 bytes"),
        (RLELossless, cut(60), r"fragment 2 of the compressed pixels has \d+ bytes, of which \d+ are there"),
        (RLELossless, cut(8), "the compressed pixels end at byte .* without the mark of their end"),
        (RLELossless, first_fragment, "they have .* run-length segments, where the picture needs 2"),
        (JPEGLSLossless, first_fragment, "no picture starts in them"),
        (
            RLELossless,
            overwritten(0x28, 0x10, 8, b"\x27\0"),
            "they unpack to .* bytes a segment, where the picture has",
        ),
        (
            JPEGLSLossless,
            overwritten(0x28, 0x10, 8, b"\x27\0"),
            "the picture in them has 40 x 44 pixels, the header says",
        ),
        (DeflatedExplicitVRLittleEndian, cut(200), "the deflated data cannot be unpacked"),
        ("", overwritten(0x8, 0x16, 6, b"\x90\x04"), "SOPClassUID has .* characters, where 64 are the most"),
        ("", overwritten(0x28, 0x10, 0, b"\x28\0\x12\0"), "holds pixels but no usable Rows and Columns"),
    ],
)
def test_the_cause_is_what_the_file_shows(tmp_path: Path, syntax: str, damage: Damage, cause: str) -> None:
    path = tmp_path / "bad.dcm"
    path.write_bytes(damage(encoded(tmp_path / "ct", syntax)))
    with pytest.raises(SeriesError, match=rf"^bad\.dcm: .*{cause}.*; .*again") as caught:
        read_slice(path)
    assert "\n" not in str(caught.value)


def test_sequences_are_followed_and_whole_files_have_no_fault(tmp_path: Path) -> None:
    paths = files(tmp_path)
    buffer = io.BytesIO()
    data = enhanced(paths)
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        data[name].is_undefined_length = True
        for one in data[name].value:
            one.is_undefined_length_sequence_item = True
    data.save_as(buffer)
    content = buffer.getvalue()
    assert fault_in(io.BytesIO(content), len(content)) == ""
    end = element(content, 0x5200, 0x9230) + 40
    assert "FrameContentSequence at byte" in fault_in(io.BytesIO(content[:end]), end)
    end -= 28
    assert "within PerFrameFunctionalGroupsSequence" in fault_in(io.BytesIO(content[:end]), end)
    for path in paths:
        assert fault_in(io.BytesIO(path.read_bytes()), path.stat().st_size) == ""


def test_many_cut_files_are_one_row_though_each_is_cut_elsewhere(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, body(1, (9, 24, 24))[0], axial((9, 24, 24), (3, 1, 1)), identity="a")
    for number, path in enumerate(paths):
        path.write_bytes(path.read_bytes()[: -100 - number])
    rows, problems = local_series(tmp_path)
    assert rows == ()
    (problem,) = problems
    assert problem.reason.startswith(
        "9 files, the first of them slice-0001.dcm: the DICOM file is cut short or damaged: "
    )
