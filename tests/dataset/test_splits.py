import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boneseg.dataset.manifest import ShardRecord
from boneseg.dataset.splits import Override, assign, override_for, read_overrides
from boneseg.errors import DataError
from boneseg.geometry import axial
from boneseg.settings.schema import Split, SplitSettings
from boneseg.storage.catalogue import GeometryRecord, ObjectRef
from boneseg.storage.hashing import pseudonym

GEOMETRY = GeometryRecord.of(axial((2, 4, 4), (3.0, 1.0, 1.0)))
NOWHERE = ObjectRef(key="", size=0, etag="", sha256="")


def series(patient: str, study: str = "", pixels: str = "", source: str = "") -> ShardRecord:
    return ShardRecord(
        shard=f"shard-{patient}-{source}",
        series=f"series-{patient}",
        source=source or f"{patient}/ct",
        patient=patient,
        study=study or f"study-{patient}",
        geometry=GEOMETRY,
        hu_range=(-1000, 1000),
        class_counts=((16, 0, 0), (10, 4, 2)),
        outline_computed=False,
        pixel_hash=pixels or f"pixels-{patient}-{source}",
        image=NOWHERE,
        label=NOWHERE,
    )


def patients(count: int) -> list[ShardRecord]:
    return [series(f"p{number:04d}") for number in range(count)]


def counts(splits: dict[str, Split]) -> dict[Split, int]:
    return {split: sum(value == split for value in splits.values()) for split in Split}


@given(
    first=st.sets(st.integers(0, 200), min_size=2, max_size=40),
    added=st.sets(st.integers(0, 200), max_size=40),
    validation=st.floats(0, 0.4),
    test=st.floats(0, 0.4),
)
def test_adding_patients_never_moves_one(first: set[int], added: set[int], validation: float, test: float) -> None:
    settings = SplitSettings(validation=validation, test=test)
    before = assign([series(f"p{number}") for number in first], {}, settings)
    after = assign([series(f"p{number}") for number in first | added], before, settings)
    assert before.items() <= after.items()


@given(
    links=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 8), st.integers(0, 8)), min_size=6, max_size=30),
)
def test_no_patient_study_or_picture_is_in_two_splits(links: list[tuple[int, int, int]]) -> None:
    records = [
        series(f"p{patient}", f"study{study}", f"pixels{pixels}", f"s{number}")
        for number, (patient, study, pixels) in enumerate(links)
    ]
    records.append(series("somebody else"))
    splits = assign(records, {}, SplitSettings())
    for trait in ("patient", "study", "pixel_hash"):
        found: dict[str, set[Split]] = {}
        for record in records:
            found.setdefault(getattr(record, trait), set()).add(splits[record.patient])
        assert all(len(places) == 1 for places in found.values())


def test_shares_hold_for_many_patients_and_do_not_depend_on_order() -> None:
    records = patients(400)
    splits = assign(records, {}, SplitSettings(validation=0.15, test=0.2))
    assert counts(splits) == {Split.TRAIN: 260, Split.VALIDATION: 60, Split.TEST: 80}
    assert assign(records[::-1], {}, SplitSettings(validation=0.15, test=0.2)) == splits


def test_the_split_does_not_depend_on_the_secret_behind_patient_keys() -> None:
    records = patients(40)
    elsewhere = [
        record.model_copy(update={"patient": pseudonym(b"other", "patient", record.patient)}) for record in records
    ]
    here, there = assign(records, {}, SplitSettings()), assign(elsewhere, {}, SplitSettings())
    assert [here[record.patient] for record in records] == [there[record.patient] for record in elsewhere]


def test_shares_hold_when_patients_come_one_by_one() -> None:
    splits: dict[str, Split] = {}
    for count in range(2, 101):
        splits = assign(patients(count), splits, SplitSettings(validation=0.15, test=0.2))
    assert counts(splits) == {Split.TRAIN: 65, Split.VALIDATION: 15, Split.TEST: 20}


@pytest.mark.parametrize(("number", "train", "validation", "test"), [(2, 1, 0, 1), (3, 1, 1, 1), (6, 4, 1, 1)])
def test_few_patients_still_fill_the_splits(number: int, train: int, validation: int, test: int) -> None:
    splits = assign(patients(number), {}, SplitSettings())
    assert counts(splits) == {Split.TRAIN: train, Split.VALIDATION: validation, Split.TEST: test}


def test_one_patient_is_refused_with_the_fix() -> None:
    with pytest.raises(DataError, match="add a second patient"):
        assign(patients(1), {}, SplitSettings())
    assert counts(assign(patients(1), {}, SplitSettings(test=0)))[Split.TRAIN] == 1


def test_patients_of_one_study_go_together() -> None:
    records = [*patients(5), series("other", study="study-p0001"), series("third", pixels="pixels-p0001-")]
    records[1] = series("p0001", pixels="pixels-p0001-")
    splits = assign(records, {}, SplitSettings())
    assert splits["p0001"] == splits["other"] == splits["third"]


def test_a_person_in_two_frozen_splits_is_refused_by_name() -> None:
    records = [*patients(3), series("twin", study="study-p0000", source="twin/ct")]
    with pytest.raises(DataError, match=r"p0000/ct \(train\).*twin/ct \(test\)|twin/ct.*p0000/ct"):
        assign(records, {"p0000": Split.TRAIN, "twin": Split.TEST}, SplitSettings())


@pytest.mark.parametrize("known", ["study-p0002", "pixels-p0002-p0002/ct", "p0002"])
def test_a_study_or_picture_seen_before_decides_for_a_new_patient_number(known: str) -> None:
    record = series("p0002", study="study-p0002", pixels="pixels-p0002-p0002/ct")
    assert assign([*patients(2), record], {known: Split.VALIDATION}, SplitSettings())["p0002"] == Split.VALIDATION


def test_overrides_decide_for_new_patients() -> None:
    overrides = [Override(2, f"p000{number}/", None, Split.TEST) for number in range(3)]
    splits = assign(patients(6), {}, SplitSettings(), overrides)
    assert {patient for patient, split in splits.items() if split == Split.TEST} == {"p0000", "p0001", "p0002"}


def test_a_patient_in_two_splits_by_override_is_refused() -> None:
    records = [*patients(3), series("p0000", source="p0000/second")]
    overrides = [Override(2, "p0000/ct", None, Split.TRAIN), Override(3, "p0000/second", None, Split.TEST)]
    with pytest.raises(DataError, match=r"line 2 \(p0000/ct\).*line 3 \(p0000/second\)"):
        assign(records, {}, SplitSettings(), overrides)


def test_an_override_cannot_move_a_known_patient() -> None:
    with pytest.raises(DataError, match=r"line 7 \(p0000/ct\).*has been in test"):
        assign(patients(3), {"p0000": Split.TEST}, SplitSettings(), [Override(7, "p0000", None, Split.TRAIN)])


def test_the_most_exact_line_applies() -> None:
    lines = [Override(2, "a/", None, Split.TEST), Override(3, "a/1/", None, Split.TRAIN)]
    assert override_for("a/1/ct.nii.gz", lines) is lines[1]
    assert override_for("a/2/ct.nii.gz", lines) is lines[0]
    assert override_for("b/ct.nii.gz", lines) is None


def write(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_an_override_file_is_read_and_patients_become_keyed_hashes(tmp_path: Path) -> None:
    path = write(tmp_path / "o.csv", ("series", "patient", "split"), ("a/", "Miller", "Test"), ("b/", "", "train"))
    first, second = read_overrides(path, ["a/ct", "b/ct"], b"secret")
    assert first == Override(2, "a/", pseudonym(b"secret", "patient", "Miller"), Split.TEST)
    assert second == Override(3, "b/", None, Split.TRAIN)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("folder", "split"), ("a", "test")], "must name the columns"),
        ([("series", "split"), ("a", "tset")], "line 2: split 'tset' must be train, validation, test"),
        ([("series", "split"), ("c", "test")], "line 2: no series in the bucket starts with 'c'"),
    ],
)
def test_a_wrong_override_file_is_refused_with_its_line(
    tmp_path: Path, rows: list[tuple[str, ...]], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        read_overrides(write(tmp_path / "o.csv", *rows), ["a/ct"], b"secret")


def test_a_missing_override_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv"):
        read_overrides(tmp_path / "gone.csv", [], b"secret")
