"""The one way from settings to a workspace."""

from __future__ import annotations

from pathlib import Path

from boneseg.settings.loading import work_folder
from boneseg.settings.schema import RunSettings
from boneseg.storage import embedded
from boneseg.storage.workspace import Workspace


def open_workspace(settings: RunSettings, folder: Path | None = None, *, create: bool = False) -> Workspace:
    """Open the bucket that the settings name, with a local folder beside it.

    The embedded store's bucket is made at first use; elsewhere a missing bucket is more likely a wrong name.

    Args:
        settings: of the run; ``store`` says where the bucket is.
        folder: local folder; none = ``work_folder()``.
        create: make a bucket that is not there, also elsewhere.

    Raises:
        StoreError: the store does not answer, refuses the credentials or is not started, or the bucket is not there.
    """
    folder = folder or work_folder()
    store = embedded.open_store(settings.store, folder)
    running = embedded.status(folder)
    if create or (running is not None and running.endpoint == store.endpoint):
        store.ensure_bucket()
    else:
        store.require_bucket()
    return Workspace(store, folder, settings.store.raw_prefix)
