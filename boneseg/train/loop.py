"""The training loop, from the first batch to the best model: one process alone, or one of a process group."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from boneseg.dataset.slices import SliceDataset, TrainingBatches
from boneseg.errors import ModelError
from boneseg.models.build import AnySize, build_model
from boneseg.models.card import Continuation
from boneseg.models.precision import Precision, choose_precision, use_own_cpus
from boneseg.models.weights import load_pretrained, pretrained
from boneseg.train.compilation import compiled, pays
from boneseg.train.epoch import precise_batch_norm, train_epoch
from boneseg.train.measured import measure
from boneseg.train.optimisation import build_optimizer, restore
from boneseg.train.pictures import keep_picture
from boneseg.train.pieces import most_at_once
from boneseg.train.process_group import ProcessGroup
from boneseg.train.runs import nothing_to_go_on_from
from boneseg.train.step_check import Chosen, fastest_correct
from boneseg.train.step_check_worker import Step
from boneseg.train.task import Report, Task, TrainingStopped
from boneseg.train.training_state import StateKeeper, TrainingState
from boneseg.train.upkeep import Upkeep
from boneseg.train.validation import epoch_record, validate, validation_batches

log = logging.getLogger(__name__)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Compute with tiny numbers as zero: they slow a CPU down many times and change no weight."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@denormals_flushed()
def fit(task: Task, group: ProcessGroup, report: Report) -> TrainingState:
    """Train, from the first step or from where the run was interrupted, to the last epoch.

    Args:
        task: what to train.
        group: this process among those that train together.
        report: called in every process of the group after each epoch.

    Returns:
        The final state, with the weights of the epoch of the best validation mean IoU.

    Raises:
        ModelError: the loss is not a number any more, or this CPU computes the network wrong in every way.
        SettingsError: the same run was started somewhere else meanwhile, or there is nothing to add epochs to.
        StoreError: the final state cannot be stored in the bucket.
    """
    settings = task.settings
    use_own_cpus()
    way = agree_on_precision(task, group)
    precision = way.precision
    torch.manual_seed(settings.seed)
    keeper = StateKeeper(task.workspace, task.run, task.identity, settings.keep_last)
    state: TrainingState = group.broadcast(first_state(task, keeper) if group.is_rank_zero else None)
    state.computed = way.words
    network = precision.place(start_network(task, state))
    optimizer = build_optimizer(network, settings)
    training = TrainingBatches(
        SliceDataset(task.workspace, task.training, task.model.preprocess, task.labelling),
        settings,
        group.rank,
        group.size,
    )
    validation = validation_batches(task, training, group)
    if state.has_begun:
        restore(optimizer, state, task.run)
    for record in state.history:
        report(record)
    replica = data_parallel(task, network, precision, group)
    upkeep = Upkeep(task, group, keeper, state, network, optimizer, precision.device, training.steps)

    for epoch in range(state.epoch + 1, settings.epochs + 1):
        if upkeep.ends_early():
            break
        started = time.monotonic() - state.seconds
        torch.manual_seed(hash((settings.seed, epoch, 0)))
        loss, accuracy = train_epoch(replica, optimizer, training, epoch, precision, group, upkeep.course(started))
        speed = measure(training, precision.device, group)
        measured = upkeep.measured
        precise_batch_norm(measured, training, epoch, precision, group)
        validation_loss, counts = validate(measured, validation, settings.loss, precision, group)
        record = epoch_record(
            epoch, (loss, accuracy), validation_loss, counts, task.labelling, time.monotonic() - started
        )
        record = speed.added_to(record)
        upkeep.end_epoch(record)
        if group.is_rank_zero:
            keep_picture(task, epoch, measured, validation.slices, precision)
        try:
            report(record)
        except TrainingStopped:
            keeper.wait()
            raise
    keeper.wait()
    return state


def first_state(task: Task, keeper: StateKeeper) -> TrainingState:
    """Return the state to go on from: the run's own, else the last one of the run to which epochs are added.

    Raises:
        SettingsError: that one keeps no state.
    """
    state = keeper.take_over()
    if state.has_begun or task.base is None:
        return state
    base = StateKeeper(task.workspace, task.base.run, task.base.identity).load()
    if not base.has_begun:
        raise nothing_to_go_on_from(task.base.run)
    base.continued = (*base.continued, Continuation(run=task.base.run, epoch=base.epoch))
    log.info("run %s goes on after epoch %d of run %s", task.run, base.epoch, task.base.run)
    return base


def start_network(task: Task, state: TrainingState) -> AnySize:
    """Build the network as the last step left it; before the first one, with the weights it is to start from."""
    network = build_model(task.model, task.labelling.scheme.size)
    if state.has_begun:
        try:
            network.load_state_dict(state.weights)
        except RuntimeError as error:
            raise ModelError(
                f"run {task.run}: what it left off with does not fit {task.model.architecture} on "
                f"{task.model.encoder} as built here (another version of boneseg or of its libraries began it); give "
                "this run another name to start anew"
            ) from error
        return network
    file = pretrained(task.workspace, task.model, task.settings.weights_mirror)
    if file is not None:
        load_pretrained(network, task.model, file)
    return network


def agree_on_precision(task: Task, group: ProcessGroup) -> Chosen:
    """Choose number format and memory order: the fastest that computes this network right, for all processes alike."""
    settings, channels = task.settings, task.model.preprocess.slices
    step = Step(
        build=partial(build_model, task.model, task.labelling.scheme.size),
        precision=choose_precision(group.device or settings.device, settings.precision),
        batch=(most_at_once(settings, group.size), channels, settings.crop, settings.crop),
        loss=settings.loss,
    )
    network = [task.model.architecture, task.model.encoder]
    own = fastest_correct(step, network, task.workspace.folder / "steps", task.slower)
    slowest = max(group.all_gather(own), key=lambda way: (not way.precision.bf16, way.precision.plain))
    precision = replace(own.precision, bf16=slowest.precision.bf16, plain=slowest.precision.plain)
    return Chosen(precision, slowest.reason)


def data_parallel(task: Task, network: nn.Module, precision: Precision, group: ProcessGroup) -> nn.Module:
    """Return the network in the form that is trained: compiled where that pays, and one of the process group."""
    settings = task.settings
    if pays(settings, precision.device, group):
        batch = (most_at_once(settings, group.size), task.model.preprocess.slices, settings.crop, settings.crop)
        network = compiled(network, batch, precision, group)
    return group.data_parallel(network)
