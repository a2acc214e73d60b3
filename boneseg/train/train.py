"""Train a network on a prepared dataset: the stage that ``boneseg train`` and the pipeline call."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from boneseg.dataset.manifest import Dataset, ShardRecord
from boneseg.dataset.shards import load_dataset
from boneseg.errors import DataError, SettingsError
from boneseg.models.build import build_model, check_batch_of_one, check_model
from boneseg.models.checkpoint import find_local, is_stored, save_model, stored_files, upload_model
from boneseg.models.weights import pretrained
from boneseg.ray_cluster.environment import before_ray
from boneseg.settings.schema import ModelSettings, RunSettings, Split, TrainSettings
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace
from boneseg.train.listeners import Listener, heard_by
from boneseg.train.loop import fit
from boneseg.train.pieces import fewest_together
from boneseg.train.process_group import ProcessGroup
from boneseg.train.progress_lines import EpochLines
from boneseg.train.runs import (
    RESULT_FILE,
    RunRecord,
    TrainResult,
    alone,
    claim,
    find_result,
    nothing_to_go_on_from,
    plan,
)
from boneseg.train.scalars import TensorBoard
from boneseg.train.task import Report, Task
from boneseg.train.training_state import StateKeeper, TrainingState

log = logging.getLogger(__name__)


def train(
    workspace: Workspace, dataset_uri: str, settings: RunSettings, listeners: Sequence[Listener] = ()
) -> TrainResult:
    """Train, continue an interrupted run of the same name, or return at once what a finished one made.

    Args:
        workspace: bucket and local folder.
        dataset_uri: as ``prepare`` returned it.
        settings: of the run; ``name``, ``model`` and ``train`` matter here.
        listeners: hear of every epoch beside the log and TensorBoard; they cannot harm the run.

    Raises:
        SettingsError: the model is unknown, or the name belongs to a run with other settings or data.
        DataError: there is nothing to train on or to validate on.
        ModelError: training diverged, or the pretrained weights are nowhere.
    """
    dataset = load_dataset(workspace, dataset_uri)
    kept = settings.train.keep_final
    return train_run(
        workspace, dataset, settings.model, settings.train, settings.name, listeners=listeners, keep_state=kept
    )


def train_run(
    workspace: Workspace,
    dataset: Dataset,
    model: ModelSettings,
    settings: TrainSettings,
    name: str | None = None,
    report: Report | None = None,
    slower: int = 0,
    listeners: Sequence[Listener] = (),
    keep_state: bool = False,
) -> TrainResult:
    """Do what ``train`` does, for a sweep too.

    Args:
        workspace: bucket and local folder.
        dataset: the data.
        model: the network.
        settings: how it is trained.
        name: of the run; none = from all of the above, so that the same again is found again.
        report: hears of every epoch; none = the log.
        slower: ways to compute that are passed over, since a process died in them.
        listeners: as in ``train``.
        keep_state: whether the last state stays in the bucket, so that epochs can be added.
    """
    _check_workers(settings)
    planned = plan(workspace, name, RunRecord.of(dataset.dataset_hash, model, settings))
    name, record = planned.name, planned.record
    task = Task(
        workspace=workspace,
        run=name,
        identity=record.identity,
        model=model,
        settings=settings,
        training=_series(dataset, Split.TRAIN),
        validation=_series(dataset, Split.VALIDATION),
        labelling=dataset.labelling,
        base=planned.base,
        slower=slower,
    )
    finished = find_result(workspace, name, record)
    if finished is not None and _has_model(workspace, finished):
        log.info("run %s is finished; its model is used again", name)
        return finished
    check_model(model, dataset.scheme.size)
    pretrained(workspace, model, settings.weights_mirror)  # an absent file is known now, not when workers have started
    if fewest_together(settings) == 1:
        check_batch_of_one(model, settings.crop, "micro_batch" if settings.batch_size > 1 else "batch_size")
    _check_base(task)
    claim(workspace, name, record)
    report = report or EpochLines(settings.epochs)
    with alone(workspace.run_folder(name), name), heard_by((TensorBoard(), *listeners), task, report) as heard:
        if settings.backend == "ray" or (settings.backend == "auto" and settings.workers != 1):
            before_ray()
            from boneseg.train.ray import fit_with_ray

            state = fit_with_ray(task, heard)
        else:
            state = fit(task, ProcessGroup(), heard)
        return finish(task, dataset, state, keep_state)


def _check_workers(settings: TrainSettings) -> None:
    least, most = settings.workers_range
    if settings.backend == "local" and most > 1:
        raise SettingsError(
            f"train.backend = local trains in one process, not in {settings.workers}; set train.backend to ray or auto"
        )
    if least > settings.batch_size:
        raise SettingsError(
            f"train.workers = {settings.workers}: workers share each batch, and one of train.batch_size = "
            f"{settings.batch_size} has no slice for each of {least}; lower train.workers or raise train.batch_size"
        )


def finish(task: Task, dataset: Dataset, state: TrainingState, keep_state: bool = False) -> TrainResult:
    """Save the best epoch's network, put it into the bucket, and record the run as finished, in this order."""
    network = build_model(task.model, dataset.scheme.size)
    network.load_state_dict(state.best_weights)
    folder = task.workspace.run_folder(task.run) / "model"
    card = save_model(
        folder,
        network,
        model=task.model,
        train=task.settings.model_copy(update={"workers": 1}),  # a card with more tells of batches that each had
        dataset_hash=dataset.dataset_hash,
        fingerprint=dataset.fingerprint,
        run=task.run,
        best_epoch=state.best_epoch,
        history=state.history,
        computed=state.computed,
        continued=state.continued,
        scheme=dataset.scheme,
    )
    result = TrainResult(
        model_uri=upload_model(task.workspace, folder),
        model_hash=card.model_hash,
        run=task.run,
        best_epoch=state.best_epoch,
        best_mean_iou=state.best_mean_iou,
        reused=False,
        history=state.history,
        files=stored_files(task.workspace, folder),
        identity=task.identity,
    )
    task.workspace.store.write(layout.run(task.run, RESULT_FILE), result.to_json(), "application/json")
    keeper = StateKeeper(task.workspace, task.run, task.identity)
    if keep_state:
        keeper.retire()
    else:
        keeper.discard()
    return result


def _check_base(task: Task) -> None:
    """Check, before the run is noted, that there is a state to add epochs to.

    Raises:
        SettingsError: there is none.
    """
    names = [(task.run, task.identity)] + ([(task.base.run, task.base.identity)] if task.base is not None else [])
    if task.base is not None and not any(StateKeeper(task.workspace, *each).is_kept() for each in names):
        raise nothing_to_go_on_from(task.base.run)


def _has_model(workspace: Workspace, result: TrainResult) -> bool:
    """Say whether a finished run's model is whole in the bucket; from a whole copy on this machine it is mended."""
    if is_stored(workspace, result.model_hash, result.files):
        return True
    local = find_local(workspace, result.model_hash, result.run)
    if local is None:
        log.warning("model %s of run %s is gone or damaged; training it again", result.model_uri, result.run)
        return False
    log.warning("model %s was gone or damaged; it is uploaded again from %s", result.model_uri, local)
    upload_model(workspace, local)
    return True


def _series(dataset: Dataset, split: Split) -> tuple[ShardRecord, ...]:
    series = dataset.of(split)
    if not series:
        raise DataError(
            f"dataset {dataset.dataset_hash} has no {split} series; add patients, raise prepare.splits.{split}, or "
            "assign patients with prepare.splits.override"
        )
    return series
