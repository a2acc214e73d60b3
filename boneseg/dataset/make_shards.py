"""Series become shards, many at the same time, each in a process of its own."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path

from boneseg.dataset.manifest import ShardRecord
from boneseg.dataset.shards import save_shard
from boneseg.errors import BonesegError, LabelError, SeriesError, StoreError
from boneseg.ingest.read import read_labelled
from boneseg.machine import cpus
from boneseg.pool import Need, Outcome
from boneseg.progress import track
from boneseg.ray_cluster.pools import pool
from boneseg.scheme import BONE_SCHEME, LabelScheme
from boneseg.settings import identities
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.cache import Cache
from boneseg.storage.catalogue import LabelRow, ObjectRef, SeriesRow
from boneseg.storage.hashing import combine
from boneseg.storage.pseudonyms import Names
from boneseg.storage.workspace import Workspace

PREPARE_VERSION = "1"
"""Raise it when the same series would become another shard: old shards are then made again."""

BASE_BYTES, BYTES_PER_VOXEL = 512 << 20, 16
"""What a process that prepares series takes at its peak, beside and for the voxels of the series. Measured on NIfTI
volumes of up to 512 x 512 x 300: 135 MB and 12 bytes; here with room for Ray and for what readers claim."""
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
        log.debug("%s: %s\n%s", row.source, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        return Prepared(row, None, _unforeseen(error))
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
    """Prepare series, each in a process of its own here or on a cluster's node, in the order in which they are done.

    A series that costs its process, whatever is tried, costs the others nothing.
    """
    processes = pool(workspace, here=settings.parallel or cpus(), preload=__name__, at_once=settings.parallel)
    work = partial(prepare_series, workspace, settings, scheme)
    with closing(processes.map(work, tasks, _need)) as outcomes:
        for outcome in track(outcomes, "prepare", total=len(tasks)):
            yield _prepared(outcome)


def _prepared(outcome: Outcome[Task, Prepared]) -> Prepared:
    """Return what became of a series; what is no fault of the series, such as a store that is away, is raised."""
    if outcome.result is not None:
        return outcome.result
    if isinstance(outcome.error, BonesegError):
        raise outcome.error
    row = outcome.item.row
    if outcome.error is not None:
        return Prepared(row, None, _unforeseen(outcome.error))
    fix = "use a machine with more memory, or take the series out of the bucket: 'boneseg prepare' tries it again"
    return Prepared(row, None, f"{outcome.lost}; {fix}")


def _unforeseen(error: Exception) -> str:
    # Not the error's own words: they may quote the file.
    return f"cannot be read ({type(error).__name__}); 'boneseg --debug prepare' shows where"


def _need(task: Task) -> Need:
    return Need(BASE_BYTES + BYTES_PER_VOXEL * prod(task.row.geometry.shape))
