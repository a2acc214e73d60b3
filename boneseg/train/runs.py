"""Training runs by name: what a run is, and how a finished one is found again."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boneseg.config import ModelSettings, TrainSettings, stable_hash
from boneseg.errors import SettingsError
from boneseg.models.card import CARD_FILE, EpochRecord
from boneseg.storage import layout
from boneseg.storage.catalogue import Record
from boneseg.storage.workspace import Workspace

RUN_FILE, RESULT_FILE = "run.json", "result.json"

ONLY_HOW = ("backend", "device", "loader_threads", "weights_mirror")
"""Training settings that say how a run is computed, not what comes out: a run may go on with others."""


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


class RunRecord(Record):
    """What decides a run's outcome; in the bucket from its start."""

    dataset_hash: str
    model: ModelSettings
    train: dict[str, Any]

    @staticmethod
    def of(dataset_hash: str, model: ModelSettings, train: TrainSettings) -> RunRecord:
        """Write down a run."""
        values = train.model_dump(mode="json", exclude=set(ONLY_HOW))
        return RunRecord(dataset_hash=dataset_hash, model=model, train=values)

    @property
    def identity(self) -> str:
        """Hash of it all."""
        return stable_hash(self.model_dump(mode="json"))

    def default_name(self) -> str:
        """Return a name for a run whose user gave none."""
        network = re.sub(r"[^a-z0-9]+", "-", f"{self.model.architecture}-{self.model.encoder}".lower()).strip("-")
        return f"{network[:34]}-{self.identity}"

    def differences(self, other: RunRecord) -> list[str]:
        """Name what differs, as ``train.epochs 3 (was 2)``."""
        mine, theirs = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        return [f"{key} {mine.get(key)} (was {theirs.get(key)})" for key in mine if mine.get(key) != theirs.get(key)]


def check_name(workspace: Workspace, name: str, record: RunRecord) -> None:
    """Check that a name is free, or belongs to this very run.

    Raises:
        SettingsError: a run of this name was started with other settings or data.
    """
    text = workspace.store.read_if_there(layout.run(name, RUN_FILE))
    differences = record.differences(RunRecord.model_validate_json(text)) if text is not None else []
    if differences:
        raise SettingsError(
            f"run {name!r} was started with other settings or data: {', '.join(differences)}; "
            "give this run another name, or go back to the old values to continue that one"
        )


def claim(workspace: Workspace, name: str, record: RunRecord) -> None:
    """Take a name for a run."""
    workspace.store.write(layout.run(name, RUN_FILE), record.to_json(), "application/json")


def find_result(workspace: Workspace, name: str) -> TrainResult | None:
    """Return the result of a run that is finished and whose model is in the bucket, else none."""
    text = workspace.store.read_if_there(layout.run(name, RESULT_FILE))
    if text is None:
        return None
    result = TrainResult.model_validate_json(text)
    if not workspace.store.exists(layout.model(result.model_hash, CARD_FILE)):
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


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
