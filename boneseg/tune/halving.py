"""Ray Tune's ASHA as a rule that stops trials, fed by hand: so it knows the trials of before an interruption too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from boneseg.ray_cluster.outcome import EPOCH, METRIC

HALVING = 2
"""ASHA goes on with one in two trials at each of its milestones: after epochs 1, 2, 4, 8 ..."""


class Halving:
    """Asynchronous successive halving (Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020)."""

    def __init__(self, epochs: int) -> None:
        # A trial that reached max_t would be stopped before it could save its model.
        self._asha = ASHAScheduler(
            time_attr=EPOCH, metric=METRIC, mode="max", max_t=epochs + 1, grace_period=1, reduction_factor=HALVING
        )
        self._added: set[int] = set()
        self._nobody: Any = None  # ASHA asks nothing of Tune's controller

    def stops(self, number: int, epoch: int, value: float) -> bool:
        """Take note of a trial's best value until an epoch, and say whether it ends there."""
        trial: Any = SimpleNamespace(trial_id=str(number))  # the same for all attempts at a trial
        if number not in self._added:
            self._asha.on_trial_add(self._nobody, trial)
            self._added.add(number)
        decision = self._asha.on_trial_result(self._nobody, trial, {EPOCH: epoch, METRIC: value})
        return bool(decision == TrialScheduler.STOP)
