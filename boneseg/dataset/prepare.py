"""From a catalogue to a dataset: every labelled series becomes a shard, every patient gets a split."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from boneseg.dataset.make_shards import Prepared, Task, make_shards, shard_name
from boneseg.dataset.manifest import Dataset, DatasetEntry, ShardRecord
from boneseg.dataset.shards import find_shard
from boneseg.dataset.splits import Assignment, decide_splits, group_people
from boneseg.errors import DataError, RecordError
from boneseg.ingest.clean import clean_bucket
from boneseg.ingest.concealed import with_file_tokens
from boneseg.ingest.known import KnownObjects
from boneseg.ingest.patient_table import carry_overrides, check_table, load_table
from boneseg.ingest.patients import with_table
from boneseg.safe_csv import csv_text
from boneseg.scheme import BONE_SCHEME, Labelling, LabelScheme
from boneseg.settings.schema import PrepareSettings, Split
from boneseg.storage import layout
from boneseg.storage.catalogue import Catalogue, ObjectRef, Problem, SeriesRow, patients_sentence
from boneseg.storage.pseudonyms import TOKEN, Names, load_names, restore, save_names
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace

LOOKUPS = 16
"""Shards looked for in the bucket at the same time."""
SHOWN_REASONS = 3

_IDENTITY = ("source", "patient", "study", "patient_by", "asked", "pixels", "links")

log = logging.getLogger(__name__)


class PrepareResult(Record):
    """What prepare made."""

    dataset_hash: str
    dataset_uri: str
    test_hash: str
    series: dict[str, int]
    """Split -> series."""
    slices: dict[str, int]
    """Split -> slices."""
    made: int
    """Shards made now."""
    reused: int
    """Shards that were in the bucket already."""
    problems: tuple[Problem, ...]
    patients: str = ""
    """How patients were told apart, in a sentence."""


def prepare(
    workspace: Workspace, catalogue_uri: str, settings: PrepareSettings, scheme: LabelScheme = BONE_SCHEME
) -> PrepareResult:
    """Make a dataset of all labelled series of a catalogue.

    A series whose shard is in the bucket is not read again. What cannot be used is left out and named, with its
    reason, in ``qc.csv`` beside the dataset. Run again after an interruption, it goes on where it was. On a cluster the
    series go to its nodes; the dataset is the same.

    Args:
        workspace: bucket and local folder.
        catalogue_uri: from ``pull``.
        settings: label map, tolerances, splits, parallelism.
        scheme: the classes; goes into the dataset.

    Raises:
        DataError: no series can be used, or the splits contradict each other; see ``splits.assign``.
        StoreError: the object store does not answer.
    """
    clean_bucket(workspace)
    names = Names(workspace.patient_secret())
    state = KnownObjects(workspace.store, workspace.private, workspace.patient_secret())
    catalogue = _with_overrides(workspace, _load_catalogue(workspace, catalogue_uri), settings.splits.override, state)
    labelled = [row for row in catalogue.series if row.label is not None]
    ready = _find_shards(workspace, labelled, settings, scheme)
    missing = [row for row, record in zip(labelled, ready, strict=True) if record is None]
    made = list(make_shards(workspace, _tasks(workspace, missing, names, state), settings, scheme))
    given = dict(pair for item in made for pair in item.names.items())
    save_names(workspace.store, workspace.private, given | _mentioned(made, names))
    records = _in_order(
        [*(record for record in ready if record), *(item.record for item in made if item.record)], labelled
    )
    found = (*catalogue.problems, *_problems(catalogue, made, records))
    problems = tuple(sorted(found, key=lambda problem: not problem.fatal))  # what costs data first, else as they come
    if not records:
        raise DataError(_nothing_usable(catalogue, labelled, made))
    assignment = decide_splits(workspace.store, records, settings.splits)
    entries, notes = _entries(records, assignment)
    fingerprint = PurePosixPath(catalogue_uri).stem
    dataset = Dataset.made_of(fingerprint, entries, (*problems, *notes), scheme)
    uri = _write(workspace, dataset)
    count = sum(item.record is not None for item in made)
    return _result(dataset, uri, made=count, reused=len(records) - count)


def _load_catalogue(workspace: Workspace, uri: str) -> Catalogue:
    text = workspace.store.read_if_there(workspace.store.key(uri))
    if text is None:
        raise DataError(f"{uri} is not there; make the catalogue with 'boneseg pull'")
    remedy = "make it again with 'boneseg pull'"
    catalogue = Catalogue.read(text, uri, remedy)
    if catalogue.fingerprint not in ("", PurePosixPath(uri).stem):
        raise RecordError(f"{uri} was changed after it was written; {remedy}")
    return catalogue


def _with_overrides(workspace: Workspace, catalogue: Catalogue, path: Path | None, state: KnownObjects) -> Catalogue:
    """Put a local table of patients in place, where pull has not done so already."""
    if carry_overrides(workspace.store, workspace.private, path) is None:
        return catalogue
    lines, overrides_hash = load_table(workspace.store, workspace.raw_prefix, workspace.private)
    if overrides_hash == catalogue.overrides_hash:
        return catalogue
    table = load_names(workspace.store, workspace.private)
    check_table(lines, [key.removeprefix(workspace.raw_prefix) for key in state.load()])
    paths = [restore(row.source, table) for row in catalogue.series]
    if any(TOKEN.fullmatch(path) for path in paths):
        raise RecordError("the names of series were lost since the last pull; run 'boneseg pull' again")
    rows = with_table(catalogue.series, paths, lines, workspace.patient_secret())
    return catalogue.model_copy(update={"series": tuple(rows), "overrides_hash": overrides_hash})


def _find_shards(
    workspace: Workspace, rows: Sequence[SeriesRow], settings: PrepareSettings, scheme: LabelScheme
) -> list[ShardRecord | None]:
    def find(row: SeriesRow) -> ShardRecord | None:
        record = find_shard(workspace, shard_name(row, settings, scheme))
        # The same series may lie in another folder by now, or belong to a patient whose number was corrected.
        identity = {name: getattr(row, name) for name in _IDENTITY}
        return None if record is None else record.model_copy(update=identity)

    with ThreadPoolExecutor(LOOKUPS) as pool:
        return list(pool.map(find, rows))


def _tasks(workspace: Workspace, rows: Sequence[SeriesRow], names: Names, state: KnownObjects) -> list[Task]:
    """Find the raw objects of series by their content; messages name them by stand-ins."""
    if not rows:
        return []
    objects, secret = state.by_content(), workspace.patient_secret()
    paths = {sha256: ref.key.removeprefix(workspace.raw_prefix) for sha256, ref in objects.items()}
    tasks = []
    for row in rows:
        wanted = [*row.objects, *(row.label.objects if row.label is not None else ())]
        raw: dict[str, ObjectRef] = {ref.sha256: objects[ref.sha256] for ref in wanted if ref.sha256 in objects}
        tasks.append(Task(with_file_tokens(row, names, paths), raw, secret))
    return tasks


def _mentioned(made: Iterable[Prepared], names: Names) -> dict[str, str]:
    """Return the names behind the stand-ins of files that reasons and warnings mention."""
    texts = [text for item in made for text in (item.reason, *(item.record.warnings if item.record else ()))]
    return {token: names.given[token] for text in texts for token in TOKEN.findall(text) if token in names.given}


def _in_order(records: Sequence[ShardRecord], rows: Sequence[SeriesRow]) -> list[ShardRecord]:
    """Return records in the order of the catalogue: equal data gives equal datasets, whatever is done first."""
    place = {row.series: index for index, row in enumerate(rows)}
    return sorted(records, key=lambda record: place[record.series])


def _problems(catalogue: Catalogue, made: Iterable[Prepared], records: Iterable[ShardRecord]) -> list[Problem]:
    refused = [Problem(source=item.row.source, reason=item.reason) for item in made if item.record is None]
    for problem in refused:
        log.warning("%s is left out: %s", problem.source, problem.reason)
    unlabelled = [
        Problem(source=row.source, reason="no label; put one beside it to use the series", fatal=False)
        for row in catalogue.series
        if row.label is None
    ]
    odd = [
        Problem(source=record.source, reason=warning, fatal=False) for record in records for warning in record.warnings
    ]
    return sorted([*refused, *unlabelled, *odd], key=lambda problem: (not problem.fatal, problem.source))


def _nothing_usable(catalogue: Catalogue, labelled: Sequence[SeriesRow], made: Sequence[Prepared]) -> str:
    if not catalogue.series:
        found = "; ".join(f"{problem.source}: {problem.reason}" for problem in catalogue.problems[:SHOWN_REASONS])
        return f"the bucket holds no usable CT series ({found or 'it is empty below store.raw_prefix'}); add series"
    if not labelled:
        return f"none of {len(catalogue.series)} series has a label; put a NIfTI, DICOM SEG or RTSTRUCT beside each"
    refused = sorted(made, key=lambda item: item.row.source)
    reasons = "; ".join(f"{item.row.source}: {item.reason}" for item in refused[:SHOWN_REASONS])
    more = f" (and {len(made) - SHOWN_REASONS} more)" if len(made) > SHOWN_REASONS else ""
    return f"all {len(labelled)} labelled series were refused, so nothing is left to train on: {reasons}{more}"


def _entries(records: Sequence[ShardRecord], assignment: Assignment) -> tuple[tuple[DatasetEntry, ...], list[Problem]]:
    """Put series into their splits; without a validation patient, the training series serve to choose the epoch."""
    used = [record for record in records if record.shard not in assignment.left_out]
    entries = [DatasetEntry(split=assignment.splits[record.patient], shard=record) for record in used]
    notes = [
        Problem(source=record.source, reason=assignment.left_out[record.shard])
        for record in records
        if record.shard in assignment.left_out
    ]
    for members in group_people(used).values():
        if len({record.patient for record in members}) > 1:
            places = ", ".join(record.source for record in members)
            reason = f"{places} are one person by study or pixels and share a split"
            notes.append(Problem(source=members[0].source, reason=reason, fatal=False))
    present = {entry.split for entry in entries}
    if Split.VALIDATION not in present:
        training = [entry.shard for entry in entries if entry.split == Split.TRAIN]
        entries += [DatasetEntry(split=Split.VALIDATION, shard=record) for record in training]
        reason = "no patient is left to validate on, so the best epoch is chosen on the training series; add patients"
        notes.append(Problem(source="validation", reason=reason, fatal=False))
    if Split.TEST not in present:
        reason = "no patient is in the test set, so nothing can be evaluated; add patients"
        notes.append(Problem(source="test", reason=reason, fatal=False))
    return tuple(sorted(entries, key=lambda entry: entry.split)), notes


def _value_names(labelling: Labelling) -> list[str]:
    names = labelling.scheme.names
    return [*names, *(" or ".join(names[value] for value in classes) for classes in labelling.sets)]


def _write(workspace: Workspace, dataset: Dataset) -> str:
    """Write the tables, then the record that makes the dataset count as there."""
    labelling = dataset.labelling
    index = [("split", "shard", "source", "slice", *_value_names(labelling))]
    for entry in dataset.entries:
        index += [
            (entry.split.value, entry.shard.shard, entry.shard.source, str(number), *map(str, counts))
            for number, counts in enumerate(entry.shard.counts_in(labelling))
        ]
    quality = [("source", "reason", "fatal")]
    quality += [(problem.source, problem.reason, str(problem.fatal).lower()) for problem in dataset.problems]
    for name, rows in (("index.csv", index), ("qc.csv", quality)):
        workspace.store.write(layout.dataset(dataset.dataset_hash, name), csv_text(rows).encode(), "text/csv")
    return workspace.store.write(layout.dataset(dataset.dataset_hash), dataset.to_json(), "application/json")


def _result(dataset: Dataset, uri: str, made: int, reused: int) -> PrepareResult:
    series: Counter[str] = Counter(dict.fromkeys(map(str, Split), 0))
    slices = series.copy()
    for entry in dataset.entries:
        series[entry.split.value] += 1
        slices[entry.split.value] += len(entry.shard.class_counts)
    return PrepareResult(
        dataset_hash=dataset.dataset_hash,
        dataset_uri=uri,
        test_hash=dataset.test_hash,
        series=dict(series),
        slices=dict(slices),
        made=made,
        reused=reused,
        problems=dataset.problems,
        patients=patients_sentence((entry.shard.patient, entry.shard.patient_by) for entry in dataset.entries),
    )
