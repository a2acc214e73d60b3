import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boneseg.errors import RecordError
from boneseg.settings.schema import ModelSettings
from boneseg.storage.records import FORMAT, SEAL, Record


class Inner(Record):
    value: float
    text: str = "ä"


class Example(Record):
    number: int
    inner: Inner
    model: ModelSettings = ModelSettings()
    many: tuple[Inner, ...] = ()


EXAMPLE = Example(number=3, inner=Inner(value=0.1), many=(Inner(value=1e-9, text="="), Inner(value=2.0)))
DATA = EXAMPLE.to_json()


def read(data: bytes) -> Example:
    return Example.read(data, "s3://bucket/example.json", "make it again")


def test_what_is_written_is_read_back() -> None:
    assert read(DATA) == EXAMPLE
    assert read(EXAMPLE.to_json(compact=True)) == EXAMPLE


def test_a_record_of_before_seals_is_read() -> None:
    assert read(EXAMPLE.model_dump_json().encode()) == EXAMPLE


def test_a_record_whose_seal_was_taken_off_is_refused() -> None:
    values = json.loads(DATA)
    del values[SEAL]
    for change in ({}, {"number": 4}, {FORMAT: 1}, {FORMAT: None}):
        with pytest.raises(RecordError, match="was changed after it was written"):
            read(json.dumps({**values, **change}).encode())


def test_white_space_and_order_play_no_part() -> None:
    values = json.loads(DATA)
    assert read(json.dumps(dict(reversed(values.items())), indent=7).encode()) == EXAMPLE


@given(st.integers(0, len(DATA) - 1))
def test_every_cut_is_told_with_the_way_back(length: int) -> None:
    with pytest.raises(RecordError, match=r"^s3://bucket/example.json .*; make it again$"):
        read(DATA[:length])


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_every_changed_byte_is_told_or_changes_nothing(place: int, change: int) -> None:
    changed = bytearray(DATA)
    changed[place] ^= change
    told = ""
    try:
        found = read(bytes(changed))
    except RecordError as error:
        found, told = EXAMPLE, str(error)
    assert found == EXAMPLE  # without an error, white space became other white space
    assert told.startswith("s3://bucket/example.json") or not told


@pytest.mark.parametrize(
    "change",
    [
        {"number": 4},
        {"inner": {"value": 1.0, "text": "ä"}},
        {"many": []},
        {"new": 1},
        {SEAL: "0" * 32},
    ],
)
def test_an_edited_record_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="was changed after it was written"):
        read(json.dumps({**json.loads(DATA), **change}).encode())


def test_fields_of_a_later_version_are_passed_over() -> None:
    class Later(Example):
        more: int = 7

    later = Later(**{**EXAMPLE.model_dump(), "more": 8})
    assert read(later.to_json()) == EXAMPLE


def test_settings_of_a_later_version_are_not_passed_over() -> None:
    values = json.loads(EXAMPLE.model_dump_json())
    values["model"]["preprocess"]["sharpen"] = 2
    with pytest.raises(RecordError, match=r"model.preprocess.sharpen.*later version wrote it, so update boneseg"):
        read(json.dumps(values).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"3", b"null", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_record_is_told(data: bytes) -> None:
    with pytest.raises(RecordError, match="make it again"):
        read(data)
