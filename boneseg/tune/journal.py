"""The journal of a sweep in the bucket: what each trial chose, before it starts, and what it reported since.

It is all that a sweep needs to go on after any death, on any machine: nothing of Ray's own notes is read again.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any

from boneseg.errors import RecordError, SettingsError
from boneseg.models.card import EpochRecord
from boneseg.storage import layout
from boneseg.storage.client import ObjectStore
from boneseg.storage.records import Record
from boneseg.tune.records import FAILED, FINISHED, STOPPED

log = logging.getLogger(__name__)

RUNNING = "running"
DRIVER_FILE, TRIALS = "driver.json", "trials/"


class Trial(Record):
    """A trial in the journal."""

    number: int
    """Counted from 1, in the order of choosing."""
    choice: dict[str, Any]
    run: str
    """Name of its training run, whose last state is in the bucket."""
    state: str = RUNNING
    history: tuple[EpochRecord, ...] = ()
    seconds: float = 0.0
    devices: float = 1.0
    """GPUs that it holds; processes where there is no GPU."""
    parameters: int | None = None
    ms_per_slice: float | None = None
    error: str | None = None
    stopped: str | None = None
    slower: int = 0
    """Ways to compute that are passed over, since its process died in them."""
    micro_batch: int | None = None
    """Slices computed at once, once memory ran out; none = as the settings say."""
    losses: int = 0
    """How often its process was lost for no reason of its own."""
    deaths: int = 0
    """How often its process died of a signal."""
    donor: tuple[str, str] | None = None
    """Under population based training: run whose state this one goes on from, and its identity."""
    earlier: tuple[tuple[str, str], ...] = ()
    """The runs that it was before that, and their identities."""

    @property
    def is_over(self) -> bool:
        """Whether it needs no more work."""
        return self.state in (FINISHED, STOPPED, FAILED)

    @property
    def device_hours(self) -> float:
        """Hours of all devices it held."""
        return self.seconds * self.devices / 3600


class Driver(Record):
    """Who drives a sweep, and how long it was driven."""

    writer: str
    """The one that started last."""
    seconds: float = 0.0
    """Wall time, of all drivers one after another."""


class Journal:
    """The trials of one sweep, as they are in the bucket.

    Args:
        store: bucket.
        name: of the sweep.
    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store, self._name = store, name
        self._writer = secrets.token_hex(8)
        self.trials: dict[int, Trial] = {}
        self.seconds = 0.0

    def take_over(self) -> None:
        """Read what is known, and be the one who writes from now on: an earlier driver is told when it writes."""
        text = self._store.update(layout.sweep(self._name, DRIVER_FILE), self._mine, "application/json")
        self.seconds = Driver.read(text, "the sweep's driver", "").seconds
        for item in self._store.list(layout.sweep(self._name, TRIALS)):
            try:
                trial = Trial.read(self._store.read(item.key), self._store.uri(item.key), "the trial is chosen anew")
            except RecordError as error:
                log.warning("%s", error)
                continue
            self.trials[trial.number] = trial

    def put(self, trial: Trial, seconds: float) -> None:
        """Write a trial down.

        Args:
            trial: as it is now.
            seconds: wall time of the sweep so far.

        Raises:
            SettingsError: the sweep was taken over by another driver.
        """
        self.check(seconds)
        self.trials[trial.number] = trial
        self._store.write(self._key(trial.number), trial.to_json(), "application/json")

    def check(self, seconds: float) -> None:
        """Note the wall time, and that this driver is still the one.

        Raises:
            SettingsError: it is not.
        """
        self.seconds = seconds
        self._store.update(layout.sweep(self._name, DRIVER_FILE), self._still_mine, "application/json")

    def _key(self, number: int) -> str:
        return layout.sweep(self._name, f"{TRIALS}{number:04d}.json")

    def _mine(self, present: bytes | None) -> bytes:
        known = _driver(present)
        return Driver(writer=self._writer, seconds=known.seconds if known else 0.0).to_json()

    def _still_mine(self, present: bytes | None) -> bytes:
        known = _driver(present)
        if known is not None and known.writer != self._writer:
            raise SettingsError(
                f"sweep {self._name} was resumed somewhere else meanwhile and goes on there; this one stopped, and "
                "nothing is lost"
            )
        return Driver(writer=self._writer, seconds=self.seconds).to_json()


def _driver(data: bytes | None) -> Driver | None:
    if data is None:
        return None
    try:
        return Driver.read(data, "the sweep's driver", "it is written anew")
    except RecordError as error:
        log.warning("%s", error)
        return None
