"""Search for the best network and training settings: the stage that ``boneseg tune`` and the pipeline call."""

from __future__ import annotations

import logging

from boneseg.dataset.manifest import Dataset
from boneseg.dataset.shards import load_dataset
from boneseg.encoder_compatibility import PAPER_ENCODERS
from boneseg.errors import ModelError, RecordError, SettingsError
from boneseg.identity import stable_hash
from boneseg.ray_cluster.environment import before_ray
from boneseg.safe_csv import csv_text
from boneseg.settings import identities
from boneseg.settings.schema import RunSettings, TuneSettings
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace
from boneseg.train.runs import RunRecord
from boneseg.train.training_state import StateKeeper
from boneseg.tune.conductor import PAUSED, Conductor, NoRule, StopRule, value_of
from boneseg.tune.journal import Journal, Trial
from boneseg.tune.population import Population
from boneseg.tune.records import FAILED, STOPPED, TrialRow, TuneResult
from boneseg.tune.resume import remember
from boneseg.tune.searchers import Grid, Random, Searcher
from boneseg.tune.space import ENCODER, Space, apply_best, overrides
from boneseg.tune.space_file import space_of
from boneseg.tune.sweep import Sweep, trial_settings

__all__ = ["TrialRow", "TuneResult", "apply_best", "tune"]

log = logging.getLogger(__name__)

TABLE_FILE, RESULT_FILE = "table.csv", "sweep.json"


def tune(workspace: Workspace, dataset_uri: str, settings: RunSettings) -> TuneResult:
    """Run a sweep, or return at once what a finished one of the same settings and data found.

    An interrupted sweep goes on, on whatever machine: its trials are in the bucket with all that they reported. Those
    that are over do not run again, the others go on after their last epoch, and new ones are chosen knowing all that.

    Args:
        workspace: bucket and local folder.
        dataset_uri: as ``prepare`` returned it.
        settings: of the run; ``tune`` says what to search, ``model`` and ``train`` hold for all trials.

    Raises:
        SettingsError: the space is wrong, or the same sweep was started somewhere else meanwhile.
        DataError: the dataset is not there.
        ModelError: every trial failed.
    """
    space = space_of(settings)
    dataset = load_dataset(workspace, dataset_uri)
    name = sweep_name(dataset, settings)
    kept = _finished(workspace, name, settings.tune)
    if kept is not None:
        log.info("sweep %s is finished; its table is used again", name)
        return kept.model_copy(update={"reused": True})
    check_encoders(space)
    sweep = Sweep(name, workspace, dataset, settings)
    remember(workspace, name, dataset_uri, settings)
    journal = Journal(workspace.store, name)
    journal.take_over()
    if journal.trials:
        over = sum(trial.is_over for trial in journal.trials.values())
        log.info("sweep %s goes on: %d of its trials are over, %d are not", name, over, len(journal.trials) - over)
    before_ray()
    population = Population(space, settings.train.seed) if settings.tune.scheduler == "pbt" else None
    conductor = Conductor(sweep, journal, _searcher(space), _rule(settings.tune), population=population)
    if settings.train.workers == 1:
        from boneseg.tune.ray import run_trials
    else:
        from boneseg.tune.in_turn import run_trials
    run_trials(conductor)
    conductor.close()
    return _result(conductor, space)


def sweep_name(dataset: Dataset, settings: RunSettings) -> str:
    """Return the name of a sweep, by all that decides its outcome."""
    values = settings.model_dump(mode="json")
    decides = [identities.TUNE.select(values["tune"]), dataset.dataset_hash]
    decides += [identities.MODEL.hash(values["model"]), identities.SWEEP_TRAIN.hash(values["train"])]
    return f"{settings.name or 'sweep'}-{stable_hash(decides)}"


def check_encoders(space: Space) -> None:
    """Refuse encoders that nobody knows.

    Raises:
        SettingsError: names the encoder, and those that look like it.
    """
    from boneseg.models.smp import check_encoder

    papers = {name for names in PAPER_ENCODERS.values() for name in names}
    for dimension in space.dimensions:
        if dimension.name == ENCODER:
            for encoder in {value for part in dimension.parts for value in part.values} - papers:
                try:
                    check_encoder(encoder)
                except SettingsError as error:
                    raise SettingsError(f"{ENCODER}: {error}") from None


def _finished(workspace: Workspace, name: str, settings: TuneSettings) -> TuneResult | None:
    """Return what a finished sweep found; none where there is none, or a larger budget lets it go on."""
    place = layout.sweep(name, RESULT_FILE)
    text = workspace.store.read_if_there(place)
    if text is None:
        return None
    try:
        kept = TuneResult.read(text, workspace.store.uri(place), "it is made anew")
    except RecordError as error:
        log.warning("%s", error)  # its trials are found again, so this is quick
        return None
    if kept.name != name:
        return None
    used = kept.budget_used
    more = (settings.hours is None or settings.hours > used.get("hours", 0.0)) and (
        settings.gpu_hours is None or settings.gpu_hours > used.get("device_hours", 0.0)
    )
    return None if kept.ended and more else kept


def _searcher(space: Space) -> Searcher:
    settings, seed = space.base.tune, space.base.train.seed
    if settings.searcher == "grid":
        _check_grid(space)
        return Grid(space)
    if settings.searcher == "random":
        return Random(space, seed)
    from boneseg.tune.optuna import Optuna

    minimise = [metric == "ms_per_slice" for metric in settings.metrics]
    return Optuna(space, seed, settings.trials, minimise, parallel=settings.parallel > 1)


def _check_grid(space: Space) -> None:
    for dimension in space.dimensions:
        if not all(part.grid() for part in dimension.parts):
            raise SettingsError(
                f"{dimension.name} is a range, of which a grid needs to know how many values to try; give it points, "
                "such as {loguniform: [1.0e-4, 3.0e-3], points: 3}, or set tune.searcher to optuna"
            )


def _rule(settings: TuneSettings) -> StopRule:
    if settings.scheduler != "asha":
        return NoRule()
    from boneseg.tune.halving import Halving

    return Halving(settings.epochs)


def _result(conductor: Conductor, space: Space) -> TuneResult:
    sweep, trials = conductor.sweep, conductor.trials
    workspace, settings = sweep.workspace, sweep.settings.tune
    ranked = sorted(trials, key=lambda trial: _rank(trial, settings.metrics[0]))
    if not ranked or ranked[0].state == FAILED or not ranked[0].history:
        reason = ranked[0].error or "it was stopped before its first epoch" if ranked else "no combination works"
        raise ModelError(f"every trial of the sweep failed; the first one: {reason}")
    rows = tuple(_row(sweep, trial) for trial in ranked)
    table_uri = workspace.store.write(layout.sweep(sweep.name, TABLE_FILE), _table(rows), "text/csv")
    result = TuneResult(
        name=sweep.name,
        best=overrides(ranked[0].choice),
        table_uri=table_uri,
        rows=rows,
        reused=False,
        space=space.described(),
        scheduler=settings.scheduler,
        searcher=settings.searcher,
        metric=settings.metrics[0],
        budget_used={
            "trials": float(len(trials)),
            "hours": conductor.seconds / 3600,
            "device_hours": sum(trial.device_hours for trial in trials),
        },
        ended=conductor.out_of_budget(),
    )
    workspace.store.write(layout.sweep(sweep.name, RESULT_FILE), result.to_json(), "application/json")
    _clean(sweep, trials)
    return result


def _row(sweep: Sweep, trial: Trial) -> TrialRow:
    chosen = trial_settings(sweep.settings, trial.choice)
    return TrialRow(
        architecture=chosen.model.architecture,
        encoder=chosen.model.encoder,
        learning_rate=chosen.train.learning_rate,
        loss=chosen.train.loss,
        epochs=len(trial.history),
        best_mean_iou=value_of(trial, "mean_iou"),
        bone_dice=trial.history[-1].bone_dice if trial.history else None,
        run=trial.run,
        error=trial.error,
        choice=trial.choice,
        history=trial.history,
        seconds=trial.seconds,
        device_hours=trial.device_hours,
        parameters=trial.parameters,
        ms_per_slice=trial.ms_per_slice,
        stopped=trial.stopped,
        state=STOPPED if trial.state == PAUSED else trial.state,
    )


def _rank(trial: Trial, metric: str) -> tuple[bool, float]:
    value = value_of(trial, metric)
    return trial.state == FAILED or value is None, -(value or 0.0)


def _table(rows: tuple[TrialRow, ...]) -> bytes:
    heads = [name for name in TrialRow.model_fields if name != "history"]
    return csv_text([heads, *([getattr(row, head) for head in heads] for row in rows)]).encode()


def _clean(sweep: Sweep, trials: list[Trial]) -> None:
    """Remove what trials kept to continue from, where they are over."""
    for trial in trials:
        if trial.is_over:
            chosen = trial_settings(sweep.settings, trial.choice)
            record = RunRecord.of(sweep.dataset.dataset_hash, chosen.model, chosen.train)
            for run, identity in ((trial.run, record.identity), *trial.earlier):
                StateKeeper(sweep.workspace, run, identity).discard()
