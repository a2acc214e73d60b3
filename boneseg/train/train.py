"""Train a network on a prepared dataset: the stage that ``boneseg train`` and the pipeline call."""

from __future__ import annotations

import logging

from boneseg.dataset.manifest import Dataset, ShardRecord
from boneseg.dataset.shards import load_dataset
from boneseg.errors import DataError, SettingsError
from boneseg.models.build import build_model, check_batch_of_one, check_model
from boneseg.models.card import EpochRecord
from boneseg.models.checkpoint import find_local, is_stored, save_model, stored_files, upload_model
from boneseg.models.weights import pretrained
from boneseg.ray_cluster.environment import before_ray
from boneseg.settings.schema import ModelSettings, RunSettings, Split, TrainSettings
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace
from boneseg.train.loop import fit
from boneseg.train.process_group import ProcessGroup
from boneseg.train.runs import RESULT_FILE, RunRecord, TrainResult, alone, check_name, claim, find_result
from boneseg.train.task import Report, Task
from boneseg.train.training_state import StateKeeper, TrainingState

log = logging.getLogger(__name__)


def train(workspace: Workspace, dataset_uri: str, settings: RunSettings) -> TrainResult:
    """Train, continue an interrupted run of the same name, or return at once what a finished one made.

    Args:
        workspace: bucket and local folder.
        dataset_uri: as ``prepare`` returned it.
        settings: of the run; ``name``, ``model`` and ``train`` matter here.

    Raises:
        SettingsError: the model is unknown, or the name belongs to a run with other settings or data.
        DataError: there is nothing to train on or to validate on.
        ModelError: training diverged, or the pretrained weights are nowhere.
    """
    return train_run(workspace, load_dataset(workspace, dataset_uri), settings.model, settings.train, settings.name)


def train_run(
    workspace: Workspace,
    dataset: Dataset,
    model: ModelSettings,
    settings: TrainSettings,
    name: str | None = None,
    report: Report | None = None,
    slower: int = 0,
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
    """
    if settings.backend == "local" and settings.workers > 1:
        raise SettingsError(
            f"train.backend = local trains in one process, not in {settings.workers}; set train.backend to ray or auto"
        )
    record = RunRecord.of(dataset.dataset_hash, model, settings)
    name = name or record.default_name()
    task = Task(
        workspace=workspace,
        run=name,
        identity=record.identity,
        model=model,
        settings=settings,
        training=_series(dataset, Split.TRAIN),
        validation=_series(dataset, Split.VALIDATION),
        labelling=dataset.labelling,
        slower=slower,
    )
    check_name(workspace, name, record)
    finished = find_result(workspace, name)
    if finished is not None and _has_model(workspace, finished):
        log.info("run %s is finished; its model is used again", name)
        return finished
    check_model(model, dataset.scheme.size)
    pretrained(workspace, model, settings.weights_mirror)  # an absent file is known now, not when workers have started
    if settings.batch_size == 1:
        check_batch_of_one(model, settings.crop)
    claim(workspace, name, record)
    with alone(workspace.run_folder(name), name):
        if settings.backend == "ray" or (settings.backend == "auto" and settings.workers > 1):
            before_ray()
            from boneseg.train.ray import fit_with_ray

            state = fit_with_ray(task, report or log_epoch)
        else:
            state = fit(task, ProcessGroup(), report or log_epoch)
        return finish(task, dataset, state)


def finish(task: Task, dataset: Dataset, state: TrainingState) -> TrainResult:
    """Save the best epoch's network, put it into the bucket, and record the run as finished, in this order."""
    network = build_model(task.model, dataset.scheme.size)
    network.load_state_dict(state.best_weights)
    folder = task.workspace.run_folder(task.run) / "model"
    card = save_model(
        folder,
        network,
        model=task.model,
        train=task.settings,
        dataset_hash=dataset.dataset_hash,
        fingerprint=dataset.fingerprint,
        run=task.run,
        best_epoch=state.best_epoch,
        history=state.history,
        computed=state.computed,
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
    )
    task.workspace.store.write(layout.run(task.run, RESULT_FILE), result.to_json(), "application/json")
    StateKeeper(task.workspace, task.run, task.identity).discard()
    return result


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


def log_epoch(record: EpochRecord) -> None:
    """Write one line on an epoch to the log."""
    log.info(
        "epoch %d: loss %.4f, validation loss %.4f, mean IoU %.4f, bone Dice %.4f (%.0f s)",
        record.epoch,
        record.train_loss,
        record.validation_loss,
        record.validation_mean_iou,
        record.bone_dice,
        record.seconds,
    )


def _series(dataset: Dataset, split: Split) -> tuple[ShardRecord, ...]:
    series = dataset.of(split)
    if not series:
        raise DataError(
            f"dataset {dataset.dataset_hash} has no {split} series; add patients, raise prepare.splits.{split}, or "
            "assign patients with prepare.splits.override"
        )
    return series
