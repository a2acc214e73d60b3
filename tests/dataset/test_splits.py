import pytest
from hypothesis import given
from hypothesis import strategies as st

from boneseg.dataset.manifest import ShardRecord
from boneseg.dataset.splits import Assignment, assign
from boneseg.errors import DataError
from boneseg.geometry import axial
from boneseg.settings.schema import Split, SplitSettings
from boneseg.storage.catalogue import GeometryRecord, ObjectRef
from boneseg.storage.hashing import pseudonym

GEOMETRY = GeometryRecord.of(axial((2, 4, 4), (3.0, 1.0, 1.0)))
NOWHERE = ObjectRef(key="", size=0, etag="", sha256="")


def series(
    patient: str, study: str = "", pixels: str = "", source: str = "", asked: Split | None = None, **more: object
) -> ShardRecord:
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
        asked=asked,
        **more,
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
    before = assign([series(f"p{number}") for number in first], {}, settings).splits
    after = assign([series(f"p{number}") for number in first | added], before, settings).splits
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
    splits = assign(records, {}, SplitSettings()).splits
    for trait in ("patient", "study", "pixel_hash"):
        found: dict[str, set[Split]] = {}
        for record in records:
            found.setdefault(getattr(record, trait), set()).add(splits[record.patient])
        assert all(len(places) == 1 for places in found.values())


def test_shares_hold_for_many_patients_and_do_not_depend_on_order() -> None:
    records = patients(400)
    splits = assign(records, {}, SplitSettings(validation=0.15, test=0.2)).splits
    assert counts(splits) == {Split.TRAIN: 260, Split.VALIDATION: 60, Split.TEST: 80}
    assert assign(records[::-1], {}, SplitSettings(validation=0.15, test=0.2)).splits == splits


def test_the_split_does_not_depend_on_the_secret_behind_patient_keys() -> None:
    records = patients(40)
    elsewhere = [
        record.model_copy(update={"patient": pseudonym(b"other", "patient", record.patient)}) for record in records
    ]
    here, there = (assign(some, {}, SplitSettings()).splits for some in (records, elsewhere))
    assert [here[record.patient] for record in records] == [there[record.patient] for record in elsewhere]


def test_shares_hold_when_patients_come_one_by_one() -> None:
    splits: dict[str, Split] = {}
    for count in range(2, 101):
        splits = assign(patients(count), splits, SplitSettings(validation=0.15, test=0.2)).splits
    assert counts(splits) == {Split.TRAIN: 65, Split.VALIDATION: 15, Split.TEST: 20}


@pytest.mark.parametrize(("number", "train", "validation", "test"), [(2, 1, 0, 1), (3, 1, 1, 1), (6, 4, 1, 1)])
def test_few_patients_still_fill_the_splits(number: int, train: int, validation: int, test: int) -> None:
    splits = assign(patients(number), {}, SplitSettings()).splits
    assert counts(splits) == {Split.TRAIN: train, Split.VALIDATION: validation, Split.TEST: test}


def test_one_patient_is_refused_with_the_fix() -> None:
    with pytest.raises(DataError, match="add a second patient"):
        assign(patients(1), {}, SplitSettings())
    assert counts(assign(patients(1), {}, SplitSettings(test=0)).splits)[Split.TRAIN] == 1


def test_patients_of_one_study_go_together() -> None:
    records = [*patients(5), series("other", study="study-p0001"), series("third", pixels="pixels-p0001-")]
    records[1] = series("p0001", pixels="pixels-p0001-")
    splits = assign(records, {}, SplitSettings()).splits
    assert splits["p0001"] == splits["other"] == splits["third"]


def merged(records: list[ShardRecord], before: dict[str, Split]) -> tuple[Assignment, dict[str, str]]:
    result = assign(records, before, SplitSettings())
    kept = {record.source: result.splits[record.patient].value for record in records}
    return result, {source: split for source, split in kept.items() if f"shard-{source}" not in result.left_out}


def one_person_as_two() -> tuple[list[ShardRecord], dict[str, Split]]:
    """Return two sessions of one person, which an earlier run took for patients of their own, and that run's state."""
    ones = [series("sub-1", study=f"file-{n}", source=f"ses-{n}", pixels=f"pixels-{n}") for n in (1, 2)]
    before = {"file-1": Split.TRAIN, "pixels-1": Split.TRAIN, "file-2": Split.TEST, "pixels-2": Split.TEST}
    return [record.model_copy(update={"shard": f"shard-{record.source}"}) for record in ones], before


def test_of_one_person_in_two_splits_the_test_part_stays_and_the_rest_is_left_out_with_a_reason() -> None:
    records, before = one_person_as_two()
    others = [series(f"p{number}", source=f"p{number}") for number in range(3)]
    before |= {"p0": Split.TRAIN}
    result, kept = merged([*others, *records], before)
    assert set(result.left_out) == {"shard-ses-1"}
    assert "into train, but the same person is in test" in result.left_out["shard-ses-1"]
    assert kept["ses-2"] == "test"


def test_what_is_left_out_stays_left_out() -> None:
    records, before = one_person_as_two()
    others = [series("p0")]
    first = assign([*others, *records], before | {"p0": Split.TRAIN}, SplitSettings())
    state = {"sub-1": Split.TEST} | before | {"p0": Split.TRAIN}
    assert assign([*others, *records], state, SplitSettings()).left_out == first.left_out
    new = series("sub-1", source="ses-3").model_copy(update={"shard": "shard-ses-3"})
    third = assign([*others, *records, new], state, SplitSettings())
    assert set(third.left_out) == {"shard-ses-1"}
    assert third.splits["sub-1"] == Split.TEST


def test_a_person_wholly_in_one_split_stays_there() -> None:
    records, _ = one_person_as_two()
    before = {"file-1": Split.TRAIN, "file-2": Split.TRAIN, "p0": Split.TEST}
    result = assign([series("p0"), *records], before, SplitSettings())
    assert (result.left_out, result.splits["sub-1"]) == ({}, Split.TRAIN)


def test_a_copy_under_another_number_joins_its_person() -> None:
    records = [*patients(6), series("copy", links=("p0003", "study-p0003"))]
    splits = assign(records, {}, SplitSettings()).splits
    assert splits["copy"] == splits["p0003"]
    assert (
        assign([series("p0001"), series("copy", links=("gone",))], {"gone": Split.TEST}, SplitSettings()).splits["copy"]
        == Split.TEST
    )


def test_whole_volumes_link_series_labelled_over_different_slices() -> None:
    records = [*patients(4), *(series(f"q{n}", pixels=f"part-{n}", **{"source": f"q{n}"}) for n in (1, 2))]
    records[-2:] = [record.model_copy(update={"pixels": "whole"}) for record in records[-2:]]
    splits = assign(records, {}, SplitSettings()).splits
    assert splits["q1"] == splits["q2"]


@pytest.mark.parametrize("known", ["study-p0002", "pixels-p0002-p0002/ct", "p0002"])
def test_a_study_or_picture_seen_before_decides_for_a_new_patient_number(known: str) -> None:
    record = series("p0002", study="study-p0002", pixels="pixels-p0002-p0002/ct")
    assert (
        assign([*patients(2), record], {known: Split.VALIDATION}, SplitSettings()).splits["p0002"] == Split.VALIDATION
    )


def test_the_table_decides_for_new_patients() -> None:
    records = [series(f"p{number:04d}", asked=Split.TEST if number < 3 else None) for number in range(6)]
    splits = assign(records, {}, SplitSettings()).splits
    assert {patient for patient, split in splits.items() if split == Split.TEST} == {"p0000", "p0001", "p0002"}


def test_a_patient_in_two_splits_by_the_table_is_refused() -> None:
    records = [series("p0000", source="one", asked=Split.TRAIN), series("p0000", source="two", asked=Split.TEST)]
    with pytest.raises(DataError, match=r"two splits for one patient: train for one and test for two"):
        assign([*patients(3)[1:], *records], {}, SplitSettings())


def test_the_table_cannot_move_a_known_patient() -> None:
    records = [series("p0000", asked=Split.TRAIN), *patients(3)[1:]]
    with pytest.raises(DataError, match=r"asks for train for p0000/ct, .*has been in test"):
        assign(records, {"p0000": Split.TEST}, SplitSettings())


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("PatientID", "have one and the same PatientID"),
        ("folder", r"belong to one patient \(folder\)"),
        ("patients.csv", r"patients\.csv gives all 4"),
    ],
)
def test_one_patient_for_all_is_refused_with_its_true_reason_and_the_way_out(rule: str, told: str) -> None:
    records = [series("p", study=f"study-{n}", source=f"{n}", patient_by=rule) for n in range(4)]
    with pytest.raises(DataError, match=rf"{told}.* say who is who in patients\.csv"):
        assign(records, {}, SplitSettings())
