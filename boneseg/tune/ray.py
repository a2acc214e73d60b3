"""Ray Tune: a sweep whose trials each run the plain training loop in processes of their own."""

from __future__ import annotations

import logging
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from boneseg.errors import BonesegError
from boneseg.models.card import EpochRecord
from boneseg.ray_cluster.connect import cluster
from boneseg.ray_cluster.exit_cause import FAULTS, note_death
from boneseg.ray_cluster.jobs import finish, once_more, plain
from boneseg.ray_cluster.outcome import BONE_DICE, CHOICE, EPOCH, ERROR, METRIC, Outcome
from boneseg.settings.schema import TuneSettings
from boneseg.train.train import train_run
from boneseg.tune.space import ARCHITECTURE, ENCODER, LEARNING_RATE, LOSS
from boneseg.tune.sweep import Sweep, trial_settings

log = logging.getLogger(__name__)

HALVING = 2
"""ASHA goes on with one in two trials at each of its milestones."""


def search_space(settings: TuneSettings) -> dict[str, Any]:
    """Return Ray Tune's search space."""
    return {
        ARCHITECTURE: tune.choice(list(settings.architectures)),
        ENCODER: tune.choice(list(settings.encoders)),
        LEARNING_RATE: tune.loguniform(*settings.learning_rate),
        LOSS: tune.choice([loss.value for loss in settings.losses]),
    }


def run_trials(sweep: Sweep) -> list[Outcome]:
    """Run all trials; one that fails does not stop the others."""
    settings = sweep.settings.tune
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    scheduled = tune.TuneConfig(
        metric=METRIC,
        mode="max",
        num_samples=settings.trials,
        max_concurrent_trials=settings.parallel,
        reuse_actors=True,  # a new process for each trial would import torch each time
        search_alg=OptunaSearch(seed=sweep.settings.train.seed),
        # A trial that reached max_t would be stopped before it could save its model.
        scheduler=ASHAScheduler(time_attr=EPOCH, max_t=settings.epochs + 1, grace_period=1, reduction_factor=HALVING),
    )
    with cluster(least_cpus=settings.parallel):
        work = tune.with_parameters(_trial, sweep=sweep)
        first = finish(sweep.name, sweep.workspace, work, search_space(settings), scheduled, settings.parallel)

        def again(choices: list[dict[str, Any]]) -> list[Outcome]:
            space, config = {CHOICE: tune.grid_search(choices)}, plain(settings.parallel)
            work = tune.with_parameters(_trial, sweep=sweep, slower=1)
            return finish(f"{sweep.name}-again", sweep.workspace, work, space, config, settings.parallel)

        return once_more(first, again)


def _trial(choice: dict[str, Any], sweep: Sweep, slower: int = 0) -> None:
    """Train with one choice, reporting after each epoch. Ray ends the process if ASHA stops the trial."""
    choice = choice.get(CHOICE, choice)
    note_death(sweep.workspace.folder / FAULTS, choice)
    settings = trial_settings(sweep.settings, choice)
    last: dict[str, Any] = {EPOCH: 0, METRIC: 0.0}

    def report(record: EpochRecord) -> None:
        best = max(last[METRIC], record.validation_mean_iou)
        last.update({EPOCH: record.epoch, METRIC: best, BONE_DICE: record.bone_dice})
        tune.report(last)

    try:
        result = train_run(sweep.workspace, sweep.dataset, settings.model, settings.train, report=report, slower=slower)
    except BonesegError as error:  # a pair that does not work, a loss that diverged: a row of the table
        tune.report({**last, ERROR: str(error)})
        return
    if result.reused:
        for record in result.history:
            report(record)
