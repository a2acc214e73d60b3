"""The state of a training run after each epoch, on this machine and in the bucket: a run killed at any point continues.

Only tensors, numbers and text are in the file; it is read with ``weights_only=True``, so that it cannot run code.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boneseg.errors import RecordError, StoreError
from boneseg.models.card import EpochRecord
from boneseg.storage import layout
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace

log = logging.getLogger(__name__)

STATE_FILE, PROGRESS_FILE = "state.pt", "progress.json"

Weights = dict[str, Tensor]


@dataclass
class TrainingState:
    """Where a run is. Random numbers are not in it: they are drawn anew from the seed and the epoch's number."""

    epoch: int = 0
    """Epochs that are done."""
    history: tuple[EpochRecord, ...] = ()
    best_epoch: int = 0
    best_weights: Weights = field(default_factory=dict)
    """Of the best epoch so far."""
    weights: Weights = field(default_factory=dict)
    """Of the last epoch."""
    optimizer: dict[str, Any] = field(default_factory=dict)

    @property
    def best_mean_iou(self) -> float:
        """Validation mean IoU of the best epoch; -1 before the first one."""
        return self.history[self.best_epoch - 1].validation_mean_iou if self.best_epoch else -1.0


class Progress(Record):
    """What of a run is in the bucket."""

    epoch: int


class StateKeeper:
    """Saves the state of one run, and finds it again on this machine or, if that is ahead, in the bucket.

    Args:
        workspace: bucket and local folder.
        run: name of the run.
        identity: hash of all that decides the run's outcome; a state of another identity is not used.
    """

    def __init__(self, workspace: Workspace, run: str, identity: str) -> None:
        self._store = workspace.store
        self._run = run
        self._identity = identity
        self.path = workspace.run_folder(run) / STATE_FILE
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._upload: Future[None] | None = None

    def load(self) -> TrainingState:
        """Return the furthest state there is; a new one where there is none."""
        state = self._read(self.path)
        if self._may_be_ahead(state.epoch):
            fetched = self.path.with_suffix(".fetched")
            self._store.download(layout.run(self._run, STATE_FILE), fetched)
            there = self._read(fetched)
            if there.epoch > state.epoch:
                state = there
                fetched.replace(self.path)
            fetched.unlink(missing_ok=True)
        return state

    def save(self, state: TrainingState) -> None:
        """Write the state to disk now, and to the bucket while training goes on."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        content = {
            "identity": self._identity,
            "epoch": state.epoch,
            "history": [record.model_dump_json() for record in state.history],
            "best_epoch": state.best_epoch,
            # Two names of one tensor are stored once.
            "best_weights": state.weights if state.best_epoch == state.epoch else state.best_weights,
            "weights": state.weights,
            "optimizer": state.optimizer,
        }
        try:
            torch.save(content, partial)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise StoreError(
                f"{self.path.parent}: cannot write the training state ({type(error).__name__}); free some space there "
                "and start the run again to continue it"
            ) from error
        self.wait()
        partial.replace(self.path)
        self._upload = self._pool.submit(self._to_bucket, state.epoch)

    def wait(self) -> None:
        """Return when the last saved state is in the bucket.

        Raises:
            StoreError: it could not be stored there.
        """
        if self._upload is not None:
            self._upload.result()
            self._upload = None

    def discard(self) -> None:
        """Remove the state here and in the bucket: the run is finished."""
        self.wait()
        for file in (PROGRESS_FILE, STATE_FILE):
            self._store.delete(layout.run(self._run, file))
        self.path.unlink(missing_ok=True)

    def _to_bucket(self, epoch: int) -> None:
        self._store.upload(self.path, layout.run(self._run, STATE_FILE))
        self._store.write(layout.run(self._run, PROGRESS_FILE), Progress(epoch=epoch).to_json(), "application/json")

    def _may_be_ahead(self, epoch: int) -> bool:
        """Say whether the bucket's state may be further than this epoch, without fetching it."""
        key = layout.run(self._run, PROGRESS_FILE)
        text = self._store.read_if_there(key)
        if text is None:
            return False
        try:
            return Progress.read(text, self._store.uri(key), "the state beside it is asked").epoch > epoch
        except RecordError as error:
            log.warning("%s", error)
            return self._store.exists(layout.run(self._run, STATE_FILE))

    def _read(self, path: Path) -> TrainingState:
        content = _load(path)
        if content is None or content.pop("identity") != self._identity:
            return TrainingState()
        content["history"] = tuple(EpochRecord.model_validate_json(text) for text in content["history"])
        return TrainingState(**content)


def _load(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content
    except FileNotFoundError:
        return None
    except Exception as error:  # torch raises whatever damaged bytes lead to
        log.warning("%s: cannot be read (%s); the run continues from what the bucket has", path, type(error).__name__)
        return None
