"""Training runs by name: what a run is, and how a finished one is found again."""

from __future__ import annotations

import fcntl
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boneseg.errors import RecordError, SettingsError
from boneseg.identity import flattened, stable_hash
from boneseg.models.card import EpochRecord
from boneseg.settings import identities
from boneseg.settings.schema import ModelSettings, TrainSettings
from boneseg.storage import layout
from boneseg.storage.catalogue import ObjectRef
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace

log = logging.getLogger(__name__)

RUN_FILE, RESULT_FILE = "run.json", "result.json"
_ANOTHER_NAME = "give this run another name, or remove it with 'boneseg store remove {key}' and train anew"


class TrainResult(Record):
    """A finished training run."""

    model_uri: str
    model_hash: str
    run: str
    best_epoch: int
    best_mean_iou: float
    reused: bool
    """Whether it was finished before and nothing was trained."""
    history: tuple[EpochRecord, ...]
    files: tuple[ObjectRef, ...] = ()
    """The model in the bucket as it was written."""


class RunRecord(Record):
    """What decides a run's outcome; in the bucket from its start."""

    dataset_hash: str
    model: ModelSettings
    train: dict[str, Any]

    @staticmethod
    def of(dataset_hash: str, model: ModelSettings, train: TrainSettings) -> RunRecord:
        """Write down a run."""
        values = identities.TRAIN.select(train.model_dump(mode="json"))
        return RunRecord(dataset_hash=dataset_hash, model=model, train=values)

    @property
    def decisive(self) -> dict[str, Any]:
        """What counts, nested as the settings are."""
        model = identities.MODEL.select(self.model.model_dump(mode="json"))
        return {"dataset_hash": self.dataset_hash, "model": model, "train": identities.TRAIN.select(self.train)}

    @property
    def identity(self) -> str:
        """Hash of it all."""
        return stable_hash(self.decisive)

    def default_name(self) -> str:
        """Return a name for a run whose user gave none."""
        network = re.sub(r"[^a-z0-9]+", "-", f"{self.model.architecture}-{self.model.encoder}".lower()).strip("-")
        return f"{network[:34]}-{self.identity}"

    def differences(self, other: RunRecord) -> list[str]:
        """Name what differs, as ``train.epochs 3 (was 2)``."""
        mine, theirs = flattened(self.decisive), flattened(other.decisive)
        keys = [*mine, *(key for key in theirs if key not in mine)]
        return [f"{key} {mine.get(key)} (was {theirs.get(key)})" for key in keys if mine.get(key) != theirs.get(key)]


def check_name(workspace: Workspace, name: str, record: RunRecord) -> None:
    """Check that a name is free, or belongs to this very run.

    Raises:
        SettingsError: a run of this name was started with other settings or data.
    """
    key = layout.run(name, RUN_FILE)
    text = workspace.store.read_if_there(key)
    if text is None or name == record.default_name():  # such a name says all that the record does
        return
    earlier = RunRecord.read(text, workspace.store.uri(key), _ANOTHER_NAME.format(key=key))
    differences = record.differences(earlier)
    if differences:
        raise SettingsError(
            f"run {name!r} was started with other settings or data: {', '.join(differences)}; "
            "give this run another name, or go back to the old values to continue that one"
        )


def claim(workspace: Workspace, name: str, record: RunRecord) -> None:
    """Take a name for a run."""
    workspace.store.write(layout.run(name, RUN_FILE), record.to_json(), "application/json")


def find_result(workspace: Workspace, name: str) -> TrainResult | None:
    """Return the result of a run that is finished, else none."""
    text = workspace.store.read_if_there(layout.run(name, RESULT_FILE))
    if text is None:
        return None
    try:
        result = TrainResult.read(text, workspace.store.uri(layout.run(name, RESULT_FILE)), "the run is finished anew")
    except RecordError as error:
        log.warning("%s", error)
        return None
    if result.run != name:
        return None
    return result.model_copy(update={"reused": True})


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Hold a run's folder, so that no other process on this machine trains the same run.

    Raises:
        SettingsError: another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"run {name!r} is being trained by another process on this machine; wait for it, or give another name"
            ) from None
        yield
