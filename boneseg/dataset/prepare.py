"""From a catalogue to a dataset: every labelled series becomes a shard, every patient gets a split."""

from __future__ import annotations

import csv
import io
import logging
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import cv2

from boneseg.dataset.manifest import Dataset, DatasetEntry, ShardRecord
from boneseg.dataset.shards import find_shard, save_shard
from boneseg.dataset.splits import (
    Override,
    SplitState,
    assign,
    group_people,
    load_state,
    override_for,
    read_overrides,
    traits,
)
from boneseg.errors import DataError, LabelError, SeriesError
from boneseg.ingest.read import read_labelled
from boneseg.machine import cpus
from boneseg.progress import track
from boneseg.scheme import CLASSES
from boneseg.settings import identities
from boneseg.settings.schema import PrepareSettings, Split
from boneseg.storage import layout
from boneseg.storage.cache import Cache
from boneseg.storage.catalogue import Catalogue, Problem, SeriesRow
from boneseg.storage.hashing import combine
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace

PREPARE_VERSION = "1"
"""Raise it when the same series would become another shard: old shards are then made again."""
LOOKUPS = 16
"""Shards looked for in the bucket at the same time."""
SHOWN_REASONS = 3

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


@dataclass(frozen=True)
class Prepared:
    """What became of one series: a shard, or the reason why there is none."""

    row: SeriesRow
    record: ShardRecord | None
    reason: str = ""


def prepare(workspace: Workspace, catalogue_uri: str, settings: PrepareSettings) -> PrepareResult:
    """Make a dataset of all labelled series of a catalogue.

    A series whose shard is in the bucket is not read again. What cannot be used is left out and named, with its
    reason, in ``qc.csv`` beside the dataset. Run again after an interruption, it goes on where it was.

    Args:
        workspace: bucket and local folder.
        catalogue_uri: from ``pull``.
        settings: label map, tolerances, splits, parallelism.

    Raises:
        DataError: no series can be used, or the splits contradict each other; see ``splits.assign``.
        StoreError: the object store does not answer.
    """
    catalogue = _load_catalogue(workspace, catalogue_uri)
    secret = workspace.patient_secret()
    sources = [row.source for row in catalogue.series]
    overrides = read_overrides(settings.splits.override, sources, secret)
    labelled = [row for row in catalogue.series if row.label is not None]
    ready = _find_shards(workspace, labelled, settings)
    missing = [row for row, record in zip(labelled, ready, strict=True) if record is None]
    made = list(_make_shards(workspace, missing, settings))
    records = [record for record in ready if record is not None] + [item.record for item in made if item.record]
    records = sorted((_overridden(record, overrides) for record in records), key=lambda record: record.source)
    problems = (*catalogue.problems, *_problems(catalogue, made, records))
    if not records:
        raise DataError(_nothing_usable(catalogue, labelled, made))
    state = load_state(workspace)
    splits = assign(records, state.known, settings.splits, overrides)
    now = {trait: splits[record.patient] for record in records for trait in traits(record)}
    kept = SplitState(known=state.known | now)
    if kept != state:
        workspace.store.write(layout.SPLITS_STATE, kept.to_json(), "application/json")
    entries, notes = _entries(records, splits)
    fingerprint = PurePosixPath(catalogue_uri).stem
    dataset = _dataset(fingerprint, entries, (*problems, *notes))
    uri = _write(workspace, dataset)
    count = sum(item.record is not None for item in made)
    return _result(dataset, uri, made=count, reused=len(records) - count)


def shard_name(row: SeriesRow, settings: PrepareSettings) -> str:
    """Return the name of a series' shard: it tells, without reading the series, whether the shard is there already."""
    assert row.label is not None
    label = (row.label.kind.value, row.label.content)
    how = identities.PREPARE.hash(settings.model_dump(mode="json"))
    return combine([row.series, *label, how, PREPARE_VERSION])


def prepare_series(workspace: Workspace, settings: PrepareSettings, row: SeriesRow) -> Prepared:
    """Make the shard of one labelled series.

    Bad data is a reason, not an exception. So is an error nobody foresaw: one odd file must not keep a thousand good
    series waiting.
    """
    try:
        series = read_labelled(Cache(workspace.cache, workspace.store).fetch, row, settings)
    except (SeriesError, LabelError) as error:
        return Prepared(row, None, str(error))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        log.debug("%s", row.source, exc_info=True)
        return Prepared(row, None, f"cannot be read ({type(error).__name__}); look at it with 'prepare --debug'")
    record = save_shard(
        workspace,
        shard_name(row, settings),
        row,
        series.hu,
        series.label,
        series.geometry,
        series.outline_computed,
        series.warnings,
    )
    return Prepared(row, record)


def _load_catalogue(workspace: Workspace, uri: str) -> Catalogue:
    text = workspace.store.read_if_there(workspace.store.key(uri))
    if text is None:
        raise DataError(f"{uri} is not there; make the catalogue with 'boneseg pull'")
    return Catalogue.read(text, uri, "make it again with 'boneseg pull'")


def _find_shards(
    workspace: Workspace, rows: Sequence[SeriesRow], settings: PrepareSettings
) -> list[ShardRecord | None]:
    def find(row: SeriesRow) -> ShardRecord | None:
        record = find_shard(workspace, shard_name(row, settings))
        # The same series may lie in another folder by now, or belong to a patient whose number was corrected.
        identity = {"source": row.source, "patient": row.patient, "study": row.study}
        return None if record is None else record.model_copy(update=identity)

    with ThreadPoolExecutor(LOOKUPS) as pool:
        return list(pool.map(find, rows))


def _make_shards(workspace: Workspace, rows: Sequence[SeriesRow], settings: PrepareSettings) -> Iterator[Prepared]:
    """Prepare series in processes of their own, in the order in which they are done."""
    workers = min(settings.parallel or cpus(), len(rows))
    work = partial(prepare_series, workspace, settings)
    if workers <= 1:
        yield from track(map(work, rows), "prepare", total=len(rows))
        return
    # Forked from a server without threads, which has imported all that a worker needs: neither inherited locks nor
    # seconds of imports in each worker.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, _start_worker) as pool:
        try:
            with _interrupt_held_back():
                futures = [pool.submit(work, row) for row in rows]
            for future in track(as_completed(futures), "prepare", total=len(rows)):
                yield future.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a process that prepared series was killed, probably for want of memory; lower prepare.parallel and "
                "run again: what is done is kept"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Let Ctrl-C wait while processes are started: one that is started by half would stay for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupts: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if interrupts:
            raise KeyboardInterrupt


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(0)


def _end_with_parent() -> None:
    """End this process when the one that started it was killed and can no longer do so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _overridden(record: ShardRecord, overrides: Sequence[Override]) -> ShardRecord:
    override = override_for(record.source, overrides)
    if override is None or override.patient is None:
        return record
    return record.model_copy(update={"patient": override.patient})


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
        return f"none of {len(catalogue.series)} series has a label; put a NIfTI or DICOM SEG label beside each"
    reasons = "; ".join(f"{item.row.source}: {item.reason}" for item in made[:SHOWN_REASONS])
    more = f" (and {len(made) - SHOWN_REASONS} more)" if len(made) > SHOWN_REASONS else ""
    return f"all {len(labelled)} labelled series were refused, so nothing is left to train on: {reasons}{more}"


def _entries(
    records: Sequence[ShardRecord], splits: dict[str, Split]
) -> tuple[tuple[DatasetEntry, ...], list[Problem]]:
    """Put series into their splits; without a validation patient, the training series serve to choose the epoch."""
    entries = [DatasetEntry(split=splits[record.patient], shard=record) for record in records]
    notes = []
    for members in group_people(records).values():
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
    return tuple(sorted(entries, key=lambda entry: (entry.split, entry.shard.source))), notes


def _dataset(fingerprint: str, entries: tuple[DatasetEntry, ...], problems: tuple[Problem, ...]) -> Dataset:
    members = sorted(f"{entry.split} {entry.shard.shard}" for entry in entries)
    tested = [member for member in members if member.startswith(Split.TEST)]
    return Dataset(
        dataset_hash=combine([*CLASSES, *members]),
        test_hash=combine([*CLASSES, *tested]),
        fingerprint=fingerprint,
        entries=entries,
        problems=problems,
    )


def _write(workspace: Workspace, dataset: Dataset) -> str:
    """Write the tables, then the record that makes the dataset count as there."""
    index = [("split", "shard", "source", "slice", *CLASSES)]
    for entry in dataset.entries:
        index += [
            (entry.split.value, entry.shard.shard, entry.shard.source, str(number), *map(str, counts))  # type: ignore[misc]
            for number, counts in enumerate(entry.shard.class_counts)
        ]
    quality = [("source", "reason", "fatal")]
    quality += [(problem.source, problem.reason, str(problem.fatal).lower()) for problem in dataset.problems]
    for name, rows in (("index.csv", index), ("qc.csv", quality)):
        workspace.store.write(layout.dataset(dataset.dataset_hash, name), _csv(rows), "text/csv")
    return workspace.store.write(layout.dataset(dataset.dataset_hash), dataset.to_json(), "application/json")


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


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
    )
