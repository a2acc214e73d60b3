"""Headers as hospitals have them, and what a DICOM SEG may say after them."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.valuerep import validate_value

from boneseg.dicom.copied import RULES
from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.segmentation_write import write_segmentation
from tests.ct_files import body, place

SHAPE = (3, 24, 24)
UIDS = ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


def ct(folder: Path) -> list[Path]:
    hu, _ = body(0, SHAPE)
    return write_ct_series(folder, hu, place(SHAPE), identity="copied", patient_id="P7")


def put(path: Path, keyword: str, value: bytes | None, vr: str | None = None) -> None:
    """Write the very bytes into a file, whatever the rules say; none removes the tag."""
    data, tag = pydicom.dcmread(path), Tag(keyword)
    if value is not None:
        even = value + b" " * (len(value) % 2)
        kind = vr or pydicom.datadict.dictionary_VR(tag)
        data[tag] = RawDataElement(tag, kind, len(even), even, 0, False, True)
    elif tag in data:
        del data[tag]
    data.save_as(path)


def written(tmp_path: Path, files: list[Path]) -> tuple[pydicom.Dataset, str]:
    """Write a SEG on the files, read it with highdicom, check it by pydicom's rules; return it and the notes."""
    label = body(0, SHAPE)[1]
    notes = write_segmentation(tmp_path / "mask.dcm", label, place(SHAPE), files)
    seg = hd.seg.segread(tmp_path / "mask.dcm")
    assert np.array_equal(np.unique(seg.get_volume(combine_segments=True).array), [0, 1, 2])
    data = pydicom.dcmread(tmp_path / "mask.dcm")
    for keyword in RULES:
        if keyword not in UIDS and data.get(keyword):
            validate_value(data[keyword].VR, str(data.get(keyword)), pydicom.config.RAISE)
    return data, " ".join(notes)


# Value in the CT -> value in the SEG; none = left out and said so.
MENDED = {
    "StudyDate": {
        b"20200101": "20200101",
        b"2020.01.01": "20200101",
        b"2020-1-31": "20200131",
        b" 20200101": "20200101",
        b"1950": None,
        b"202001": None,
        b"20200230": None,
        b"00000000": None,
        b"01.02.2020": None,
        b"20200101-20200202": None,
        b"yesterday": None,
        b"20200101\\20200102": None,
        "\uff12020.01.01".encode(): None,
        b"": "",
    },
    "PatientBirthDate": {b"1950": None, b"1950.12.31": "19501231", b"**": None, b"19501301": None},
    "StudyTime": {
        b"101112": "101112",
        b"10:11:12": "101112",
        b"10:11": "1011",
        b"10": "10",
        b"101112.123456789": "101112.123456",
        b"246060": None,
        b"10:11:12 AM": None,
        b"1": None,
        b"101112+0100": None,
        b"101112\\101113": None,
    },
    "AccessionNumber": {b"A1": "A1", b"ACC-2020-0000000012345": None, b"A\\B": None, b"A\x07": None, b" A 1 ": "A 1"},
    "StudyID": {b"CT-ABDOMEN-PELVIS-0001": None, b"1\n2": None, b"\xe4": "ä"},
    "PatientID": {b"X" * 70: None, b"X" * 64: "X" * 64, b"A\\B": None, b"\x81\xfe": None},
    "PatientSex": {b"m": "M", b"Female": "F", b"U": None, b"1": None, b"M\\F": None, b"O ": "O"},
    "PatientName": {
        b"A" * 65: None,
        b"A^B^C^D^E^F": None,
        b"A=B=C=D": None,
        b"Doe^Jane\\Doe^Joan": None,
        b"Doe^Jane\x1b": None,
        b"^^^^": "",
    },
}


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [(tag, value, seg) for tag, cases in MENDED.items() for value, seg in cases.items()],
)
def test_a_value_is_mended_or_left_out(tmp_path: Path, keyword: str, value: bytes, expected: str | None) -> None:
    files = ct(tmp_path / "ct")
    for path in files:
        put(path, keyword, value)
    data, notes = written(tmp_path, files)
    assert str(data.get(keyword) or "").strip("^") == (expected or "")
    assert (keyword in notes) == (expected is None)
    if len(value.strip()) > 2:
        assert value.decode("latin-1") not in notes
    assert data.ReferencedSeriesSequence[0].SeriesInstanceUID == pydicom.dcmread(files[0]).SeriesInstanceUID


@pytest.mark.parametrize("vr", ["UN", "US", "SQ", "DS"])
@pytest.mark.parametrize("keyword", [*RULES, "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_tag_of_another_type_costs_nothing_but_the_tag(tmp_path: Path, keyword: str, vr: str) -> None:
    files = ct(tmp_path / "ct")
    for path in files:
        put(path, keyword, b"" if vr == "SQ" else b"\x01\x02\xf3\x04", vr)
    written(tmp_path, files)


@pytest.mark.parametrize("keyword", [*RULES, *UIDS, "SpecificCharacterSet"])
@pytest.mark.parametrize("value", [None, b"", b" ", b"\0\0", b"\\\\", b"\xff" * 200, b"?" * 70])
def test_whatever_a_tag_holds_the_mask_is_written(tmp_path: Path, keyword: str, value: bytes | None) -> None:
    files = ct(tmp_path / "ct")
    for path in files:
        put(path, keyword, value)
    written(tmp_path, files)


def test_one_file_with_a_good_value_is_enough(tmp_path: Path) -> None:
    files = ct(tmp_path / "ct")
    for path in files[:2]:
        put(path, "StudyDate", b"1950")
    data, notes = written(tmp_path, files)
    assert (data.StudyDate, notes) == ("20000101", "")


@pytest.mark.parametrize(
    ("charset", "raw", "expected"),
    [
        (b"\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (b"ISO 2022 IR 6\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동", "Hong^Gildong=洪^吉洞=홍^길동"),
        (b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
        (b"GBK", "Wang^XiaoDong=王^小东".encode("gbk"), "Wang^XiaoDong=王^小东"),
        (b"ISO_IR 192", "Ζωή^Ψ".encode(), "Ζωή^Ψ"),
        (b"ISO_IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
        (b"ISO_IR 144", "Люкс".encode("iso8859_5"), "Люкс"),
        (b"ISO_IR 6", b"Doe^Jane", "Doe^Jane"),
        (b"ISO_IR 6", "Müller^Jörg".encode("latin-1"), None),
        (b"ISO_IR 6", "Müller^Jörg".encode(), "Müller^Jörg"),
        (b"", "Müller^Jörg".encode("latin-1"), None),
        (b"ISO_IR 192", "Müller^Jörg".encode("latin-1"), None),
        (b"ISO_IR 999", "Müller^Jörg".encode("latin-1"), None),
        (b"utf8", "Müller^Jörg".encode(), "Müller^Jörg"),
        (b"\xff\xfe", b"Doe^Jane", "Doe^Jane"),
        (b"ISO_IR 100\\GB18030\\ISO_IR 192", b"Doe^Jane", "Doe^Jane"),
        (b"ISO 2022 IR 6\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;", None),
    ],
)
def test_names_of_all_languages_are_carried_or_dropped(
    tmp_path: Path, charset: bytes, raw: bytes | str, expected: str | None
) -> None:
    files = ct(tmp_path / "ct")
    if isinstance(raw, str):
        encodings = pydicom.charset.convert_encodings([part.strip() for part in charset.decode().split("\\")])
        groups = [
            [pydicom.charset.encode_string(part, encodings) for part in group.split("^")] for group in raw.split("=")
        ]
        raw = b"=".join(b"^".join(parts) for parts in groups)
    for path in files:
        put(path, "SpecificCharacterSet", charset)
        put(path, "PatientName", raw)
    data, notes = written(tmp_path, files)
    assert str(data.PatientName) == (expected or "")
    assert ("PatientName" in notes) == (expected is None)


def test_uids_with_leading_zeros_stay_what_the_images_are_called(tmp_path: Path) -> None:
    files = ct(tmp_path / "ct")
    uids = {
        "StudyInstanceUID": b"1.2.840.0113619.02.55",
        "FrameOfReferenceUID": b"1.2.0840.1",
        "SeriesInstanceUID": b"1.2.09",
    }
    for path in files:
        for keyword, value in uids.items():
            put(path, keyword, value)
    data, notes = written(tmp_path, files)
    assert notes == ""
    assert data.StudyInstanceUID == "1.2.840.0113619.02.55"
    assert data.FrameOfReferenceUID == "1.2.0840.1"
    assert data.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.09"


@pytest.mark.parametrize("value", [b"", b"no uid", b"1.2." + b"3" * 80, b"1.2.3\\1.2.4", b"1..2", b"1.2.3"])
def test_images_without_a_uid_of_their_own_are_made_up_and_it_is_said(tmp_path: Path, value: bytes) -> None:
    files = ct(tmp_path / "ct")
    for path in files:
        put(path, "SOPInstanceUID", value)
    data, notes = written(tmp_path, files)
    assert "made up" in notes
    assert (
        len({item.ReferencedSOPInstanceUID for item in data.ReferencedSeriesSequence[0].ReferencedInstanceSequence})
        == 3
    )
