"""One network of a study: trained, its best epoch kept, measured on the test set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from boneseg.dataset.manifest import Dataset
from boneseg.evaluate.evaluate import evaluate
from boneseg.evaluate.records import EvaluationResult, load_evaluation
from boneseg.models.card import EpochRecord, ModelCard
from boneseg.models.checkpoint import fetch_model, read_card
from boneseg.ray_cluster.environment import before_ray
from boneseg.ray_cluster.outcome import EPOCH, JOB_STATE, METRIC, Outcome
from boneseg.storage.workspace import Workspace
from boneseg.study.plan import Plan, Trial
from boneseg.train.train import train_run

MODEL, EVALUATION = "model_uri", "evaluation_uri"


@dataclass(frozen=True)
class Shared:
    """What all trials need. Crosses process borders."""

    workspace: Workspace
    dataset: Dataset
    dataset_uri: str


@dataclass(frozen=True)
class Finished:
    """A network that was trained and measured."""

    trial: Trial
    card: ModelCard
    model_uri: str
    evaluation: EvaluationResult

    @property
    def seconds(self) -> float:
        """Time all epochs took."""
        return sum(record.seconds for record in self.card.history)


@dataclass(frozen=True)
class Failed:
    """A network that could not be trained or measured."""

    trial: Trial
    reason: str


def run_plan(plan: Plan, shared: Shared, name: str, parallel: int) -> list[Finished | Failed]:
    """Run all trials as one experiment in Ray Tune, and read back what they made, in the order of the plan."""
    trials = {trial.key: trial for trial in plan.trials}
    job = partial(run_trial, trials=trials, shared=shared)
    before_ray()
    from boneseg.ray_cluster.jobs import run_jobs

    outcomes = run_jobs(name, shared.workspace, tuple(trials), job, parallel)
    return [_result(trial, outcomes[key], shared.workspace) for key, trial in trials.items()]


def run_trial(
    key: str, say: Callable[[dict[str, Any]], None], slower: int, trials: dict[str, Trial], shared: Shared
) -> None:
    """Train and measure one network; what is finished is used again, what was interrupted continues.

    Args:
        key: of the trial.
        say: hears of every epoch, and at the end where model and evaluation are.
        slower: ways to compute that are passed over, since a process died in them.
        trials: by key.
        shared: store and data.
    """
    settings = trials[key].settings
    best = 0.0

    def report(record: EpochRecord) -> None:
        nonlocal best
        best = max(best, record.validation_mean_iou)
        say({EPOCH: record.epoch, METRIC: best})

    trained = train_run(shared.workspace, shared.dataset, settings.model, settings.train, report=report, slower=slower)
    state = "found trained" if trained.reused else "trained"
    say({JOB_STATE: f"{state}, epoch {trained.best_epoch} kept; now measured on the test set"})
    evaluated = evaluate(shared.workspace, trained.model_uri, shared.dataset_uri, settings.evaluate)
    say({JOB_STATE: "measured", MODEL: trained.model_uri, EVALUATION: evaluated.evaluation_uri})


def _result(trial: Trial, outcome: Outcome, workspace: Workspace) -> Finished | Failed:
    if outcome.error is not None or EVALUATION not in outcome.metrics:
        return Failed(trial, outcome.error or "it ended without a result; run the study again to continue it")
    uri = outcome.metrics[MODEL]
    card = read_card(fetch_model(workspace, uri))
    return Finished(trial, card, uri, load_evaluation(workspace, outcome.metrics[EVALUATION]))
