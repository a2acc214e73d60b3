"""Ray Tune: a sweep whose trials each run the plain training loop, or a list of jobs, in processes of their own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from boneseg.train.cluster import cluster, storage_path  # sets what Ray reads when it is imported

# isort: split
import optuna
import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from boneseg.dataset.manifest import Dataset
from boneseg.errors import BonesegError
from boneseg.models.card import EpochRecord
from boneseg.settings.schema import RunSettings, TuneSettings
from boneseg.storage.workspace import Workspace
from boneseg.train.train import train_run
from boneseg.tune.space import ARCHITECTURE, ENCODER, LEARNING_RATE, LOSS, apply_best, overrides

log = logging.getLogger(__name__)

METRIC, EPOCH, BONE_DICE, ERROR = "best_mean_iou", "epoch", "bone_dice", "error"
JOB, JOB_STATE = "job", "state"
"""A job says under the second name, in words, what it has done."""
HALVING = 2
"""ASHA goes on with one in two trials at each of its milestones."""


@dataclass(frozen=True)
class Sweep:
    """What all trials share. Crosses process borders."""

    name: str
    workspace: Workspace
    dataset: Dataset
    settings: RunSettings


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: what it chose, what it reported last, and why it failed if it did."""

    choice: dict[str, Any]
    metrics: dict[str, Any]
    error: str | None


Say = Callable[[dict[str, Any]], None]
"""Takes what a job has to report; the last value under each name is kept."""
Job = Callable[[str, Say], None]
"""Does the work that a name stands for. Crosses process borders."""


def trial_settings(settings: RunSettings, choice: dict[str, Any]) -> RunSettings:
    """Return a trial's settings: one process, the sweep's epochs, and its own choice."""
    chosen = apply_best(settings, overrides(choice))
    train = chosen.train.model_copy(update={"epochs": settings.tune.epochs, "workers": 1, "backend": "local"})
    return chosen.model_copy(update={"train": train})


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
    with cluster(least_cpus=settings.parallel):
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trial, sweep=sweep), _share(settings.parallel)),
            param_space=search_space(settings),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                num_samples=settings.trials,
                max_concurrent_trials=settings.parallel,
                reuse_actors=True,  # a new process for each trial would import torch each time
                search_alg=OptunaSearch(seed=sweep.settings.train.seed),
                # A trial that reached max_t would be stopped before it could save its model.
                scheduler=ASHAScheduler(
                    time_attr=EPOCH, max_t=settings.epochs + 1, grace_period=1, reduction_factor=HALVING
                ),
            ),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=storage_path(sweep.workspace),
                verbose=0,
                callbacks=[_Log()],
            ),
        )
        return _finish(tuner)


def run_jobs(name: str, workspace: Workspace, jobs: tuple[str, ...], job: Job, parallel: int) -> dict[str, Outcome]:
    """Run jobs as one experiment, each in a process of its own; one that fails does not stop the others.

    Args:
        name: of the experiment.
        workspace: where Ray keeps its notes.
        jobs: what each job is called, which is all that distinguishes it.
        job: does one.
        parallel: jobs at the same time; they share the cluster's CPUs and GPUs.

    Returns:
        Job -> how it ended.
    """
    with cluster(least_cpus=parallel):
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_job, job=job), _share(parallel)),
            param_space={JOB: tune.grid_search(list(jobs))},
            tune_config=tune.TuneConfig(max_concurrent_trials=parallel, reuse_actors=True),
            run_config=tune.RunConfig(name=name, storage_path=storage_path(workspace), verbose=0, callbacks=[_Log()]),
        )
        return {outcome.choice[JOB]: outcome for outcome in _finish(tuner)}


def _finish(tuner: tune.Tuner) -> list[Outcome]:
    # Tune would answer Ctrl-C with the results so far, as if it were done.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    results = tuner.fit()
    return [_outcome(results[number]) for number in range(len(results))]


def _job(choice: dict[str, Any], job: Job) -> None:
    """Do one job, reporting whenever it has something to say."""
    last: dict[str, Any] = {}

    def say(news: dict[str, Any]) -> None:
        last.update(news)
        tune.report(last)

    try:
        job(choice[JOB], say)
    except BonesegError as error:
        say({ERROR: str(error)})


def _trial(choice: dict[str, Any], sweep: Sweep) -> None:
    """Train with one choice, reporting after each epoch. Ray ends the process if ASHA stops the trial."""
    settings = trial_settings(sweep.settings, choice)
    last: dict[str, Any] = {EPOCH: 0, METRIC: 0.0}

    def report(record: EpochRecord) -> None:
        best = max(last[METRIC], record.validation_mean_iou)
        last.update({EPOCH: record.epoch, METRIC: best, BONE_DICE: record.validation_dice[-1]})
        tune.report(last)

    try:
        result = train_run(sweep.workspace, sweep.dataset, settings.model, settings.train, report=report)
    except BonesegError as error:  # a pair that does not work, a loss that diverged: a row of the table
        tune.report({**last, ERROR: str(error)})
        return
    if result.reused:
        for record in result.history:
            report(record)


def _outcome(result: tune.Result) -> Outcome:
    metrics = result.metrics or {}
    error = metrics.get(ERROR)
    if result.error is not None:
        error = str(result.error).strip().splitlines()[-1]
    return Outcome(result.config or {}, metrics, error)


def _share(parallel: int) -> dict[str, float]:
    """Divide the cluster among trials that run at the same time."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = resources.get("GPU", 0.0)
    return {
        "cpu": max(1.0, resources["CPU"] // parallel),
        "gpu": gpus // parallel if gpus >= parallel else gpus / parallel,
    }


class _Log(tune.Callback):
    """Writes a line to the log after each epoch of each trial, and when a trial ends."""

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Log an epoch, or why there is none."""
        if ERROR in result:
            log.warning("%s failed, the others go on: %s", _name(trials, trial), result[ERROR])
        elif JOB_STATE in result:
            log.info("%s: %s", _name(trials, trial), result[JOB_STATE])
        else:
            name = _name(trials, trial)
            log.info("%s: epoch %d, best mean IoU %.4f", name, result[EPOCH], result[METRIC])


def _name(trials: list[Trial], trial: Trial) -> str:
    return trial.config.get(JOB) or f"trial {trials.index(trial) + 1} {trial.config}"
