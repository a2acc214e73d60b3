"""Which patient is trained on, validated on, tested on: decided once, kept for ever.

A patient's split is written to the bucket at first sight and never changes, so the test set stays frozen and models of
different times stay comparable. Patients who share a study or have the same pixels are one person under several
numbers; they go together. Studies and pixels are remembered too: a file that was renamed, or a patient whose number was
corrected, stays where it was.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from boneseg.dataset.manifest import ShardRecord
from boneseg.errors import DataError
from boneseg.settings.schema import Split, SplitSettings
from boneseg.storage import layout
from boneseg.storage.hashing import combine, pseudonym
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace

COLUMNS = {"series", "patient", "split"}


class SplitState(Record):
    """What is decided, as the bucket keeps it."""

    known: dict[str, Split]
    """Split of every patient key, study key and pixel hash ever seen."""


@dataclass(frozen=True)
class Override:
    """One line of the override file.

    Attributes:
        line: its number, for messages.
        series: start of ``SeriesRow.source``; end it with a slash to mean one folder.
        patient: key that stands for the patient given, none = as the files say.
        split: split given, none = as decided here.
    """

    line: int
    series: str
    patient: str | None
    split: Split | None


def read_overrides(path: Path | None, sources: Iterable[str], secret: bytes) -> list[Override]:
    """Read the override file.

    Args:
        path: CSV with the columns ``series``, and ``patient`` or ``split`` or both; none = no overrides.
        sources: of all series in the catalogue; a line that fits none of them is a mistake.
        secret: of the keyed hash: patients given here are known by the hash alone, as those in files are.

    Raises:
        DataError: the file cannot be read, or a line is wrong.
    """
    if path is None:
        return []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = set(reader.fieldnames or ())
            lines = [(reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot read the split override ({error}); correct prepare.splits.override") from error
    if "series" not in columns or not columns & {"patient", "split"} or not columns <= COLUMNS:
        raise DataError(f"{path}: the first line must name the columns series, and patient or split or both")
    known = list(sources)
    return [_parse(path, number, line, known, secret) for number, line in lines if any(line.values())]


def override_for(source: str, overrides: Sequence[Override]) -> Override | None:
    """Return the line that applies to a series: the one with the longest fitting start."""
    fitting = [override for override in overrides if source.startswith(override.series)]
    return max(fitting, key=lambda override: len(override.series), default=None)


def load_state(workspace: Workspace) -> SplitState:
    """Read the splits decided so far.

    Raises:
        RecordError: the state in the bucket is damaged; guessing would move patients.
    """
    text = workspace.store.read_if_there(layout.SPLITS_STATE)
    if text is None:
        return SplitState(known={})
    uri = workspace.store.uri(layout.SPLITS_STATE)
    return SplitState.read(text, uri, "restore it, or delete it and accept a new test set")


def assign(
    records: Sequence[ShardRecord],
    frozen: Mapping[str, Split],
    settings: SplitSettings,
    overrides: Sequence[Override] = (),
) -> dict[str, Split]:
    """Decide the split of every patient.

    Known patients keep theirs. New ones, in the order of a hash of their pixels, first fill the test set up to its
    share of all patients (at least one), then validation (at least one, from three patients on), and the rest is
    trained on (at least one). Keys of patients depend on a bucket's secret, pixels do not: the same data is split in
    the same way everywhere.

    Args:
        records: all usable series; their ``patient`` already follows the overrides.
        frozen: ``SplitState.known`` of earlier runs.
        settings: shares.
        overrides: lines of the override file.

    Returns:
        Patient key -> split, for the patients of ``records``.

    Raises:
        DataError: an override contradicts another or an earlier run, a person is in two splits, or there are too few
            patients.
    """
    people = group_people(records)
    decided: dict[str, Split] = {}
    new: list[str] = []
    for person, members in people.items():
        split = _decided(members, frozen, overrides)
        if split is None:
            new.append(person)
        else:
            decided[person] = split
    if len(people) < 2 and settings.test > 0 and new:
        raise DataError(
            "all usable series belong to one patient, who cannot be both trained and tested on; add a second patient, "
            "or set prepare.splits.test=0"
        )
    new.sort(key=lambda person: combine(sorted(record.pixel_hash for record in people[person])))
    decided |= _fill(new, Counter(decided.values()), settings)
    if Split.TRAIN not in decided.values():
        raise DataError("no patient is left to train on; add patients or change prepare.splits.override")
    return {record.patient: decided[person] for person, members in people.items() for record in members}


def traits(record: ShardRecord) -> tuple[str, str, str]:
    """Return what tells a person: keys of patient and study, hash of the pixels."""
    return record.patient, record.study, record.pixel_hash


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


def _decided(
    members: Sequence[ShardRecord], frozen: Mapping[str, Split], overrides: Sequence[Override]
) -> Split | None:
    """Return the split that earlier runs or overrides give to a person, none for somebody new."""
    given: dict[Split, str] = {}
    for record in members:
        override = override_for(record.source, overrides)
        if override is not None and override.split is not None:
            given.setdefault(override.split, f"line {override.line} ({record.source})")
    if len(given) > 1:
        places = " and ".join(f"{split} by {place}" for split, place in given.items())
        raise DataError(f"prepare.splits.override puts one patient into two splits: {places}; keep one of the two")
    known = {frozen[trait]: record.source for record in members for trait in traits(record) if trait in frozen}
    if len(known) > 1:
        places = " and ".join(f"{source} ({split})" for split, source in known.items())
        raise DataError(f"{places} are one person by study or pixels, but in two splits since earlier runs; remove one")
    split = next(iter(known), None)
    if given and split is not None and split not in given:
        wanted, place = next(iter(given.items()))
        raise DataError(
            f"prepare.splits.override asks for {wanted} in {place}, but this patient has been in {split} since an "
            f"earlier run; change the line, or delete {layout.SPLITS_STATE} in the bucket and accept a new test set"
        )
    return split if split is not None else next(iter(given), None)


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


def _parse(path: Path, number: int, line: Mapping[str, str | None], sources: Sequence[str], secret: bytes) -> Override:
    series = (line.get("series") or "").strip()
    patient = (line.get("patient") or "").strip()
    split = (line.get("split") or "").strip().lower()
    if not series or not any(source.startswith(series) for source in sources):
        raise DataError(f"{path}, line {number}: no series in the bucket starts with {series!r}; correct or remove it")
    if split and split not in list(Split):
        raise DataError(f"{path}, line {number}: split {split!r} must be {', '.join(Split)} or empty")
    return Override(
        line=number,
        series=series,
        patient=pseudonym(secret, "patient", patient) if patient else None,
        split=Split(split) if split else None,
    )
