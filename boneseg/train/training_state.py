"""The state of a training run after each epoch, on this machine and in the bucket: a run killed at any point continues.

Only tensors, numbers and text are in the file; it is read with ``weights_only=True``, so that it cannot run code.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boneseg.atomic_write import atomic_write
from boneseg.errors import RecordError, SettingsError, StoreError
from boneseg.models.card import EpochRecord
from boneseg.storage import layout
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace

log = logging.getLogger(__name__)

STATE_FILE, PROGRESS_FILE = "state.pt", "progress.json"

PATIENCE_SECONDS = 60.0
"""How long an epoch waits for the one before it to be in the bucket, so that little is lost with this machine."""

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
    computed: str = ""
    """Where and in which number format the last epochs were computed."""

    @property
    def best_mean_iou(self) -> float:
        """Validation mean IoU of the best epoch; -1 before the first one."""
        return self.history[self.best_epoch - 1].validation_mean_iou if self.best_epoch else -1.0


class Progress(Record):
    """What of a run is in the bucket."""

    epoch: int
    """Epochs that the state there holds; 0 = there is none."""
    writer: str = ""
    """Who saves its states: the one that started last."""


class StateKeeper:
    """Saves the state of one run, and finds it again on this machine or, if that is ahead, in the bucket.

    The bucket may be away for a while: the state on this machine is safe, and the next one is sent when it is back.

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
        self._writer = secrets.token_hex(8)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._sending: Future[None] | None = None
        self._saved = self._sent = 0

    def load(self) -> TrainingState:
        """Return the furthest state there is; a new one where there is none."""
        state = self._read(self.path)
        if self._may_be_ahead(state.epoch):
            fetched = self.path.with_suffix(".fetched")
            try:
                self._store.download(layout.run(self._run, STATE_FILE), fetched)
                there = self._read(fetched)
                if there.epoch > state.epoch:
                    state = there
                    fetched.replace(self.path)
            finally:
                fetched.unlink(missing_ok=True)
        return state

    def take_over(self) -> TrainingState:
        """Do what ``load`` does, and be the one who saves from now on: who did before is told when it saves."""
        state = self.load()

        def mine(present: bytes | None) -> bytes:
            known = self._progress(present)
            self._sent = known.epoch if known else 0
            return Progress(epoch=self._sent, writer=self._writer).to_json()

        self._store.update(layout.run(self._run, PROGRESS_FILE), mine, "application/json")
        self._saved = state.epoch
        return state

    def save(self, state: TrainingState) -> None:
        """Write the state to disk now, and to the bucket while training goes on.

        Raises:
            StoreError: the disk is full.
            SettingsError: the same run was started somewhere else meanwhile.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "identity": self._identity,
            "epoch": state.epoch,
            "history": [record.model_dump_json() for record in state.history],
            "best_epoch": state.best_epoch,
            # Two names of one tensor are stored once.
            "best_weights": state.weights if state.best_epoch == state.epoch else state.best_weights,
            "weights": state.weights,
            "optimizer": state.optimizer,
            "computed": state.computed,
        }
        try:
            with atomic_write(self.path, sole_writer=True) as partial:
                torch.save(content, partial)
        except (OSError, RuntimeError) as error:
            raise StoreError(
                f"{self.path.parent}: cannot write the training state ({type(error).__name__}); free some space there "
                "and start the run again to continue it"
            ) from error
        self._saved = state.epoch
        if self._is_idle(PATIENCE_SECONDS):
            self._sending = self._pool.submit(self._send)

    def wait(self) -> None:
        """Return when the last saved state is in the bucket.

        Raises:
            StoreError: it could not be stored there.
            SettingsError: the same run was started somewhere else meanwhile.
        """
        self._is_idle(None)
        if self._sent < self._saved:
            self._send()

    def discard(self) -> None:
        """Remove the state here and in the bucket: the run is finished."""
        self.wait()
        for file in (PROGRESS_FILE, STATE_FILE):
            self._store.delete(layout.run(self._run, file))
        self.path.unlink(missing_ok=True)

    def _is_idle(self, patience: float | None) -> bool:
        """Say, after waiting for it for some seconds, whether nothing is on its way to the bucket."""
        if self._sending is None:
            return True
        try:
            self._sending.result(patience)
        except TimeoutError:
            log.warning("the bucket is slow to take epoch %d of run %s; training goes on", self._sent + 1, self._run)
            return False
        except StoreError as error:
            log.warning("epoch %d of run %s is on this machine only (%s); trying again", self._saved, self._run, error)
        self._sending = None
        return True

    def _send(self) -> None:
        """Put the state into the bucket, if nobody else has taken the run over."""
        sending = self.path.with_suffix(".sending")
        sending.unlink(missing_ok=True)
        epoch = self._saved
        try:
            os.link(self.path, sending)  # the next epoch replaces the other name, not what is being read
        except OSError:  # a file system without second names
            shutil.copyfile(self.path, sending)
        try:
            key = layout.run(self._run, PROGRESS_FILE)
            present, etag = self._store.read_versioned(key)
            known = self._progress(present)
            if known is not None and known.writer not in ("", self._writer):
                raise self._taken(epoch)
            self._store.upload(sending, layout.run(self._run, STATE_FILE))
            progress = Progress(epoch=epoch, writer=self._writer).to_json()
            if not self._store.write_if(key, progress, etag, "application/json"):
                raise self._taken(epoch)
            self._sent = epoch
        finally:
            sending.unlink(missing_ok=True)

    def _taken(self, epoch: int) -> SettingsError:
        return SettingsError(
            f"run {self._run!r} was started somewhere else meanwhile and goes on there; this one stopped after epoch "
            f"{epoch}. Give one of the two another name to train both"
        )

    def _may_be_ahead(self, epoch: int) -> bool:
        """Say whether the bucket's state may be further than this epoch, without fetching it."""
        known = self._progress(self._store.read_if_there(layout.run(self._run, PROGRESS_FILE)))
        if known is not None and known.epoch > 0:
            return known.epoch > epoch
        return epoch == 0 and self._store.exists(layout.run(self._run, STATE_FILE))

    def _progress(self, data: bytes | None) -> Progress | None:
        if data is None:
            return None
        place = self._store.uri(layout.run(self._run, PROGRESS_FILE))
        try:
            return Progress.read(data, place, "the state beside it is asked")
        except RecordError as error:
            log.warning("%s", error)
            return None

    def _read(self, path: Path) -> TrainingState:
        """Read a state; a new one where there is none, it belongs to other settings, or it is damaged."""
        try:
            with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums it wrote
                if (damaged := archive.testzip()) is not None:
                    raise ValueError(f"{damaged} does not have its checksum")
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if content.pop("identity") != self._identity:
                return TrainingState()
            content["history"] = tuple(EpochRecord.model_validate_json(text) for text in content["history"])
            return TrainingState(**content)
        except FileNotFoundError:
            return TrainingState()
        except Exception as error:  # torch raises whatever damaged bytes lead to
            log.warning("%s is damaged (%s); going on from the other copy, or anew", path, type(error).__name__)
            return TrainingState()
