"""The bucket's own registry: MLflow's SQLite file, worked on in a private copy and put back whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from boneseg.atomic_write import atomic_write_bytes
from boneseg.errors import ModelError
from boneseg.registry.client import Registry, bring_up_to_date
from boneseg.storage import layout
from boneseg.storage.scratch import scratch_folder
from boneseg.storage.workspace import Workspace

log = logging.getLogger(__name__)

NEEDED_TABLES = {"alembic_version", "experiments", "runs", "registered_models", "model_versions"}
HALF_MADE = "_alembic_tmp_"
"""Tables of this name are there only while MLflow changes a database."""
PREFIX = "registry-"
MIRROR_ATTEMPTS = 5


@dataclass(frozen=True)
class Found:
    """The registry of a bucket as it is now."""

    data: bytes | None
    """Content of a good database; none = nothing was published yet."""
    etag: str | None
    """Of the object that a change takes the place of; none = there is none."""
    healed: bool = False
    """Whether the content comes from the copy kept beside it, because the registry itself is damaged."""


def find(workspace: Workspace) -> Found:
    """Read the registry, or its copy where it is damaged; nothing is written.

    Raises:
        ModelError: the registry and its copy are damaged; says the way back.
    """
    store = workspace.store
    data, etag = store.read_versioned(layout.REGISTRY_STATE)
    if data is None:
        copy = store.read_if_there(layout.REGISTRY_COPY)
        if copy is not None and fault_of(copy, workspace) is None:
            log.warning(
                "%s is gone; its copy %s is used instead, and the next 'boneseg publish' puts it in place",
                store.uri(layout.REGISTRY_STATE),
                store.uri(layout.REGISTRY_COPY),
            )
            return Found(copy, None, healed=True)
        return Found(None, None)
    fault = fault_of(data, workspace)
    if fault is None:
        return Found(data, etag)
    copy = store.read_if_there(layout.REGISTRY_COPY)
    place = f"the registry {store.uri(layout.REGISTRY_STATE)} is damaged ({fault})"
    if copy is not None and fault_of(copy, workspace) is None:
        log.warning(
            "%s; its copy %s is used instead, and the next 'boneseg publish' puts it in place",
            place,
            store.uri(layout.REGISTRY_COPY),
        )
        return Found(copy, etag, healed=True)
    raise ModelError(
        f"{place} and there is no good copy at {store.uri(layout.REGISTRY_COPY)}; put an older version of it back, or "
        f"remove it with 'boneseg store remove {layout.REGISTRY_STATE}' and publish the models again"
    )


def put(workspace: Workspace, data: bytes, etag: str | None) -> bool:
    """Put a changed registry into the bucket if nobody else changed it meanwhile, and keep a copy beside it.

    Raises:
        ModelError: the changed database is not whole; nothing was written.
    """
    fault = fault_of(data, workspace)
    if fault is not None:
        raise ModelError(f"the changed registry is damaged ({fault}), so it was not stored; publish again")
    if not workspace.store.write_if(layout.REGISTRY_STATE, data, etag):
        return False
    mirror(workspace)
    return True


def mirror(workspace: Workspace) -> None:
    """Keep a copy of the registry beside it, the newest one, also where others publish at the same time."""
    store = workspace.store
    for _ in range(MIRROR_ATTEMPTS):
        data, etag = store.read_versioned(layout.REGISTRY_STATE)
        if data is None or store.read_if_there(layout.REGISTRY_COPY) == data:
            return
        if fault_of(data, workspace) is None:
            store.write(layout.REGISTRY_COPY, data)
        now = store.stat(layout.REGISTRY_STATE)
        if now is not None and now.etag == etag:
            return


@contextmanager
def opened(workspace: Workspace, data: bytes | None) -> Iterator[tuple[Registry, Path]]:
    """Open a private copy of a database in a folder of its own, brought up to date; none = a new, empty one.

    Raises:
        ModelError: MLflow cannot open it, or the disk is full.
    """
    with scratch_folder(workspace.folder, PREFIX) as folder:
        path = folder / "registry.db"
        path.write_bytes(_empty(workspace) if data is None else data)
        if data is not None:
            bring_up_to_date(path)
        registry = Registry(f"sqlite:///{path}", workspace.store.uri(layout.REGISTRY_STATE))
        _without_machine_paths(path, workspace.store.uri("mlflow"))
        try:
            yield registry, path
        finally:
            registry.close()


def _without_machine_paths(path: Path, place: str) -> None:
    """Take the working directory out of a database: MLflow notes it for experiments that nobody gave a place."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        local = "instr(artifact_location, '://') = 0 OR artifact_location LIKE 'file:%'"
        if database.execute(f"SELECT count(*) FROM experiments WHERE {local}").fetchone()[0]:
            database.execute("PRAGMA secure_delete = ON")  # else the bytes stay in the file, out of use
            database.execute(
                f"UPDATE experiments SET artifact_location = ? || '/' || experiment_id WHERE {local}", [place]
            )
            database.commit()
            database.execute("VACUUM")


def fault_of(data: bytes, workspace: Workspace) -> str | None:
    """Say what is wrong with a database; none = nothing."""
    if not data:
        return "it holds 0 bytes"
    with scratch_folder(workspace.folder, PREFIX) as folder:
        path = folder / "checked.db"
        path.write_bytes(data)
        try:
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
                answers = [str(row[0]) for row in database.execute("PRAGMA integrity_check(1)")]
                tables = {str(row[0]) for row in database.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        except sqlite3.DatabaseError as error:
            return str(error)
    if answers != ["ok"]:
        return " ".join(answers[0].split())
    if any(table.startswith(HALF_MADE) for table in tables):
        return "its tables are half made"
    missing = NEEDED_TABLES - tables
    return f"it has no table {min(missing)}" if missing else None


def _empty(workspace: Workspace) -> bytes:
    """Return an empty database with MLflow's tables; they take seconds to make, so the work folder keeps one."""
    kept = workspace.folder / f"registry-empty-{version('mlflow')}.db"
    if kept.is_file():
        data = kept.read_bytes()
        if fault_of(data, workspace) is None:
            return data
    with scratch_folder(workspace.folder, PREFIX) as folder:
        path = folder / "empty.db"
        bring_up_to_date(path)
        data = path.read_bytes()
    atomic_write_bytes(kept, data)
    return data
