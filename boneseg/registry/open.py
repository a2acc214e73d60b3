"""Which registry: MLflow at a tracking URI, or a SQLite file that the bucket keeps."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boneseg.errors import ModelError
from boneseg.registry.client import Registry
from boneseg.settings.schema import PublishSettings
from boneseg.storage import layout
from boneseg.storage.hashing import sha256_file
from boneseg.storage.workspace import Workspace


@contextmanager
def open_registry(settings: PublishSettings, workspace: Workspace) -> Iterator[Registry]:
    """Open the registry: ``publish.tracking_uri``, else ``MLFLOW_TRACKING_URI``, else the bucket's own.

    The bucket's own is a SQLite file, fetched to the work folder and put back where something changed, so that every
    machine that sees the bucket knows the same champion. It takes one writer at a time.

    Raises:
        ModelError: the registry does not answer, or somebody else wrote to the bucket's own meanwhile.
    """
    uri = settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        yield Registry(uri)
        return
    workspace.folder.mkdir(parents=True, exist_ok=True)
    path = workspace.folder / f"mlflow-{workspace.store.bucket}.db"
    known = _fetch(workspace, path)
    registry = Registry(f"sqlite:///{path}")
    before = sha256_file(path)
    yield registry
    if known is None or sha256_file(path) != before:
        _put_back(workspace, path, known)


def _fetch(workspace: Workspace, path: Path) -> str | None:
    """Bring the local copy up to the bucket's; return the ETag of the bucket's, none where it has none."""
    kept = workspace.store.stat(layout.REGISTRY_STATE)
    if kept is None:
        if _etag_file(path).read_text():  # the bucket was emptied since: so is its registry
            path.unlink(missing_ok=True)
            _etag_file(path).unlink()
        return None
    if not path.is_file() or _etag_file(path).read_text() != kept.etag:
        fetched = path.with_suffix(".fetched")
        workspace.store.download(layout.REGISTRY_STATE, fetched)
        _copy(fetched, path)
        fetched.unlink()
        _etag_file(path).write_text(kept.etag)
    return kept.etag


def _put_back(workspace: Workspace, path: Path, known: str | None) -> None:
    now = workspace.store.stat(layout.REGISTRY_STATE)
    if (now.etag if now else None) != known:
        raise ModelError(
            f"the registry in bucket {workspace.store.bucket} was changed by somebody else at the same time; publish "
            "again, or set publish.tracking_uri to an MLflow server that takes several writers"
        )
    snapshot = path.with_suffix(".snapshot")
    _copy(path, snapshot)
    workspace.store.upload(snapshot, layout.REGISTRY_STATE)
    snapshot.unlink()
    stored = workspace.store.stat(layout.REGISTRY_STATE)
    _etag_file(path).write_text(stored.etag if stored else "")


def _copy(source: Path, target: Path) -> None:
    """Copy a database whole, also into one that MLflow holds open."""
    with (
        contextlib.closing(sqlite3.connect(source)) as reading,
        contextlib.closing(sqlite3.connect(target)) as writing,
    ):
        reading.backup(writing)


def _etag_file(path: Path) -> Path:
    file = path.with_suffix(".etag")
    file.touch()
    return file
