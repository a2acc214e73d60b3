"""Which patient is trained on, validated on, tested on: decided once, kept for ever.

A patient's split is written to the bucket at first sight and never changes, so the test set stays frozen and models of
different times stay comparable. Patients who share a study or have the same pixels are one person under several
numbers; they go together. Studies and pixels are remembered too: a file that was renamed, or a patient whose number was
corrected, stays where it was.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from boneseg.dataset.manifest import Dataset, ShardRecord
from boneseg.errors import DataError, OneSeriesError, RecordError
from boneseg.settings.schema import Split, SplitSettings
from boneseg.storage import layout
from boneseg.storage.catalogue import ToldBy
from boneseg.storage.client import ObjectStore
from boneseg.storage.hashing import combine
from boneseg.storage.records import Record

log = logging.getLogger(__name__)

STRONGEST = (Split.TEST, Split.VALIDATION, Split.TRAIN)
"""Who was in two splits by earlier runs belongs to the first of these."""


class SplitState(Record):
    """What is decided, as the bucket keeps it."""

    known: dict[str, Split]
    """Split of every patient key, study key and pixel hash ever seen."""


@dataclass(frozen=True)
class Assignment:
    """What was decided.

    Attributes:
        splits: patient key -> split.
        left_out: name of a shard -> why it must not be used.
    """

    splits: dict[str, Split]
    left_out: dict[str, str] = field(default_factory=dict)


def decide_splits(store: ObjectStore, records: Sequence[ShardRecord], settings: SplitSettings) -> Assignment:
    """Decide the split of every patient and write it to the bucket, where others may do so at the same time.

    Raises:
        DataError: see ``assign``.
        RecordError: the state in the bucket is damaged, and so is a dataset by which it could be made anew; guessing
            would move patients.
    """
    made: list[Assignment] = []

    def change(data: bytes | None) -> bytes:
        # Decided on what is there now: another run may have placed the same patients a moment ago.
        state, intact = _read_state(store, data)
        made[:] = [assign(records, state.known, settings)]
        used = [record for record in records if record.shard not in made[0].left_out]
        now = {trait: made[0].splits[record.patient] for record in used for trait in traits(record)}
        kept = SplitState(known=now | state.known)
        return data if data is not None and intact and kept == state else kept.to_json()

    store.update(layout.SPLITS_STATE, change, "application/json")
    return made[0]


def assign(records: Sequence[ShardRecord], frozen: Mapping[str, Split], settings: SplitSettings) -> Assignment:
    """Decide the split of every patient.

    Known patients keep theirs. New ones, in the order of a hash of their pixels, first fill the test set up to its
    share of all patients (at least one), then validation (at least one, from three patients on), and the rest is
    trained on (at least one). Keys of patients depend on a bucket's secret, pixels do not: the same data is split in
    the same way everywhere.

    Earlier runs may have taken one person for two and put them into two splits. Then test counts before validation
    before training, and the person's series of the other splits are left out.

    Args:
        records: all usable series; ``asked`` is what the table of patients asks for.
        frozen: ``SplitState.known`` of earlier runs.
        settings: shares.

    Raises:
        DataError: the table of patients contradicts itself or an earlier run, or there are too few patients.
    """
    people = group_people(records)
    decided: dict[str, Split] = {}
    left_out: dict[str, str] = {}
    new: list[str] = []
    absent: set[str] = set()
    for person, members in people.items():
        split = _decided(members, frozen)
        if split is None:
            new.append(person)
            continue
        decided[person] = split
        reasons = _elsewhere(members, split, frozen)
        left_out |= reasons
        if len(reasons) == len({record.shard for record in members}):
            absent.add(person)
    if len(people) < 2 and settings.test > 0 and new:
        raise (OneSeriesError if len(records) == 1 else DataError)(_one_patient(records))
    new.sort(key=lambda person: combine(sorted(record.pixel_hash for record in people[person])))
    decided |= _fill(new, Counter(split for person, split in decided.items() if person not in absent), settings)
    if not any(split == Split.TRAIN for person, split in decided.items() if person not in absent):
        raise DataError("no patient is left to train on; add patients, or change what patients.csv asks for")
    splits = {record.patient: decided[person] for person, members in people.items() for record in members}
    return Assignment(splits, left_out)


def traits(record: ShardRecord) -> tuple[str, ...]:
    """Return what tells a person: keys of patient and study, hashes of the pixels, keys of copies."""
    found = (record.patient, record.study, record.pixel_hash, record.pixels, *record.links)
    return tuple(trait for trait in found if trait)


def group_people(records: Sequence[ShardRecord]) -> dict[str, list[ShardRecord]]:
    """Group series by person: the same patient key, the same study or the same pixels.

    Returns:
        Smallest patient key of each person -> series, in a fixed order.
    """
    parent = {record.patient: record.patient for record in records}

    def find(patient: str) -> str:
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    first: dict[str, str] = {}
    for record in records:
        for link in traits(record):
            one, other = find(record.patient), find(first.setdefault(link, record.patient))
            parent[max(one, other)] = min(one, other)
    people: dict[str, list[ShardRecord]] = {}
    for record in sorted(records, key=lambda record: (record.patient, record.source)):
        people.setdefault(find(record.patient), []).append(record)
    return people


def _read_state(store: ObjectStore, data: bytes | None) -> tuple[SplitState, bool]:
    """Return what is decided, and whether it was read; else it is made anew."""
    if data is None:
        return SplitState(known={}), True
    try:
        return SplitState.read(data, store.uri(layout.SPLITS_STATE), "it is made anew from the datasets so far"), True
    except RecordError as error:
        log.warning("%s", error)
        return SplitState(known=_known_from_datasets(store)), False


def _known_from_datasets(store: ObjectStore) -> dict[str, Split]:
    """Return what the datasets of the bucket say; whoever is in none of them was never trained or tested on."""
    known: dict[str, Split] = {}
    remedy = (
        f"patients' splits are damaged too and cannot be made anew without it: restore one of the two, or remove "
        f"both with 'boneseg store remove {layout.SPLITS_STATE}' and 'boneseg store remove' this one, and accept "
        "that its patients may change their splits"
    )
    for item in store.list("datasets/"):
        if not item.key.endswith("/dataset.json"):
            continue
        dataset = Dataset.read(store.read(item.key), store.uri(item.key), remedy)
        trained = {record.shard for record in dataset.of(Split.TRAIN)}
        for entry in dataset.entries:
            if entry.split == Split.VALIDATION and entry.shard.shard in trained:  # lent, for want of patients
                continue
            for trait in traits(entry.shard):
                known[trait] = _strongest({entry.split, known.get(trait, entry.split)}) or entry.split
    return known


def _decided(members: Sequence[ShardRecord], frozen: Mapping[str, Split]) -> Split | None:
    """Return the split that earlier runs or the table give to a person, none for somebody new."""
    asked: dict[Split, str] = {}
    for record in members:
        if record.asked is not None:
            asked.setdefault(record.asked, record.source)
    if len(asked) > 1:
        places = " and ".join(f"{split} for {source}" for split, source in asked.items())
        raise DataError(f"patients.csv asks for two splits for one patient: {places}; keep one of the two")
    known = _strongest({frozen[trait] for record in members for trait in traits(record) if trait in frozen})
    if asked and known is not None and known not in asked:
        wanted, source = next(iter(asked.items()))
        raise DataError(
            f"patients.csv asks for {wanted} for {source}, but this patient has been in {known} since an earlier run; "
            f"change the line, or give up the frozen test set with 'boneseg store remove {layout.SPLITS_STATE}'"
        )
    return known if known is not None else next(iter(asked), None)


def _elsewhere(members: Sequence[ShardRecord], split: Split, frozen: Mapping[str, Split]) -> dict[str, str]:
    """Return the series that earlier runs put into another split than the person's, and why they are left out."""
    found = {}
    for record in members:
        own = _own(record, frozen)
        if own is not None and own != split:
            found[record.shard] = (
                f"an earlier run put this series into {own}, but the same person is in {split}: it is left out, so "
                "that nobody is in two splits"
            )
    return found


def _own(record: ShardRecord, frozen: Mapping[str, Split]) -> Split | None:
    """Return the split in which earlier runs saw this very series: pixels tell before study before patient."""
    for group in ((record.pixel_hash, record.pixels), (record.study,), (record.patient,)):
        known = _strongest({frozen[trait] for trait in group if trait in frozen})
        if known is not None:
            return known
    return None


def _strongest(splits: Collection[Split]) -> Split | None:
    return next((split for split in STRONGEST if split in splits), None)


def _one_patient(records: Sequence[ShardRecord]) -> str:
    """Say why all series count as one patient, and what to do."""
    rules = {record.patient_by for record in records}
    count = len(records)
    if count == 1:
        why = "there is only one usable series, whose patient"
    elif len({record.patient for record in records}) > 1:
        why = f"all {count} usable series are linked by study or pixels, so they count as one patient, who"
    elif rules == {ToldBy.PATIENT_ID}:
        why = f"all {count} usable series have one and the same PatientID, so they count as one patient, who"
    elif rules == {ToldBy.TABLE}:
        why = f"patients.csv gives all {count} usable series to one patient, who"
    else:
        why = f"all {count} usable series belong to one patient ({', '.join(sorted(rules - {''}))}), who"
    apart = "" if count == 1 else "say who is who in patients.csv beside the series (columns series, patient), "
    return f"{why} cannot be both trained and tested on; {apart}add a second patient, or set prepare.splits.test=0"


def _fill(new: Sequence[str], counts: Counter[Split], settings: SplitSettings) -> dict[str, Split]:
    """Give new people, in their order, a split so that shares over all are kept as nearly as whole people allow."""
    total = len(new) + counts.total()
    waiting = list(reversed(new))
    wanted = {
        Split.TEST: _share(settings.test, total),
        Split.VALIDATION: _share(settings.validation, total) if total >= 3 else 0,
    }
    decided: dict[str, Split] = {}
    reserve = 1 if counts[Split.TRAIN] == 0 else 0
    for split, number in wanted.items():
        for _ in range(number - counts[split]):
            if len(waiting) > reserve:
                decided[waiting.pop()] = split
    return decided | dict.fromkeys(waiting, Split.TRAIN)


def _share(share: float, total: int) -> int:
    return max(1, math.floor(share * total + 0.5)) if share > 0 else 0
