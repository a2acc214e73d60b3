"""Search for the best network and training settings: the stage that ``boneseg tune`` and the pipeline call."""

from __future__ import annotations

import logging
from typing import Any

from boneseg.dataset.manifest import Dataset
from boneseg.dataset.shards import load_dataset
from boneseg.errors import ModelError, RecordError
from boneseg.identity import stable_hash
from boneseg.ray_cluster.environment import before_ray
from boneseg.ray_cluster.outcome import BONE_DICE, EPOCH, METRIC, Outcome
from boneseg.safe_csv import csv_text
from boneseg.settings import identities
from boneseg.settings.schema import RunSettings
from boneseg.storage import layout
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace
from boneseg.train.runs import RunRecord
from boneseg.train.training_state import StateKeeper
from boneseg.tune.space import apply_best, overrides
from boneseg.tune.sweep import Sweep, trial_settings

__all__ = ["TrialRow", "TuneResult", "apply_best", "tune"]

log = logging.getLogger(__name__)

TABLE_FILE, RESULT_FILE = "table.csv", "sweep.json"


class TrialRow(Record):
    """One trial."""

    architecture: str
    encoder: str
    learning_rate: float
    loss: str
    epochs: int
    """Done; fewer than the sweep's where ASHA stopped the trial."""
    best_mean_iou: float | None
    """Of validation, at the best epoch; none where the trial failed before its first epoch."""
    bone_dice: float | None
    """Of validation, at the last epoch."""
    run: str
    """Name of the training run."""
    error: str | None
    """Why the trial failed."""


class TuneResult(Record):
    """A finished sweep."""

    name: str
    best: dict[str, Any]
    """Settings to train with, by section; see ``apply_best``."""
    table_uri: str
    rows: tuple[TrialRow, ...]
    """Best first, failed ones last."""
    reused: bool
    """Whether the sweep was finished before and no trial ran."""


def tune(workspace: Workspace, dataset_uri: str, settings: RunSettings) -> TuneResult:
    """Run a sweep, or return at once what a finished one of the same settings and data found.

    An interrupted sweep starts again with the same seed and so with the same trials: those that finished are used
    again, the one that was interrupted continues after its last epoch.

    Args:
        workspace: bucket and local folder.
        dataset_uri: as ``prepare`` returned it.
        settings: of the run; ``tune`` says what to search, ``model`` and ``train`` hold for all trials.

    Raises:
        DataError: the dataset is not there.
        ModelError: every trial failed.
    """
    dataset = load_dataset(workspace, dataset_uri)
    name = sweep_name(dataset, settings)
    text = workspace.store.read_if_there(layout.sweep(name, RESULT_FILE))
    if text is not None:
        try:
            kept = TuneResult.read(text, workspace.store.uri(layout.sweep(name, RESULT_FILE)), "it is made anew")
        except RecordError as error:
            log.warning("%s", error)  # finished trials are found again, so this is quick
        else:
            if kept.name == name:
                log.info("sweep %s is finished; its table is used again", name)
                return kept.model_copy(update={"reused": True})
    before_ray()
    from boneseg.tune.ray import run_trials

    outcomes = run_trials(Sweep(name, workspace, dataset, settings))
    rows = sorted((_row(dataset, settings, outcome) for outcome in outcomes), key=_rank)
    if not rows or rows[0].best_mean_iou is None:
        reason = rows[0].error if rows else "Ray started none"
        raise ModelError(f"every trial of the sweep failed; the first one: {reason}")
    table_uri = workspace.store.write(layout.sweep(name, TABLE_FILE), _table(rows), "text/csv")
    result = TuneResult(
        name=name, best=overrides(rows[0].model_dump()), table_uri=table_uri, rows=tuple(rows), reused=False
    )
    workspace.store.write(layout.sweep(name, RESULT_FILE), result.to_json(), "application/json")
    _clean(workspace, dataset, settings, outcomes)
    return result


def sweep_name(dataset: Dataset, settings: RunSettings) -> str:
    values = settings.model_dump(mode="json")
    decides = [identities.TUNE.select(values["tune"]), dataset.dataset_hash]
    decides += [identities.MODEL.hash(values["model"]), identities.SWEEP_TRAIN.hash(values["train"])]
    return f"{settings.name or 'sweep'}-{stable_hash(decides)}"


def _row(dataset: Dataset, settings: RunSettings, outcome: Outcome) -> TrialRow:
    chosen = trial_settings(settings, outcome.choice)
    return TrialRow(
        architecture=chosen.model.architecture,
        encoder=chosen.model.encoder,
        learning_rate=chosen.train.learning_rate,
        loss=chosen.train.loss,
        epochs=outcome.metrics.get(EPOCH, 0),
        best_mean_iou=outcome.metrics.get(METRIC) if outcome.metrics.get(EPOCH) else None,
        bone_dice=outcome.metrics.get(BONE_DICE),
        run=_run(dataset, settings, outcome).default_name(),
        error=outcome.error,
    )


def _run(dataset: Dataset, settings: RunSettings, outcome: Outcome) -> RunRecord:
    chosen = trial_settings(settings, outcome.choice)
    return RunRecord.of(dataset.dataset_hash, chosen.model, chosen.train)


def _rank(row: TrialRow) -> tuple[bool, float]:
    return row.error is not None or row.best_mean_iou is None, -(row.best_mean_iou or 0.0)


def _table(rows: list[TrialRow]) -> bytes:
    heads = list(TrialRow.model_fields)
    return csv_text([heads, *([getattr(row, head) for head in heads] for row in rows)]).encode()


def _clean(workspace: Workspace, dataset: Dataset, settings: RunSettings, outcomes: list[Outcome]) -> None:
    """Remove what trials kept to continue from: the sweep is over."""
    for outcome in outcomes:
        record = _run(dataset, settings, outcome)
        StateKeeper(workspace, record.default_name(), record.identity).discard()
