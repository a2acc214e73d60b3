"""Conducts a sweep: which trial comes next, which stops, which is tried again. It knows nothing of Ray."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from boneseg.errors import BonesegError
from boneseg.models.card import EpochRecord
from boneseg.tune.journal import RUNNING, Journal, Trial
from boneseg.tune.population import Population
from boneseg.tune.records import FAILED, FINISHED, STOPPED
from boneseg.tune.searchers import Searcher
from boneseg.tune.space import Choice
from boneseg.tune.sweep import Sweep, has_micro_batch, trial_settings

log = logging.getLogger(__name__)

PAUSED = "paused"
"""Of a trial that the end of the budget stopped: with a larger one it goes on."""
MOST_LOSSES, MOST_DEATHS = 5, 2
"""How often a process may be lost with its machine, and die of a signal of its own, before its trial fails."""
METRIC_WORDS = {"mean_iou": "mean IoU", "bone_dice": "bone Dice", "ms_per_slice": "ms a slice"}


class StopRule(Protocol):
    """Decides which trials are not worth more epochs."""

    def stops(self, number: int, epoch: int, value: float) -> bool:
        """Take note of a trial's best value until an epoch, and say whether it ends there."""


class NoRule:
    """Every trial has all its epochs."""

    def stops(self, number: int, epoch: int, value: float) -> bool:
        """Say no."""
        return False


@dataclass(frozen=True)
class Order:
    """What a process is told of the trial it is to do. Crosses process borders."""

    number: int
    choice: Choice
    run: str
    slower: int
    micro_batch: int | None
    sources: tuple[tuple[str, str], ...] = ()
    """Runs, with their identities, one of whose states it goes on from where it has none of its own."""


class Conductor:
    """Takes trials from a searcher, and what happens to them into the journal.

    Args:
        sweep: what all trials share.
        journal: taken over already.
        searcher: chooses.
        rule: stops.
        clock: seconds, for costs and the budget.
        population: under population based training.
    """

    def __init__(
        self,
        sweep: Sweep,
        journal: Journal,
        searcher: Searcher,
        rule: StopRule,
        clock: Callable[[], float] = time.monotonic,
        population: Population | None = None,
    ) -> None:
        self.sweep, self.journal = sweep, journal
        self.settings = sweep.settings.tune
        self._searcher, self._rule, self._clock, self._population = searcher, rule, clock, population
        self._began, self._before = clock(), journal.seconds
        self._running: dict[int, float] = {}
        """Number of a trial -> until when its time is counted."""
        self._waiting: deque[int] = deque()
        self._exhausted = False
        self._has_gpus = False
        self.fault: BonesegError | None = None
        """Why the sweep as a whole cannot go on."""
        self._runs: set[str] = set()
        for number in sorted(journal.trials):
            self._known(journal.trials[number])

    def _known(self, trial: Trial) -> None:
        """Take up a trial of before an interruption."""
        self._runs.add(trial.run)
        self._searcher.taken(trial.number, trial.choice)
        for record in trial.history:
            self._rule.stops(trial.number, record.epoch, self.score(trial, record.epoch))
        if trial.is_over:
            self._tell(trial)
        else:
            self._waiting.append(trial.number)

    # What comes next.

    @property
    def trials(self) -> list[Trial]:
        """All trials so far, in the order of choosing."""
        return [self.journal.trials[number] for number in sorted(self.journal.trials)]

    @property
    def running(self) -> int:
        """How many trials run, or are about to."""
        return len(self._running)

    @property
    def is_done(self) -> bool:
        """Whether nothing runs and nothing more will start."""
        return not self._running and (self.fault is not None or self.out_of_budget() is not None or not self._left())

    def _left(self) -> bool:
        if self._waiting:
            return True
        limited = self.settings.searcher != "grid"
        return not self._exhausted and not (limited and len(self.journal.trials) >= self.settings.trials)

    def next(self) -> Order | None:
        """Return what to start now; none where nothing is, until something that runs has ended."""
        if self.fault is not None or self.out_of_budget() is not None or not self._left():
            return None
        number = self._waiting.popleft() if self._waiting else self._choose()
        if number is None:
            return None
        trial = self.journal.trials[number]
        self._running[number] = self._clock()
        sources = (*((trial.donor,) if trial.donor else ()), *reversed(trial.earlier))
        return Order(number, trial.choice, trial.run, trial.slower, trial.micro_batch, sources)

    def _choose(self) -> int | None:
        """Have a new trial chosen, one that can work and was not tried, and write it down before it starts."""
        number = max(self.journal.trials, default=0) + 1
        for attempt in range(self._searcher.attempts):
            choice = self._searcher.ask(number, attempt)
            if choice is None:
                break
            record = self.sweep.run_of(choice)
            if record is not None and record.default_name() not in self._runs:
                trial = Trial(number=number, choice=choice, run=record.default_name())
                self._put(trial)
                self._runs.add(trial.run)
                self._searcher.taken(number, choice)
                return number
            self._searcher.refuse(number)
        self._exhausted = True
        log.info("the space has no further choice that works and was not tried; %d trials in all", number - 1)
        return None

    # What is heard of a trial.

    def begun(self, number: int, devices: float, has_gpus: bool) -> None:
        """Take note that a trial's process starts, on so many GPUs (or as so many processes)."""
        self._has_gpus = self._has_gpus or has_gpus
        self._running[number] = self._clock()
        self._change(number, devices=devices, state=RUNNING, stopped=None)

    def heard(
        self, number: int, record: EpochRecord, parameters: int | None = None, ms_per_slice: float | None = None
    ) -> bool:
        """Take note of an epoch; return whether the trial stops here.

        A trial that goes on from its last state reports its earlier epochs first: they were judged when they were new.
        """
        trial = self._timed(number)
        is_new = record.epoch > len(trial.history)
        trial = trial.model_copy(
            update={
                "history": (*trial.history, record) if is_new else trial.history,
                "parameters": trial.parameters if parameters is None else parameters,
                "ms_per_slice": trial.ms_per_slice if ms_per_slice is None else ms_per_slice,
            }
        )
        if is_new and record.epoch < self.settings.epochs:
            trial = self._judged(trial)
        if is_new:
            log.info("%s: epoch %d, best %s %.4f", _name(trial), record.epoch, self._metric, self.score(trial))
        turned = self._turned(trial) if is_new and trial.state == RUNNING else None
        self._put(turned or trial)
        if turned is not None:
            self._running.pop(number)
            self._waiting.append(number)
            return True
        if trial.state == RUNNING:
            return False
        self._over(trial)
        return True

    def _turned(self, trial: Trial) -> Trial | None:
        """Return a trial that makes room for others of its population, with what it goes on with; none = it goes on."""
        epoch = len(trial.history)
        if self._population is None or epoch >= self.settings.epochs or not self._population.turn_ends(epoch):
            return None
        others = [other for other in self.trials if not other.is_over]
        change = self._population.changed(trial, others, self.score)
        if change is None:
            return trial if self._left() else None
        donor, choice = change
        mine, theirs = self.sweep.run_of(trial.choice), self.sweep.run_of(donor.choice)
        if mine is None or theirs is None or self.sweep.run_of(choice) is None:
            return None
        generation = len(trial.earlier) + 1
        log.info("%s goes on from trial %d as %s", _name(trial), donor.number, choice)
        return trial.model_copy(
            update={
                "choice": choice,
                "run": f"{self.sweep.name}-{trial.number}-{generation}",
                "history": donor.history,
                "donor": (donor.run, theirs.identity),
                "earlier": (*trial.earlier, (trial.run, mine.identity)),
            }
        )

    def _judged(self, trial: Trial) -> Trial:
        epoch, value = len(trial.history), self.score(trial)
        budget = self.out_of_budget(trial)
        if self._rule.stops(trial.number, epoch, value):
            words = f"its {self._metric} of {value:.4f} was among the poorer ones after epoch {epoch}"
            return trial.model_copy(update={"state": STOPPED, "stopped": words})
        if budget is not None:
            return trial.model_copy(update={"state": PAUSED, "stopped": budget})
        return trial

    def finished(self, number: int) -> None:
        """Take note that a trial had all its epochs and saved its model."""
        if number in self._running:
            self._over(self._ended(number, FINISHED))

    def failed(self, number: int, error: str) -> None:
        """Take note that a trial cannot go on, and why: it is a row, and the others go on."""
        if number in self._running:
            trial = self._ended(number, FAILED, error=error)
            log.warning("%s failed, the others go on: %s", _name(trial), error)
            self._over(trial)

    def ran_out_of_memory(self, number: int) -> None:
        """Have a trial go on with half as many slices computed at once; it fails where one is too much already."""
        smaller = self._smaller(self.journal.trials[number])
        if smaller is None:
            hint = "even with one slice at once" if has_micro_batch() else "lower train.batch_size"
            self.failed(number, f"memory ran out: {hint}, or lower what runs in parallel or train.crop")
            return
        self._again(number, f"memory ran out, {smaller} slices at once from now on", micro_batch=smaller)

    def died(self, number: int, cause: str) -> None:
        """Have a trial go on the next slower way of computing, once."""
        trial = self.journal.trials[number]
        if trial.deaths + 1 >= MOST_DEATHS:
            self.failed(number, f"its process {cause}, and so it did before in a faster way of computing")
        else:
            self._again(
                number,
                f"its process {cause}; going on in a slower way of computing",
                slower=trial.slower + 1,
                deaths=trial.deaths + 1,
            )

    def lost(self, number: int, reason: str) -> None:
        """Have a trial go on wherever there is room, after its last state, since its process or machine is gone.

        The kernel's own answer to want of memory looks the same: from the second time on, less is computed at once.
        """
        trial = self.journal.trials[number]
        if trial.losses + 1 >= MOST_LOSSES:
            self.failed(number, f"{reason}, {MOST_LOSSES} times")
            return
        smaller = self._smaller(trial) if trial.losses else None
        self._again(number, reason, losses=trial.losses + 1, micro_batch=smaller or trial.micro_batch)

    def _again(self, number: int, reason: str, **changes: Any) -> None:
        if number not in self._running:
            return
        trial = self._timed(number).model_copy(update=changes)
        log.warning("%s goes on after epoch %d: %s", _name(trial), len(trial.history), reason)
        self._put(trial)
        self._running.pop(number, None)
        self._waiting.append(number)

    def close(self) -> None:
        """Say of what is left why it did not go on."""
        reason = self.out_of_budget() or "the sweep ended"
        for trial in self.trials:
            if not trial.is_over and trial.state != PAUSED and self.fault is None:
                self._put(trial.model_copy(update={"state": PAUSED, "stopped": reason}))

    def out_of_budget(self, latest: Trial | None = None) -> str | None:
        """Return which budget is used up, in words; none where there is time left."""
        if self.settings.hours is not None and self.seconds >= self.settings.hours * 3600:
            return f"the budget of {self.settings.hours:g} hours was used up"
        if self.settings.gpu_hours is not None and self._has_gpus:
            others = sum(trial.device_hours for trial in self.trials if latest is None or trial.number != latest.number)
            if others + (latest.device_hours if latest else 0.0) >= self.settings.gpu_hours:
                return f"the budget of {self.settings.gpu_hours:g} GPU hours was used up"
        return None

    @property
    def seconds(self) -> float:
        """Wall time of the sweep, with that of earlier drivers."""
        return self._before + self._clock() - self._began

    # Values.

    @property
    def _metric(self) -> str:
        return METRIC_WORDS[self.settings.metrics[0]]

    def score(self, trial: Trial, until: int | None = None) -> float:
        """Return a trial's best value of the first metric, until an epoch; 0 before the first."""
        return value_of(trial, self.settings.metrics[0], until) or 0.0

    def _tell(self, trial: Trial) -> None:
        values = [value_of(trial, metric) for metric in self.settings.metrics]
        known = [value for value in values if value is not None]
        failed = trial.state == FAILED or len(known) < len(values)
        steps = [self.score(trial, epoch) for epoch in range(1, len(trial.history) + 1)]
        self._searcher.tell(trial.number, None if failed else known, steps, trial.state == FINISHED)

    def _over(self, trial: Trial) -> None:
        self._running.pop(trial.number, None)
        if trial.is_over:
            self._tell(trial)

    def _ended(self, number: int, state: str, **changes: Any) -> Trial:
        trial = self._timed(number).model_copy(update={"state": state, **changes})
        self._put(trial)
        return trial

    def _timed(self, number: int) -> Trial:
        """Return a trial with the time that it ran since it was last heard of."""
        now, trial = self._clock(), self.journal.trials[number]
        passed = now - self._running.get(number, now)
        self._running[number] = now
        return trial.model_copy(update={"seconds": trial.seconds + passed})

    def _change(self, number: int, **changes: Any) -> None:
        self._put(self.journal.trials[number].model_copy(update=changes))

    def _put(self, trial: Trial) -> None:
        self.journal.put(trial, self.seconds)

    def _smaller(self, trial: Trial) -> int | None:
        if not has_micro_batch():
            return None
        settings = trial_settings(self.sweep.settings, trial.choice).train
        now = trial.micro_batch or getattr(settings, "micro_batch", None) or settings.batch_size
        return now // 2 if now > 1 else None


def value_of(trial: Trial, metric: str, until: int | None = None) -> float | None:
    """Return a trial's best value of a metric until an epoch; none where there is none."""
    if metric == "ms_per_slice":
        return trial.ms_per_slice
    history = trial.history[:until]
    if metric == "bone_dice":
        return max((record.bone_dice for record in history), default=None)
    return max((record.validation_mean_iou for record in history), default=None)


def _name(trial: Trial) -> str:
    return f"trial {trial.number} {trial.choice}"
