"""The states of a training run, on this machine and in the bucket: a run killed at any point continues.

The bucket holds the last few states and that of the best epoch, each under its own key, and ``progress.json``, which
lists them with size and hash once they are whole there.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from boneseg.errors import RecordError, SettingsError, StoreError
from boneseg.storage import layout
from boneseg.storage.faults import ObjectMissingError
from boneseg.storage.hashing import sha256_file
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace
from boneseg.train.state_file import TrainingState, Weights, read_state, write_state

__all__ = ["Progress", "StateKeeper", "StoredState", "TrainingState", "Weights"]

log = logging.getLogger(__name__)

STATE_FILE, STATES, PROGRESS_FILE = "state.pt", "states/", "progress.json"
"""On this machine, and in the bucket where an earlier version kept its only one; below which it keeps several."""

PATIENCE_SECONDS = 60.0
"""How long an epoch waits for the one before it to be in the bucket, so that little is lost with this machine."""


class StoredState(Record):
    """A state in the bucket."""

    file: str
    """Below the run's prefix."""
    epoch: int = 0
    """Epochs that are done; 0, with no steps either, where that is not known."""
    step: int = 0
    """Steps of the next one."""
    identity: str = ""
    """Of the run; empty = the file must be asked."""
    size: int = 0
    sha256: str = ""
    """Of the file as it was sent; empty where an earlier version sent it."""

    @property
    def position(self) -> tuple[int, int]:
        """Epochs done, and steps of the next one."""
        return self.epoch, self.step


class Progress(Record):
    """What of a run is in the bucket."""

    epoch: int
    """Epochs that the newest state there holds; 0 = there is none."""
    writer: str = ""
    """Who saves its states: the one that started last."""
    states: tuple[StoredState, ...] = ()
    """Oldest first; none in records of earlier versions, which had one ``state.pt``."""


class StateKeeper:
    """Saves the states of one run, and finds the furthest again on this machine or, if that is ahead, in the bucket.

    The bucket may be away for a while: the state on this machine is safe, and the next one is sent when it is back.

    Args:
        workspace: bucket and local folder.
        run: name of the run.
        identity: hash of all that decides the run's outcome; a state of another identity is not used.
        keep_last: states that the bucket keeps, besides that of the best epoch.
    """

    def __init__(self, workspace: Workspace, run: str, identity: str, keep_last: int = 2) -> None:
        self._store = workspace.store
        self._run = run
        self._identity = identity
        self._keep_last = keep_last
        self.path = workspace.run_folder(run) / STATE_FILE
        self._writer = secrets.token_hex(8)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._sending: Future[None] | None = None
        self._saved = self._sent = (0, 0)
        self._best_epoch = 0

    def load(self) -> TrainingState:
        """Return the furthest whole state there is; a new one where there is none."""
        state = read_state(self.path, self._identity)
        if state is None:
            log.warning("%s is damaged; going on from the other copy, or anew", self.path)
            state = TrainingState()
        fetched = self.path.with_suffix(".fetched")
        for stored in reversed(self._stored(self._progress())):
            if stored.identity not in ("", self._identity) or (0, 0) < stored.position <= state.position:
                continue
            try:
                there = self._fetch(stored, fetched)
                if there is None:
                    log.warning(
                        "%s is damaged; the state before it is used, or training starts anew",
                        self._store.uri(layout.run(self._run, stored.file)),
                    )
                elif there.position > state.position:
                    fetched.replace(self.path)
                    return there
            finally:
                fetched.unlink(missing_ok=True)
        return state

    def take_over(self) -> TrainingState:
        """Do what ``load`` does, and be the one who saves from now on: who did before is told when it saves."""
        state = self.load()
        listed: tuple[StoredState, ...] = ()

        def mine(present: bytes | None) -> bytes:
            nonlocal listed
            known = self._read_progress(present)
            listed = self._stored(known)
            return self._record(listed, known.epoch if known else 0).to_json()

        self._store.update(layout.run(self._run, PROGRESS_FILE), mine, "application/json")
        # What was sent by somebody who was killed before it was listed, or removed from the list but not yet gone.
        self._remove_all_but(listed)
        self._saved, self._best_epoch = state.position, state.best_epoch
        own = [each.position for each in listed if each.identity in ("", self._identity)]
        self._sent = self._saved if self._saved in own else (0, 0)
        return state

    def save(self, state: TrainingState) -> None:
        """Write the state to disk now, and to the bucket while training goes on.

        Raises:
            StoreError: the disk is full.
            SettingsError: the same run was started somewhere else meanwhile.
        """
        write_state(self.path, state, self._identity)
        self._saved, self._best_epoch = state.position, state.best_epoch
        if self._is_idle(0.0 if state.step else PATIENCE_SECONDS, patient=state.step > 0):
            self._stage()
            self._sending = self._pool.submit(self._send, self._saved, self._best_epoch)

    def wait(self) -> None:
        """Return when the last saved state is in the bucket.

        Raises:
            StoreError: it could not be stored there.
            SettingsError: the same run was started somewhere else meanwhile.
        """
        self._is_idle(None)
        if self._sent != self._saved:
            self._stage()
            self._send(self._saved, self._best_epoch)

    def is_kept(self) -> bool:
        """Say whether there is a state to go on from, as far as can be told without reading it."""
        stored = self._stored(self._progress())
        return self.path.exists() or any(each.identity in ("", self._identity) for each in stored)

    def retire(self) -> None:
        """Keep of a finished run its last state alone, in the bucket: epochs can be added to it."""
        kept: tuple[StoredState, ...] = ()

        def last_alone(present: bytes | None) -> bytes:
            nonlocal kept
            known = self._read_progress(present)
            kept = tuple(each for each in self._stored(known) if each.identity in ("", self._identity))[-1:]
            return self._record(kept, kept[0].epoch if kept else 0).to_json()

        self._store.update(layout.run(self._run, PROGRESS_FILE), last_alone, "application/json")
        self._remove_all_but(kept)
        self.path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the states here and in the bucket: the run is finished."""
        self.wait()
        self._store.delete(layout.run(self._run, PROGRESS_FILE))
        self._remove_all_but(())
        self.path.unlink(missing_ok=True)

    def _is_idle(self, patience: float | None, patient: bool = False) -> bool:
        """Say, after waiting for it for some seconds, whether nothing is on its way to the bucket.

        ``patient`` = nobody is told where something is: the next state comes soon.
        """
        if self._sending is None:
            return True
        try:
            self._sending.result(patience)
        except TimeoutError:
            if not patient:
                log.warning("the bucket is slow to take the states of run %s; training goes on", self._run)
            return False
        except StoreError as error:
            log.warning("%s of run %s is on this machine only (%s); trying again", self._words, self._run, error)
        self._sending = None
        return True

    @property
    def _words(self) -> str:
        epoch, step = self._saved
        return f"step {step} of epoch {epoch + 1}" if step else f"epoch {epoch}"

    def _stage(self) -> None:
        """Give the state on disk a second name: the next one replaces the other name, not what is being read."""
        sending = self.path.with_suffix(".sending")
        sending.unlink(missing_ok=True)
        try:
            os.link(self.path, sending)
        except OSError:  # a file system without second names
            shutil.copyfile(self.path, sending)

    def _send(self, position: tuple[int, int], best_epoch: int) -> None:
        """Put the staged state into the bucket, if nobody else has taken the run over; then remove what is too old."""
        sending = self.path.with_suffix(".sending")
        try:
            key = layout.run(self._run, PROGRESS_FILE)
            present, etag = self._store.read_versioned(key)
            known = self._read_progress(present)
            if known is not None and known.writer not in ("", self._writer):
                raise self._taken(position)
            stored = self._upload(sending, position)
            before = [each for each in self._stored(known) if each.file != stored.file]
            kept = self._kept([*before, stored], best_epoch)
            if not self._store.write_if(key, self._record(kept, position[0]).to_json(), etag, "application/json"):
                raise self._taken(position)
            self._sent = position
            for each in before:
                if each not in kept:
                    self._store.delete(layout.run(self._run, each.file))
        finally:
            sending.unlink(missing_ok=True)

    def _upload(self, path: Path, position: tuple[int, int]) -> StoredState:
        """Upload a state; the writer's part of its name keeps two writers from writing over each other's."""
        epoch, step = position
        stored = StoredState(
            file=f"{STATES}{epoch:05d}-{step:06d}-{self._writer[:8]}.pt",
            epoch=epoch,
            step=step,
            identity=self._identity,
            size=path.stat().st_size,
            sha256=sha256_file(path),
        )
        key = layout.run(self._run, stored.file)
        self._store.upload(path, key)
        found = self._store.stat(key)
        if found is None or found.size != stored.size:
            raise StoreError(f"{self._store.uri(key)} is not whole in the bucket")
        return stored

    def _kept(self, states: list[StoredState], best_epoch: int) -> tuple[StoredState, ...]:
        """Return the states that stay: the last ones sent, and that of the best epoch."""
        last = states[-self._keep_last :]
        best = (best_epoch, 0)
        return tuple(
            each for each in states if each in last or (each.position == best and each.identity == self._identity)
        )

    def _record(self, states: tuple[StoredState, ...], epoch: int) -> Progress:
        return Progress(epoch=epoch, writer=self._writer, states=states)

    def _taken(self, position: tuple[int, int]) -> SettingsError:
        return SettingsError(
            f"run {self._run!r} was started somewhere else meanwhile and goes on there; this one stopped after epoch "
            f"{position[0]}. Give one of the two another name to train both"
        )

    def _fetch(self, stored: StoredState, path: Path) -> TrainingState | None:
        """Fetch a state; none where it is gone or is not the one that was sent."""
        try:
            self._store.download(layout.run(self._run, stored.file), path)
        except ObjectMissingError:
            return None
        if stored.sha256 and (path.stat().st_size != stored.size or sha256_file(path) != stored.sha256):
            return None
        return read_state(path, self._identity)

    def _stored(self, known: Progress | None) -> tuple[StoredState, ...]:
        """Return the states in the bucket, oldest first: as the record lists them, else as they are found."""
        if known is not None and known.states:
            return known.states
        epoch = known.epoch if known is not None else 0
        first = [StoredState(file=STATE_FILE, epoch=epoch)] if self._exists(STATE_FILE) else []
        if known is not None:
            return tuple(first)
        return (*first, *self._found())

    def _found(self) -> list[StoredState]:
        """Return the states that lie in the bucket, by their names."""
        prefix = layout.run(self._run)
        found = []
        for item in self._store.list(layout.run(self._run, STATES)):
            name = re.fullmatch(rf"{STATES}(\d+)-(\d+)-\w+\.pt", item.key.removeprefix(prefix))
            if name is not None:
                found.append(StoredState(file=name[0], epoch=int(name[1]), step=int(name[2])))
        return found

    def _remove_all_but(self, kept: tuple[StoredState, ...]) -> None:
        files = [each.file for each in self._found()]
        for file in [*files, STATE_FILE]:
            if file not in [each.file for each in kept]:
                self._store.delete(layout.run(self._run, file))

    def _exists(self, file: str) -> bool:
        return self._store.exists(layout.run(self._run, file))

    def _progress(self) -> Progress | None:
        return self._read_progress(self._store.read_if_there(layout.run(self._run, PROGRESS_FILE)))

    def _read_progress(self, data: bytes | None) -> Progress | None:
        if data is None:
            return None
        place = self._store.uri(layout.run(self._run, PROGRESS_FILE))
        try:
            return Progress.read(data, place, "the states beside it are asked")
        except RecordError as error:
            log.warning("%s", error)
            return None
