"""What is done with a network in training between its steps and between its epochs: averaging, saving, stopping."""

from __future__ import annotations

import logging
import math
import time

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from boneseg.models.card import EpochRecord
from boneseg.train.averaging import WeightAverage
from boneseg.train.optimisation import Course, lowered_rate, stops_early
from boneseg.train.process_group import ProcessGroup
from boneseg.train.task import Task
from boneseg.train.training_state import StateKeeper, TrainingState

log = logging.getLogger(__name__)


class Upkeep:
    """Averages the weights after each step, saves the state when it is time, and says when training ends early.

    Args:
        task: what is trained.
        group: this process among those that train together.
        keeper: saves the states.
        state: brought up to date whenever it is saved.
        network: that is trained, as the state says.
        optimizer: of the network.
        device: where they are.
        steps: of an epoch.
    """

    def __init__(
        self,
        task: Task,
        group: ProcessGroup,
        keeper: StateKeeper,
        state: TrainingState,
        network: nn.Module,
        optimizer: Optimizer,
        device: torch.device,
        steps: int,
    ) -> None:
        self._run = task.run
        self._settings = task.settings
        self._group = group
        self._keeper = keeper
        self._state = state
        self._network = network
        self._optimizer = optimizer
        self._device = device
        self._steps = steps
        self._average = WeightAverage(network, self._settings.ema) if self._settings.ema is not None else None
        if self._average is not None and state.has_begun:
            self._average.go_on(state, state.epoch * steps + state.step)

    @property
    def measured(self) -> nn.Module:
        """The network that is validated and saved."""
        return self._network if self._average is None else self._average.network

    def ends_early(self) -> bool:
        """Say whether no further epoch is worth its time."""
        state = self._state
        since = state.continued[-1].epoch if state.continued else 0
        if not stops_early(state.history, self._settings, since):
            return False
        if self._group.is_rank_zero:
            log.info(
                "run %s ends after epoch %d: validation mean IoU has not risen for %d epochs, best in epoch %d",
                *(self._run, state.epoch, self._settings.early_stopping, state.best_epoch),
            )
        return True

    def course(self, started: float) -> Course:
        """Return how the next epoch goes, from the step on that the state is at.

        Args:
            started: when the epoch would have started if nothing had interrupted it, in ``time.monotonic``'s seconds.
        """
        state = self._state
        if state.step and state.random:  # all processes draw the same
            _set_random(state.random[0], self._device)
        return Course(
            settings=self._settings,
            before=state.epoch * self._steps,
            total=self._settings.epochs * self._steps,
            rate=lowered_rate(state.history, self._settings),
            first=state.step,
            sums=state.sums,
            after_step=lambda taken, sums: self._after_step(taken, sums, started),
        )

    def end_epoch(self, record: EpochRecord) -> None:
        """Bring the state to the end of an epoch, and save it."""
        state = self._state
        self._look_at_weights()
        if record.validation_mean_iou > state.best_mean_iou:
            state.best_epoch = record.epoch
            # Copied, for training goes on changing the others.
            state.best_weights = {name: value.clone() for name, value in state.measured.items()}
        state.history = (*state.history, record)
        state.epoch = record.epoch
        state.step, state.sums, state.seconds, state.random = 0, (0.0, 0.0), 0.0, []
        if self._group.is_rank_zero:
            self._keeper.save(state)

    def _after_step(self, taken: int, sums: Tensor, started: float) -> None:
        if self._average is not None:
            self._average.update(self._network)
        every = self._settings.save_every_steps
        if every is None or taken % every or taken == self._steps:
            return
        state = self._state
        state.sums = (float(sums[0]), float(self._group.all_reduce(sums.clone())[1]))
        if not math.isfinite(state.sums[0]):
            return  # the end of the epoch says so; there is nothing to go on from here
        state.step, state.seconds = taken, time.monotonic() - started
        state.random = [_random(self._device)]
        self._look_at_weights()
        if self._group.is_rank_zero:
            self._keeper.save(state)

    def _look_at_weights(self) -> None:
        """Let the state have the present weights, not copies of them."""
        state = self._state
        state.weights = self._network.state_dict()
        state.optimizer = self._optimizer.state_dict()
        state.averaged = {} if self._average is None else self._average.weights


def _random(device: torch.device) -> dict[str, Tensor]:
    """Return the states of this process's random numbers."""
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set_random(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
