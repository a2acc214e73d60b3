from typing import Any

import pytest
from pydantic import BaseModel

from boneseg.identity import Fields, stable_hash
from boneseg.settings import identities
from boneseg.settings.schema import (
    EvaluateSettings,
    ModelSettings,
    PrepareSettings,
    Section,
    TrainSettings,
    TuneSettings,
)


def paths_of(section: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted paths of all settings of a section."""
    found: set[str] = set()
    for name, info in section.model_fields.items():
        kind = info.annotation
        inner = isinstance(kind, type) and issubclass(kind, BaseModel)
        found |= paths_of(kind, f"{prefix}{name}.") if inner else {prefix + name}
    return found


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        (ModelSettings, identities.MODEL),
        (TrainSettings, identities.TRAIN),
        (TrainSettings, identities.SWEEP_TRAIN),
        (TuneSettings, identities.TUNE),
        (EvaluateSettings, identities.EVALUATE),
        (PrepareSettings, identities.PREPARE),
    ],
)
def test_every_setting_is_written_down_as_counting_or_not(section: type[Section], fields: Fields) -> None:
    listed = {*fields.first, *fields.later, *fields.how}
    assert listed == paths_of(section), "write a new setting into `later` (or `how`) of its list"
    assert len(listed) == len(fields.first) + len(fields.later) + len(fields.how)


def test_a_new_setting_counts_only_where_it_differs_from_before() -> None:
    before = Fields(first=("a", "inner.b"))
    after = Fields(first=("a", "inner.b"), later={"inner.new": "as before", "c": None}, how=("threads",))
    old: dict[str, Any] = {"a": 1, "inner": {"b": [1.5, None]}, "threads": 4}
    assert before.hash(old) == stable_hash({"a": 1, "inner": {"b": [1.5, None]}})
    assert after.hash(old) == before.hash(old)  # a record of before lacks the new fields
    neutral = {**old, "inner": {"b": [1.5, None], "new": "as before"}, "c": None, "threads": 8}
    assert after.hash(neutral) == before.hash(old)
    for changed in ({"c": 0}, {"inner": {"b": [1.5, None], "new": "other"}}, {"a": 2}):
        assert after.hash({**neutral, **changed}) != before.hash(old)


def test_a_missing_field_of_the_first_version_is_an_error() -> None:
    with pytest.raises(KeyError):
        Fields(first=("a", "b")).hash({"a": 1})


def test_a_later_default_counts_as_the_one_before_it() -> None:
    fields = Fields(first=("threads",), same={"threads": {"auto": 1}})
    assert fields.hash({"threads": "auto"}) == fields.hash({"threads": 1}) != fields.hash({"threads": 2})
