"""A folder of CT series on this machine, brought through an object store into a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from boneseg.errors import DataError
from boneseg.identity import stable_hash
from boneseg.settings.loading import work_folder
from boneseg.settings.schema import RunSettings, StoreSettings
from boneseg.stages import Stages
from boneseg.storage import embedded
from boneseg.storage.client import ObjectStore
from boneseg.storage.hashing import combine
from boneseg.storage.private import fix_secret, is_private
from boneseg.storage.upload import upload_folder
from boneseg.terminal_names import reader_of

if TYPE_CHECKING:
    from boneseg.dataset.prepare import PrepareResult

Say = Callable[[str], None]
"""Prints a line for the user."""


def bucket_of(data: Path) -> str:
    """Return the name of the bucket that belongs to a folder.

    Raises:
        DataError: there is no such folder.
    """
    if not data.is_dir():
        raise DataError(f"{data} is not a folder; name the folder that holds the CT series")
    return f"demo-{stable_hash(str(data.resolve()))}"


@contextmanager
def store_here(settings: StoreSettings, keep: bool, say: Say) -> Iterator[ObjectStore]:
    """Open the store of the settings, its bucket made where it is missing.

    Args:
        settings: without an endpoint the embedded store is meant: it is started if it does not run, and then stopped.
        keep: leave the embedded store running.
        say: hears where the store is.
    """
    ours = False
    try:
        if settings.endpoint is None:
            ours = embedded.status(work_folder()) is None
            say(f"store: {embedded.start(work_folder()).endpoint}")
        store = embedded.open_store(settings, work_folder())
        store.ensure_bucket()
        yield store
    finally:
        if ours and not keep:
            embedded.stop(work_folder())


def upload(store: ObjectStore, folder: Path, settings: RunSettings, say: Say) -> None:
    """Put a folder into the bucket; what is there already is not sent again."""
    sent = upload_folder(store, folder, settings.store.raw_prefix, settings.pull.parallel)
    say(f"data: {sent} new files in {store.uri(settings.store.raw_prefix)}")
    _fix_patient_secret(store, settings.store.raw_prefix)


def make_dataset(stages: Stages, say: Say) -> PrepareResult:
    """Pull and prepare, and say what came of it."""
    pulled = stages.pull()
    say(f"pull: {pulled.series} series, {pulled.labelled} with a label, {pulled.downloaded} objects read")
    prepared = stages.prepare()
    parts = ", ".join(f"{count} {split}" for split, count in prepared.series.items())
    say(f"prepare: {parts}; {prepared.made} made, {prepared.reused} reused\n  {prepared.patients}")
    readable = reader_of(stages.workspace)
    for problem in prepared.problems:
        say(f"  {'left out' if problem.fatal else 'note'}: {readable(f'{problem.source}: {problem.reason}')}")
    return prepared


def _fix_patient_secret(store: ObjectStore, prefix: str) -> None:
    """Derive the bucket's secret from the data itself, so that the same data is split the same way anywhere.

    Nobody without the very same files can compute it.
    """
    content = (f"{item.key} {item.etag}" for item in store.list(prefix) if not is_private(item.key))
    fix_secret(store, prefix, combine(content).encode())
