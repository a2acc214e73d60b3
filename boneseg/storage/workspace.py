"""Where a stage works: a bucket, and a folder on this machine."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from boneseg.storage import layout
from boneseg.storage.client import ObjectStore
from boneseg.storage.protect import protect_work_folder


@dataclass(frozen=True)
class Workspace:
    """A bucket and a local folder, which only this user can read.

    Everything local can be thrown away: it is made again from the bucket.
    """

    store: ObjectStore
    folder: Path

    def __post_init__(self) -> None:
        with suppress(OSError):  # what cannot be written there is told by who writes it
            protect_work_folder(self.folder)

    @property
    def cache(self) -> Path:
        """Folder of downloaded objects and shards, by content hash."""
        return self.folder / "cache"

    def run_folder(self, name: str) -> Path:
        """Return the local folder of a training run."""
        return self.folder / "runs" / name

    def patient_secret(self) -> bytes:
        """Return the secret of the keyed hashes: ``BONESEG_PATIENT_KEY``, else one kept in the bucket.

        The bucket's own is made at first use; it must not change, or patients would change their split.
        """
        given = os.environ.get("BONESEG_PATIENT_KEY")
        if given:
            return given.encode()
        kept = self.store.read_if_there(layout.PATIENT_KEY_STATE)
        if kept is None:
            kept = secrets.token_hex(32).encode()
            self.store.write(layout.PATIENT_KEY_STATE, kept)
        return kept
