"""Ray Tune: a sweep whose trials each run the plain training loop, or a list of jobs, in processes of their own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from boneseg.train.ray_cluster import cluster, storage_path  # sets what Ray reads when it is imported

# isort: split
import optuna
import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from boneseg.dataset.manifest import Dataset
from boneseg.errors import BonesegError
from boneseg.identity import stable_hash
from boneseg.models.card import EpochRecord
from boneseg.settings.schema import RunSettings, TuneSettings
from boneseg.storage.workspace import Workspace
from boneseg.train.train import train_run
from boneseg.tune.exit_cause import FAULTS, cause_of_death, note_death
from boneseg.tune.space import ARCHITECTURE, ENCODER, LEARNING_RATE, LOSS, apply_best, overrides

log = logging.getLogger(__name__)

METRIC, EPOCH, BONE_DICE, ERROR = "best_mean_iou", "epoch", "bone_dice", "error"
JOB, JOB_STATE = "job", "state"
"""A job says under the second name, in words, what it has done."""
CHOICE = "choice"
"""Under which a trial that is tried once more finds what it had chosen."""
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
    died: bool = False
    """Whether its process died, rather than raised."""


Say = Callable[[dict[str, Any]], None]
"""Takes what a job has to report; the last value under each name is kept."""
Job = Callable[[str, Say, int], None]
"""Does the work that a name stands for, passing over as many ways to compute as the last argument says. Crosses process
borders."""


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
        first = _finish(sweep.name, sweep.workspace, work, search_space(settings), scheduled, settings.parallel)

        def again(choices: list[dict[str, Any]]) -> list[Outcome]:
            space, config = {CHOICE: tune.grid_search(choices)}, _plain(settings.parallel)
            work = tune.with_parameters(_trial, sweep=sweep, slower=1)
            return _finish(f"{sweep.name}-again", sweep.workspace, work, space, config, settings.parallel)

        return _once_more(first, again)


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

    def run(name: str, names: list[str], slower: int) -> list[Outcome]:
        work = tune.with_parameters(_job, job=job, faults=workspace.folder / FAULTS, slower=slower)
        return _finish(name, workspace, work, {JOB: tune.grid_search(names)}, _plain(parallel), parallel)

    with cluster(least_cpus=parallel):
        first = run(name, list(jobs), 0)
        outcomes = _once_more(first, lambda died: run(f"{name}-again", [choice[JOB] for choice in died], 1))
    return {outcome.choice[JOB]: outcome for outcome in outcomes}


def _plain(parallel: int) -> tune.TuneConfig:
    return tune.TuneConfig(max_concurrent_trials=parallel, reuse_actors=True)


def _finish(
    name: str,
    workspace: Workspace,
    work: Callable[..., None],
    space: dict[str, Any],
    config: tune.TuneConfig,
    parallel: int,
) -> list[Outcome]:
    """Run an experiment to its end."""
    # Tune would answer Ctrl-C with the results so far, as if it were done.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    tuner = tune.Tuner(
        tune.with_resources(work, _share(parallel)),
        param_space=space,
        tune_config=config,
        run_config=tune.RunConfig(name=name, storage_path=storage_path(workspace), verbose=0, callbacks=[_Log()]),
    )
    results = tuner.fit()
    return [_outcome(results[number], workspace.folder / FAULTS) for number in range(len(results))]


def _once_more(outcomes: list[Outcome], again: Callable[[list[dict[str, Any]]], list[Outcome]]) -> list[Outcome]:
    """Try what died once more, the next slower way, and put what came of it in its place."""
    died = [outcome.choice for outcome in outcomes if outcome.died]
    if not died:
        return outcomes
    log.warning("%d of %d are tried once more in a slower way, since their processes died", len(died), len(outcomes))
    second = {stable_hash(outcome.choice): outcome for outcome in again(died)}
    final = []
    for outcome in outcomes:
        later = second.get(stable_hash(outcome.choice)) if outcome.died else outcome
        if later is not None and later.died:
            later = replace(later, error=f"{later.error}, and so it did before in a faster way of computing")
        final.append(later or outcome)
    return final


def _job(choice: dict[str, Any], job: Job, faults: Path, slower: int) -> None:
    """Do one job, reporting whenever it has something to say."""
    note_death(faults, choice)
    last: dict[str, Any] = {}

    def say(news: dict[str, Any]) -> None:
        last.update(news)
        tune.report(last)

    try:
        job(choice[JOB], say, slower)
    except BonesegError as error:
        say({ERROR: str(error)})


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


def _outcome(result: tune.Result, faults: Path) -> Outcome:
    metrics, config = result.metrics or {}, result.config or {}
    choice: dict[str, Any] = config.get(CHOICE, config)
    if result.error is None:
        return Outcome(choice, metrics, metrics.get(ERROR))
    text = str(result.error).strip()
    if isinstance(result.error, OutOfMemoryError) or "OutOfMemoryError" in text:
        return Outcome(choice, metrics, "memory ran out; lower train.batch_size or what runs in parallel")
    if isinstance(result.error, RayActorError) or "actor died" in text.lower():
        return Outcome(choice, metrics, f"its process {cause_of_death(faults, choice)}", died=True)
    return Outcome(choice, metrics, text.splitlines()[-1])


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
    return trial.config.get(JOB) or f"trial {trials.index(trial) + 1} {trial.config.get(CHOICE, trial.config)}"
