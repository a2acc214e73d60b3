"""Training runs by name: what a run is, and how a finished one is found again."""

from __future__ import annotations

import fcntl
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from boneseg.train.task import Base

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
    identity: str = ""
    """Of the run that made it: a run to which epochs are being added has another one than its result."""


class RunRecord(Record):
    """What decides a run's outcome; in the bucket from its start."""

    dataset_hash: str
    model: ModelSettings
    train: dict[str, Any]
    continued: tuple[int, ...] = ()
    """Values of ``train.epochs`` with which it was finished before epochs were added."""

    @staticmethod
    def of(dataset_hash: str, model: ModelSettings, train: TrainSettings) -> RunRecord:
        """Write down a run. It is the same with any number of workers, and counts as one of a single worker."""
        values = identities.TRAIN.select(train.model_copy(update={"workers": 1}).model_dump(mode="json"))
        return RunRecord(dataset_hash=dataset_hash, model=model, train=values)

    @property
    def decisive(self) -> dict[str, Any]:
        """What counts, nested as the settings are."""
        model = identities.MODEL.select(self.model.model_dump(mode="json"))
        values = {"dataset_hash": self.dataset_hash, "model": model, "train": identities.TRAIN.select(self.train)}
        return values | ({"continued": list(self.continued)} if self.continued else {})

    @property
    def identity(self) -> str:
        """Hash of it all."""
        return stable_hash(self.decisive)

    def default_name(self) -> str:
        """Return a name for a run whose user gave none."""
        network = re.sub(r"[^a-z0-9]+", "-", f"{self.model.architecture}-{self.model.encoder}".lower()).strip("-")
        return f"{network[:34]}-{self.identity}"

    def before_epochs_were_added(self) -> RunRecord:
        """Return the record of the run that this one goes on from."""
        *earlier, epochs = self.continued
        return self.model_copy(update={"train": {**self.train, "epochs": epochs}, "continued": tuple(earlier)})

    def with_epochs_added(self, epochs: int) -> RunRecord:
        """Return the record of a run that goes on from this one until so many epochs in all are done."""
        continued = (*self.continued, int(self.train["epochs"]))
        return self.model_copy(update={"train": {**self.train, "epochs": epochs}, "continued": continued})

    def differences(self, other: RunRecord) -> list[str]:
        """Name what differs, as ``train.epochs 3 (was 2)``."""
        mine, theirs = flattened(self.decisive), flattened(other.decisive)
        keys = [*mine, *(key for key in theirs if key not in mine)]
        return [f"{key} {mine.get(key)} (was {theirs.get(key)})" for key in keys if mine.get(key) != theirs.get(key)]


@dataclass(frozen=True)
class Plan:
    """Under which name a run is trained, and from where it starts."""

    name: str
    record: RunRecord
    base: Base | None = None
    """The finished run to which it adds epochs."""


def plan(workspace: Workspace, name: str | None, record: RunRecord) -> Plan:
    """Find out what a run of some settings under a name is: a new one, the same again, or epochs for a finished one.

    Where a finished run of this name differs in that it had fewer epochs, the others are added to it. A name that is
    made of settings stays with these: the longer run then gets one of its own.

    Args:
        workspace: where runs are.
        name: that was asked for; none = the one that the settings make.
        record: of the settings as they are.

    Raises:
        SettingsError: a run of this name was started with other settings or data, or is not finished yet.
    """
    name = name or record.default_name()
    key = layout.run(name, RUN_FILE)
    text = workspace.store.read_if_there(key)
    if text is None or name == record.default_name():  # such a name says all that the record does
        return Plan(name, record)
    earlier = RunRecord.read(text, workspace.store.uri(key), _ANOTHER_NAME.format(key=key))
    if (each := earlier.train.get("workers", 1)) != 1:
        size = earlier.train["batch_size"]
        raise SettingsError(
            f"run {name!r} was started when train.batch_size was that of each worker ({size} in each of {each}; it is "
            f"that of all now); give this run another name, with train.batch_size = {size * each} for batches as large"
        )
    differences = record.model_copy(update={"continued": earlier.continued}).differences(earlier)
    if not differences:
        if not earlier.continued:
            return Plan(name, record)
        before = earlier.before_epochs_were_added()
        return Plan(
            name, earlier, Base(before.default_name() if name == earlier.default_name() else name, before.identity)
        )
    more = len(differences) == 1 and int(record.train["epochs"]) > int(earlier.train["epochs"])
    if more and find_result(workspace, name, earlier) is not None:
        longer = earlier.with_epochs_added(int(record.train["epochs"]))
        own = longer.default_name() if name == earlier.default_name() else name
        return Plan(own, longer, Base(name, earlier.identity))
    raise SettingsError(
        f"run {name!r} was started with other settings or data: {', '.join(differences)}; "
        + ("finish it with the old value, then epochs can be added to it, or " if more else "")
        + f"give this run another name{'' if more else ', or go back to the old values to continue that one'}"
    )


def nothing_to_go_on_from(run: str) -> SettingsError:
    """Return what is raised where a finished run keeps no state."""
    return SettingsError(
        f"run {run!r} keeps no state to which epochs could be added (train.keep_final was off, or an earlier version "
        "of boneseg finished it); give this run another name to train all epochs from the start"
    )


def claim(workspace: Workspace, name: str, record: RunRecord) -> None:
    """Take a name for a run."""
    workspace.store.write(layout.run(name, RUN_FILE), record.to_json(), "application/json")


def find_result(workspace: Workspace, name: str, record: RunRecord) -> TrainResult | None:
    """Return the result of a run that is finished, else none; that of before epochs were added does not count."""
    text = workspace.store.read_if_there(layout.run(name, RESULT_FILE))
    if text is None:
        return None
    try:
        result = TrainResult.read(text, workspace.store.uri(layout.run(name, RESULT_FILE)), "the run is finished anew")
    except RecordError as error:
        log.warning("%s", error)
        return None
    before_identities = not result.identity and not record.continued
    if result.run != name or not (before_identities or result.identity == record.identity):
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
