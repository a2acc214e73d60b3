"""Series become shards, many at the same time, each in a process of its own."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from multiprocessing.context import ForkServerContext
from pathlib import Path

from boneseg.dataset.manifest import ShardRecord
from boneseg.dataset.shards import save_shard
from boneseg.errors import DataError, LabelError, SeriesError, StoreError
from boneseg.ingest.read import read_labelled
from boneseg.machine import cpus
from boneseg.progress import track
from boneseg.scheme import BONE_SCHEME, LabelScheme
from boneseg.settings import identities
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.cache import Cache
from boneseg.storage.catalogue import LabelRow, ObjectRef, SeriesRow
from boneseg.storage.hashing import combine
from boneseg.storage.pseudonyms import Names
from boneseg.storage.scratch import scratch_folder
from boneseg.storage.workspace import Workspace

PREPARE_VERSION = "1"
"""Raise it when the same series would become another shard: old shards are then made again."""

SOCKET_PREFIX = "bsmp-"
_NOWHERE = "state/nothing"
"""Key without an object: what is not in the bucket any more may still be in the local cache, by its content."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A series to prepare.

    Attributes:
        row: its objects go by stand-ins.
        raw: SHA-256 -> the object with this content; what is gone from the bucket is missing.
        secret: of the keyed hashes, for words that messages quote from files.
    """

    row: SeriesRow
    raw: Mapping[str, ObjectRef]
    secret: bytes


@dataclass(frozen=True)
class Prepared:
    """What became of one series: a shard, or the reason why there is none.

    Attributes:
        row: the series.
        record: of the shard.
        reason: why there is none.
        names: stand-in -> what it stands for, of those in reason and warnings.
    """

    row: SeriesRow
    record: ShardRecord | None
    reason: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


def shard_name(row: SeriesRow, settings: PrepareSettings, scheme: LabelScheme = BONE_SCHEME) -> str:
    """Return the name of a series' shard: it tells, without reading the series, whether the shard is there already."""
    assert row.label is not None
    label = (row.label.kind.value, row.label.content)
    how = identities.PREPARE.hash(settings.model_dump(mode="json"))
    return combine([row.series, *label, how, PREPARE_VERSION, *_of_scheme(row.label, scheme)])


def _of_scheme(label: LabelRow, scheme: LabelScheme) -> tuple[str, ...]:
    """Return what a shard's name covers beside what the first version's does."""
    if scheme.naming == BONE_SCHEME.naming:
        return ()
    return (scheme.reading, label.named)


def prepare_series(workspace: Workspace, settings: PrepareSettings, scheme: LabelScheme, task: Task) -> Prepared:
    """Make the shard of one labelled series.

    Bad data is a reason, not an exception. So is an error nobody foresaw: one odd file must not keep a thousand good
    series waiting.
    """
    row, names = task.row, Names(task.secret)
    try:
        series = read_labelled(partial(_fetch, workspace, task.raw), row, settings, scheme)
    except (SeriesError, LabelError) as error:
        return Prepared(row, None, names.conceal(str(error)), names.given)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Not the error's own words: they may quote the file.
        log.debug("%s: %s\n%s", row.source, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        return Prepared(row, None, f"cannot be read ({type(error).__name__}); 'boneseg --debug prepare' shows where")
    record = save_shard(
        workspace,
        shard_name(row, settings, scheme),
        row,
        series.hu,
        series.label,
        series.geometry,
        series.outline_computed,
        tuple(names.conceal(warning) for warning in series.warnings),
        series.labelling,
    )
    return Prepared(row, record, names=names.given)


def _fetch(workspace: Workspace, raw: Mapping[str, ObjectRef], wanted: ObjectRef) -> Path:
    """Return the file with the content that the catalogue names, as long as the bucket holds it."""
    known = raw.get(wanted.sha256, wanted)
    changed = f"{wanted.key or 'one of its files'} was changed or deleted since the last pull; run 'boneseg pull' again"
    cache = Cache(workspace.cache, workspace.store)
    try:
        return cache.fetch(known.model_copy(update={"key": known.key or _NOWHERE}))
    except StoreError as error:
        item = workspace.store.stat(known.key) if known.key else None
        if item is None or item.etag != known.etag:
            raise SeriesError(changed) from None
        raise StoreError(f"{wanted.key}: {_without_key(str(error), known.key)}") from None


def _without_key(text: str, key: str) -> str:
    return text.replace(key, "...")


def make_shards(
    workspace: Workspace, tasks: Sequence[Task], settings: PrepareSettings, scheme: LabelScheme
) -> Iterator[Prepared]:
    """Prepare series in processes of their own, in the order in which they are done."""
    workers = min(settings.parallel or cpus(), len(tasks))
    work = partial(prepare_series, workspace, settings, scheme)
    if workers <= 1:
        yield from track(map(work, tasks), "prepare", total=len(tasks))
        return
    context = _processes()
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, _start_worker) as pool:
        try:
            with _interrupt_held_back():
                futures = [pool.submit(work, task) for task in tasks]
            for future in track(as_completed(futures), "prepare", total=len(tasks)):
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


@lru_cache(maxsize=1)
def _processes() -> ForkServerContext:
    """Return how workers are started.

    Forked from a server without threads, which has imported all that a worker needs: neither inherited locks nor
    seconds of imports in each worker. Its socket lies in a folder that the next prepare removes if this one is killed;
    Python would leave it for good.
    """
    held = ExitStack()
    folder = held.enter_context(scratch_folder(Path(tempfile.gettempdir()), SOCKET_PREFIX))
    atexit.register(held.close)
    # Where Python looks for its folder before it makes one; there is no public way to name it.
    configuration: dict[str, object] = getattr(multiprocessing.current_process(), "_config", {})
    configuration.setdefault("tempdir", str(folder))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


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


def _end_with_parent() -> None:
    """End this process when the one that started it was killed and can no longer do so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
