"""From a bucket to a catalogue of its CT series; only what is new or changed is read."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from boneseg.errors import BonesegError, DataError, StoreError
from boneseg.ingest.clean import clean_bucket
from boneseg.ingest.concealed import conceal_problems, conceal_row
from boneseg.ingest.detached import incomplete
from boneseg.ingest.facts import inspect
from boneseg.ingest.known import KnownObjects
from boneseg.ingest.object_facts import Kind, ObjectFacts
from boneseg.ingest.patient_table import TABLE_FILE, carry_overrides, check_lines, check_table, load_table
from boneseg.ingest.patients import filler_notes, subject_notes
from boneseg.ingest.recognise import assemble
from boneseg.progress import track
from boneseg.scheme import BONE_SCHEME, LabelScheme
from boneseg.settings.schema import PullSettings, StoreSettings
from boneseg.storage import layout
from boneseg.storage.cache import Cache
from boneseg.storage.catalogue import Catalogue, ObjectRef, Problem, SeriesRow, patients_sentence
from boneseg.storage.client import ObjectInfo, ObjectMissingError, ObjectStore
from boneseg.storage.hashing import SHORT, combine
from boneseg.storage.private import is_private
from boneseg.storage.pseudonyms import Names, save_names
from boneseg.storage.published import read_published
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace

log = logging.getLogger(__name__)

SECONDS_BETWEEN_SAVES = 30.0


class PullResult(Record):
    """What pull found."""

    fingerprint: str
    """Of the series, their labels, patients and names; equal for equal data."""
    catalogue_uri: str
    changed: bool
    """Whether the fingerprint is another than that of the last run published under the model's name."""
    series: int
    labelled: int
    downloaded: int
    """Objects read in this pull."""
    reused: int
    """Objects known from an earlier pull."""
    problems: tuple[Problem, ...]
    patients: str = ""
    """How patients were told apart, in a sentence."""
    overrides_hash: str = ""
    """Of the tables of patients; empty without one. Part of the fingerprint."""
    splits_hash: str = ""
    """Of the splits decided so far; empty where none is. What prepare makes depends on it too."""


def pull(
    workspace: Workspace,
    store: StoreSettings,
    settings: PullSettings,
    model_name: str = "bone",
    override: Path | None = None,
    scheme: LabelScheme = BONE_SCHEME,
) -> PullResult:
    """Find out which CT series and labels a bucket holds, and write the catalogue.

    Objects are downloaded in parallel and verified, and stay in the local cache. What is known of them is kept in the
    bucket, also when a pull is interrupted: the next one goes on from there.

    Args:
        workspace: the bucket, and a local folder for the cache.
        store: where in the bucket the raw data is.
        settings: how many downloads run at the same time.
        model_name: of the model that is trained with the data, for ``changed``.
        override: a table of patients on this machine, carried beside the raw data; where it was carried from another
            machine it need not be here.
        scheme: says by which words beside those of anatomy files call bones.

    Raises:
        StoreError: the store does not answer or refuses the credentials.
        DataError: there is nothing below the raw prefix, or no CT series.
    """
    if workspace.raw_prefix != store.raw_prefix:
        workspace = replace(workspace, raw_prefix=store.raw_prefix)
    clean_bucket(workspace)
    carry_overrides(workspace.store, workspace.private, override)
    place = workspace.store.uri(store.raw_prefix)
    listing = {item.key: item for item in workspace.store.list(store.raw_prefix) if _is_data(item, store.raw_prefix)}
    if not listing:
        raise DataError(
            f"nothing is below {place}: put CT series there (DICOM files or volumes, labels beside them), for example "
            "with 'boneseg upload FOLDER'"
        )
    paths = [key.removeprefix(store.raw_prefix) for key in listing]
    names = Names(workspace.patient_secret(), paths)
    try:
        return _pull(workspace, listing, paths, names, settings, model_name, scheme)
    except BonesegError as error:
        sentence = names.conceal(str(error))
        with suppress(BonesegError):
            save_names(workspace.store, workspace.private, names.given)
        raise type(error)(sentence) from None  # what led to it may name folders and files


def _pull(
    workspace: Workspace,
    listing: dict[str, ObjectInfo],
    paths: list[str],
    names: Names,
    settings: PullSettings,
    model_name: str,
    scheme: LabelScheme,
) -> PullResult:
    bucket, prefix, secret = workspace.store, workspace.raw_prefix, workspace.patient_secret()
    lines, overrides_hash = load_table(bucket, prefix, workspace.private)
    check_table(lines, paths)
    state = KnownObjects(bucket, workspace.private, secret)
    before = state.load()
    known = {key: facts for key, facts in before.items() if _unchanged(facts, listing)}
    gone = [facts.ref for key, facts in before.items() if key.startswith(prefix) and key not in known]
    reused = len(known)
    new = [item for key, item in listing.items() if key not in known]
    _read(workspace, new, known, _Reading(state, gone, secret, names), settings.parallel)
    fetch = Cache(workspace.cache, bucket).fetch
    rows, problems = assemble(known.values(), secret, prefix, lines, fetch=fetch, scheme=scheme, png=settings.png)
    if not rows:
        raise DataError(
            f"no CT series (DICOM or a volume file) among the {len(listing)} objects below {bucket.uri(prefix)}"
            f"{_first_problem(problems)}"
        )
    mark = fingerprint(rows, overrides_hash, scheme)
    table = bucket.uri(prefix + TABLE_FILE)
    notes = [*check_lines(lines, [row.source for row in rows]), *subject_notes(rows, table)]
    problems = (*problems, *filler_notes(rows, secret, table), *notes)
    catalogue = Catalogue(
        series=tuple(conceal_row(row, names) for row in rows),
        problems=conceal_problems(problems, names.with_series(row.source for row in rows)),
        overrides_hash=overrides_hash,
        fingerprint=mark,
    )
    save_names(bucket, workspace.private, names.given)
    uri = bucket.write(layout.catalogue(mark), catalogue.to_json(), "application/json")
    return PullResult(
        fingerprint=mark,
        catalogue_uri=uri,
        changed=mark != _published(bucket, model_name),
        series=len(rows),
        labelled=sum(row.label is not None for row in rows),
        downloaded=len(known) - reused,
        reused=reused,
        problems=catalogue.problems,
        patients=patients_sentence((row.patient, row.patient_by) for row in rows),
        overrides_hash=overrides_hash,
        splits_hash=_splits_hash(bucket),
    )


@dataclass(frozen=True)
class _Reading:
    """What reading objects needs beside the objects."""

    state: KnownObjects
    gone: list[ObjectRef]
    secret: bytes
    names: Names


def _is_data(item: ObjectInfo, prefix: str) -> bool:
    return not is_private(item.key) and item.key != prefix + TABLE_FILE


def _first_problem(problems: Sequence[Problem]) -> str:
    """Return the problem that explains most: they come in the order of their weight."""
    return f"; first problem: {problems[0].source}: {problems[0].reason}" if problems else ""


def fingerprint(rows: tuple[SeriesRow, ...], overrides_hash: str = "", scheme: LabelScheme = BONE_SCHEME) -> str:
    """Return the name of the data: it depends on content, labels, patients and names, not on order, time or upload.

    Args:
        rows: with their true places.
        overrides_hash: of the tables of patients; empty without one.
        scheme: where it tells bones apart, names of masks and segments count too.
    """
    by_name = scheme.naming != BONE_SCHEME.naming
    labels = [f"{row.label.kind} {row.label.content}" if row.label else "" for row in rows]
    if by_name:
        labels = [f"{label} {row.label.named}" if row.label else "" for label, row in zip(labels, rows, strict=True)]
    identities = zip(rows, labels, strict=True)
    marks = sorted(f"{row.series} {row.patient} {row.study} {label} {row.source}" for row, label in identities)
    return combine([*marks, *([f"patients {overrides_hash}"] if overrides_hash else [])])


def _read(
    workspace: Workspace, new: list[ObjectInfo], known: dict[str, ObjectFacts], reading: _Reading, parallel: int
) -> None:
    """Fetch and inspect objects, adding to what is known; the state is saved now and then, and whatever happens."""
    cache = Cache(workspace.cache, workspace.store)
    saved = time.monotonic()
    if not new and not incomplete(known):
        return
    try:
        results = _in_parallel(cache, new, reading.secret, parallel)
        for key, facts in track(results, "pull", total=len(new), unit="objects"):
            if facts is None:
                token = reading.names.token(key.removeprefix(workspace.raw_prefix), "file")
                log.warning("%s disappeared while the bucket was read", token)
                continue
            known[key] = facts
            if time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
                reading.state.save(known, reading.gone)
                saved = time.monotonic()
        with ThreadPoolExecutor(parallel) as pool:
            found = pool.map(partial(_inspect_pair, cache, reading.secret), incomplete(known))
            known.update((facts.ref.key, facts) for facts in found)
    finally:
        reading.state.save(known, reading.gone)


def _in_parallel(
    cache: Cache, items: list[ObjectInfo], secret: bytes, parallel: int
) -> Iterator[tuple[str, ObjectFacts | None]]:
    """Yield the facts of each object as they come; never more than a few objects are on their way."""
    with ThreadPoolExecutor(parallel) as pool:
        running: set[Future[tuple[str, ObjectFacts | None]]] = set()
        try:
            for item in items:
                running.add(pool.submit(_fetch_and_inspect, cache, item, secret))
                if len(running) >= 2 * parallel:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _fetch_and_inspect(cache: Cache, item: ObjectInfo, secret: bytes) -> tuple[str, ObjectFacts | None]:
    if {".", ".."} & set(item.key.split("/")):
        ref = ObjectRef(key=item.key, size=item.size, etag=item.etag, sha256="")
        reason = "the key has a part '.' or '..', by which no client can fetch it; store the object under another key"
        return item.key, ObjectFacts(ref=ref, kind=Kind.BROKEN, reason=reason)
    try:
        path, ref = cache.fetch_new(item)
    except StoreError:
        if cache.store.stat(item.key) is None:
            return item.key, None
        raise
    return item.key, inspect(path, ref, secret)


def _unchanged(facts: ObjectFacts, listing: Mapping[str, ObjectInfo]) -> bool:
    """Say whether the objects that facts are of, two for a detached header, are those that the bucket holds now."""
    there = [(ref, listing.get(ref.key)) for ref in facts.objects]
    return all(item is not None and (ref.etag, ref.size) == (item.etag, item.size) for ref, item in there)


def _inspect_pair(cache: Cache, secret: bytes, pair: tuple[ObjectFacts, ObjectRef]) -> ObjectFacts:
    """Inspect a detached header with its voxels; where one is gone meanwhile, the header stays without."""
    header, voxels = pair
    try:
        return inspect(cache.fetch(header.ref), header.ref, secret, (cache.fetch(voxels), voxels))
    except ObjectMissingError:
        return header


def _splits_hash(store: ObjectStore) -> str:
    data = store.read_if_there(layout.SPLITS_STATE)
    return "" if data is None else hashlib.sha256(data).hexdigest()[:SHORT]


def _published(store: ObjectStore, model_name: str) -> str | None:
    found, _ = read_published(store, model_name)
    return None if found is None else found.fingerprint
