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
from torch.optim import Optimizer

from boneseg.dataset.slices import SliceDataset, TrainingBatches
from boneseg.errors import ModelError
from boneseg.models.build import AnySize, build_model
from boneseg.models.card import EpochRecord
from boneseg.models.precision import choose_precision
from boneseg.models.weights import load_pretrained, pretrained
from boneseg.train.epoch import precise_batch_norm, train_epoch
from boneseg.train.optimisation import build_optimizer, restore
from boneseg.train.process_group import ProcessGroup
from boneseg.train.step_check import Chosen, fastest_correct
from boneseg.train.step_check_worker import Step
from boneseg.train.task import Report, Task
from boneseg.train.training_state import StateKeeper, TrainingState
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
    """Train, from the first epoch or from where the run was interrupted, to the last epoch.

    Args:
        task: what to train.
        group: this process among those that train together.
        report: called in every process of the group after each epoch.

    Returns:
        The final state, with the weights of the epoch of the best validation mean IoU.

    Raises:
        ModelError: the loss is not a number any more, or this CPU computes the network wrong in every way.
        SettingsError: the same run was started somewhere else meanwhile.
        StoreError: the final state cannot be stored in the bucket.
    """
    settings = task.settings
    way = agree_on_precision(task, group)
    precision = way.precision
    torch.manual_seed(settings.seed)
    keeper = StateKeeper(task.workspace, task.run, task.identity)
    state: TrainingState = group.broadcast(keeper.take_over() if group.is_rank_zero else None)
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
    if state.epoch:
        restore(optimizer, state, task.run)
    for record in state.history:
        report(record)
    replica = group.data_parallel(network)

    for epoch in range(state.epoch + 1, settings.epochs + 1):
        started = time.monotonic()
        torch.manual_seed(hash((settings.seed, epoch, group.rank)))
        loss, accuracy = train_epoch(replica, optimizer, training, epoch, precision, group)
        precise_batch_norm(network, training, epoch, precision)
        group.broadcast_buffers(network)
        validation_loss, counts = validate(network, validation, settings.loss, precision, group)
        record = epoch_record(
            epoch, (loss, accuracy), validation_loss, counts, task.labelling, time.monotonic() - started
        )
        advance(state, record, network, optimizer)
        if group.is_rank_zero:
            keeper.save(state)
        report(record)
    keeper.wait()
    return state


def start_network(task: Task, state: TrainingState) -> AnySize:
    """Build the network as the last epoch left it; before the first one, with the weights it is to start from."""
    network = build_model(task.model, task.labelling.scheme.size)
    if state.epoch:
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
        batch=(settings.batch_size, channels, settings.crop, settings.crop),
        loss=settings.loss,
    )
    network = [task.model.architecture, task.model.encoder]
    own = fastest_correct(step, network, task.workspace.folder / "steps", task.slower)
    slowest = max(group.all_gather(own), key=lambda way: (not way.precision.bf16, way.precision.plain))
    precision = replace(own.precision, bf16=slowest.precision.bf16, plain=slowest.precision.plain)
    return Chosen(precision, slowest.reason)


def advance(state: TrainingState, record: EpochRecord, network: nn.Module, optimizer: Optimizer) -> None:
    """Bring a state to the end of an epoch; the best weights are copied, for training goes on changing the others."""
    state.weights = network.state_dict()
    state.optimizer = optimizer.state_dict()
    if record.validation_mean_iou > state.best_mean_iou:
        state.best_epoch = record.epoch
        state.best_weights = {name: value.clone() for name, value in state.weights.items()}
    state.history = (*state.history, record)
    state.epoch = record.epoch
