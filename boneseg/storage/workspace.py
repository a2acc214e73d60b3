"""Where a stage works: a bucket, and a folder on this machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from boneseg.settings.loading import on_node, work_folder
from boneseg.storage.client import ObjectStore
from boneseg.storage.permissions import protect_work_folder
from boneseg.storage.private import PrivatePlace, patient_secret, private_place


@dataclass(frozen=True)
class Workspace:
    """A bucket and a local folder, which only this user can read.

    Everything local can be thrown away: it is made again from the bucket.
    """

    store: ObjectStore
    folder: Path
    raw_prefix: str = "raw/"
    """Where in the bucket the raw data is; what leads back to people is kept below it."""

    def __post_init__(self) -> None:
        with suppress(OSError):  # what cannot be written there is told by who writes it
            protect_work_folder(self.folder)

    def __reduce__(self) -> tuple[Callable[..., Workspace], tuple[object, ...]]:
        # Whoever gets this on another machine works in that machine's folder.
        return _arrived, (self.store, self.folder, self.raw_prefix)

    @property
    def cache(self) -> Path:
        """Folder of downloaded objects and shards, by content hash."""
        return self.folder / "cache"

    def run_folder(self, name: str) -> Path:
        """Return the local folder of a training run."""
        return self.folder / "runs" / name

    def patient_secret(self) -> bytes:
        """Return the secret of the keyed hashes: ``BONESEG_PATIENT_KEY``, else the bucket's own."""
        return patient_secret(self.store, self.raw_prefix)

    @property
    def private(self) -> PrivatePlace:
        """Where the bucket keeps what leads back to people."""
        return private_place(self.store, self.raw_prefix)


def _arrived(store: ObjectStore, folder: Path, raw_prefix: str) -> Workspace:
    return Workspace(store, work_folder() if on_node() else folder, raw_prefix)
