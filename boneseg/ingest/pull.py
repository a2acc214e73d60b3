"""From a bucket to a catalogue of its CT series; only what is new or changed is read."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from boneseg.errors import DataError, RecordError, StoreError
from boneseg.ingest.facts import FACTS_VERSION, ObjectFacts, inspect
from boneseg.ingest.recognise import assemble
from boneseg.progress import track
from boneseg.settings.schema import PullSettings, StoreSettings
from boneseg.storage import layout
from boneseg.storage.cache import Cache
from boneseg.storage.catalogue import Catalogue, Problem, SeriesRow
from boneseg.storage.client import ObjectInfo, ObjectStore
from boneseg.storage.hashing import combine, pseudonym
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
    """Whether the fingerprint is another than that of the last published run."""
    series: int
    labelled: int
    downloaded: int
    """Objects read in this pull."""
    reused: int
    """Objects known from an earlier pull."""
    problems: tuple[Problem, ...]


class _State(Record):
    """What is known of the objects of a bucket."""

    version: int
    """Of the facts and of the secret behind them; of another one nothing is re-used."""
    secret: str
    objects: tuple[ObjectFacts, ...]


def pull(workspace: Workspace, store: StoreSettings, settings: PullSettings) -> PullResult:
    """Find out which CT series and labels a bucket holds, and write the catalogue.

    Objects are downloaded in parallel and verified, and stay in the local cache. What is known of them is kept in the
    bucket, also when a pull is interrupted: the next one goes on from there.

    Args:
        workspace: the bucket, and a local folder for the cache.
        store: where in the bucket the raw data is.
        settings: how many downloads run at the same time.

    Raises:
        StoreError: the store does not answer or refuses the credentials.
        DataError: there is nothing below the raw prefix, or no CT series.
    """
    place = workspace.store.uri(store.raw_prefix)
    listing = {item.key: item for item in workspace.store.list(store.raw_prefix)}
    if not listing:
        raise DataError(
            f"nothing is below {place}: put CT series there (DICOM or NIfTI, labels beside them), for example with "
            "'boneseg upload FOLDER'"
        )
    secret = workspace.patient_secret()
    known = {key: facts for key, facts in _load(workspace.store, secret).items() if _unchanged(facts, listing.get(key))}
    reused = len(known)
    new = [item for key, item in listing.items() if key not in known]
    _read(workspace, new, known, secret, settings.parallel)
    rows, problems = assemble(known.values(), secret, store.raw_prefix)
    if not rows:
        first = f"; first problem: {problems[0].source}: {problems[0].reason}" if problems else ""
        raise DataError(f"no CT series (DICOM CT or NIfTI) among the {len(listing)} objects below {place}{first}")
    mark = fingerprint(rows)
    catalogue = Catalogue(series=rows, problems=problems)
    uri = workspace.store.write(layout.catalogue(mark), catalogue.to_json(), "application/json")
    return PullResult(
        fingerprint=mark,
        catalogue_uri=uri,
        changed=mark != _published(workspace.store),
        series=len(rows),
        labelled=sum(row.label is not None for row in rows),
        downloaded=len(known) - reused,
        reused=reused,
        problems=problems,
    )


def fingerprint(rows: tuple[SeriesRow, ...]) -> str:
    """Return the name of the data: it depends on content, labels, patients and names, not on order, time or upload."""
    labels = [f"{row.label.kind} {row.label.content}" if row.label else "" for row in rows]
    identities = zip(rows, labels, strict=True)
    return combine(sorted(f"{row.series} {row.patient} {row.study} {label} {row.source}" for row, label in identities))


def _read(
    workspace: Workspace, new: list[ObjectInfo], known: dict[str, ObjectFacts], secret: bytes, parallel: int
) -> None:
    """Fetch and inspect objects, adding to what is known; the state is saved now and then, and whatever happens."""
    if not new:
        return
    cache = Cache(workspace.cache, workspace.store)
    saved = time.monotonic()
    try:
        results = _in_parallel(cache, new, secret, parallel)
        for key, facts in track(results, "pull", total=len(new), unit="objects"):
            if facts is None:
                log.warning("%s disappeared while the bucket was read", key)
                continue
            known[key] = facts
            if time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
                _save(workspace.store, known, secret)
                saved = time.monotonic()
    finally:
        _save(workspace.store, known, secret)


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
    try:
        path, ref = cache.fetch_new(item)
    except StoreError:
        if cache.store.stat(item.key) is None:
            return item.key, None
        raise
    return item.key, inspect(path, ref, secret)


def _unchanged(facts: ObjectFacts, item: ObjectInfo | None) -> bool:
    return item is not None and (facts.ref.etag, facts.ref.size) == (item.etag, item.size)


def _load(store: ObjectStore, secret: bytes) -> dict[str, ObjectFacts]:
    text = store.read_if_there(layout.OBJECTS_STATE)
    if text is None:
        return {}
    try:
        state = _State.read(text, store.uri(layout.OBJECTS_STATE), "it is made anew")
    except RecordError as error:
        log.warning("%s", error)
        return {}
    if (state.version, state.secret) != (FACTS_VERSION, _mark(secret)):
        return {}
    return {facts.ref.key: facts for facts in state.objects}


def _save(store: ObjectStore, known: dict[str, ObjectFacts], secret: bytes) -> None:
    state = _State(version=FACTS_VERSION, secret=_mark(secret), objects=tuple(known[key] for key in sorted(known)))
    store.write(layout.OBJECTS_STATE, state.to_json(compact=True), "application/json")


def _mark(secret: bytes) -> str:
    return pseudonym(secret, "state", "objects")


def _published(store: ObjectStore) -> str | None:
    text = store.read_if_there(layout.PUBLISHED_STATE)
    return None if text is None else json.loads(text).get("fingerprint")
