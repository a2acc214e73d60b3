"""Lists of jobs on Ray: each in a process of its own, what dies tried once more, and how each ended."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.experiment import Trial

from boneseg.errors import BonesegError
from boneseg.identity import stable_hash
from boneseg.ray_cluster.connect import cluster
from boneseg.ray_cluster.exit_cause import FAULTS, cause_of_death, note_death
from boneseg.ray_cluster.outcome import CHOICE, EPOCH, ERROR, JOB, JOB_STATE, METRIC, Job, Outcome
from boneseg.ray_cluster.resources import share, storage_path
from boneseg.storage.workspace import Workspace

log = logging.getLogger(__name__)


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
        work = tune.with_parameters(_job, job=job, workspace=workspace, slower=slower)
        return finish(name, workspace, work, {JOB: tune.grid_search(names)}, plain(parallel), parallel)

    with cluster(parallel, workspace):
        first = run(name, list(jobs), 0)
        outcomes = once_more(first, lambda died: run(f"{name}-again", [choice[JOB] for choice in died], 1))
    return {outcome.choice[JOB]: outcome for outcome in outcomes}


def plain(parallel: int) -> tune.TuneConfig:
    """Return how jobs run that are neither searched nor stopped early."""
    return tune.TuneConfig(max_concurrent_trials=parallel, reuse_actors=True)


def finish(
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
        tune.with_resources(work, share(parallel)),
        param_space=space,
        tune_config=config,
        run_config=tune.RunConfig(name=name, storage_path=storage_path(workspace), verbose=0, callbacks=[_Log()]),
    )
    results = tuner.fit()
    return [_outcome(results[number], workspace.folder / FAULTS) for number in range(len(results))]


def once_more(outcomes: list[Outcome], again: Callable[[list[dict[str, Any]]], list[Outcome]]) -> list[Outcome]:
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


def _job(choice: dict[str, Any], job: Job, workspace: Workspace, slower: int) -> None:
    """Do one job, reporting whenever it has something to say."""
    note_death(workspace.folder / FAULTS, choice)
    last: dict[str, Any] = {}

    def say(news: dict[str, Any]) -> None:
        last.update(news)
        tune.report(last)

    try:
        job(choice[JOB], say, slower)
    except BonesegError as error:
        say({ERROR: str(error)})


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
