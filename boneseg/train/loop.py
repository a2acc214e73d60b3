"""The training loop, from the first batch to the best model: one process alone, or one of a process group."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adadelta, AdamW, Optimizer
from torch.optim.swa_utils import update_bn

from boneseg.dataset.manifest import ShardRecord
from boneseg.dataset.preprocess import network_size
from boneseg.dataset.slices import Batch, SliceDataset, TrainingBatches, ValidationBatches
from boneseg.errors import ModelError
from boneseg.metrics import counts as metrics
from boneseg.models.build import AnySize, build_model
from boneseg.models.card import EpochRecord
from boneseg.models.precision import Precision, choose_precision
from boneseg.models.weights import load_pretrained, pretrained
from boneseg.progress import track
from boneseg.scheme import Labelling
from boneseg.scheme.labelling import THREE_CLASSES
from boneseg.settings.schema import Loss, ModelSettings, PreprocessSettings, TrainSettings
from boneseg.storage.workspace import Workspace
from boneseg.train.losses import loss_of
from boneseg.train.process_group import ProcessGroup
from boneseg.train.step_check import Chosen, fastest_correct
from boneseg.train.step_check_worker import Step
from boneseg.train.training_state import StateKeeper, TrainingState

log = logging.getLogger(__name__)

Report = Callable[[EpochRecord], None]
"""Hears of every epoch once it is saved, first of those before an interruption: where a log, Ray Train or a sweep
listens."""

WARMUP_SHARE, WARMUP_STEPS, FINAL_SHARE = 0.05, 200, 0.01
TRUSTED_AFTER = 5.0
"""Time constants after which running statistics are taken as they are."""
PRECISE_BATCHES = 16
VALIDATION_SHARE = 0.5
"""Pixels of a validation per training pixel of an epoch, at most. A forward pass costs a third of a training step, so
validation takes at most a seventh of the time."""
VALIDATION_LEAST = 32
"""Slices that are validated in any case."""


@dataclass(frozen=True)
class Task:
    """What to train, on what, under which name. Crosses process borders."""

    workspace: Workspace
    run: str
    identity: str
    model: ModelSettings
    settings: TrainSettings
    training: tuple[ShardRecord, ...]
    validation: tuple[ShardRecord, ...]
    labelling: Labelling = THREE_CLASSES
    """What the values of the labels are."""
    slower: int = 0
    """Ways to compute that are passed over, from the fastest on: a process died computing so."""


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


def restore(optimizer: Optimizer, state: TrainingState, run: str) -> None:
    """Give the optimizer what it had learned of the gradients, as far as it fits."""
    try:
        optimizer.load_state_dict(state.optimizer)
    except (ValueError, KeyError) as error:
        log.warning("run %s: its optimizer starts anew after epoch %d (%s)", run, state.epoch, error)


def train_epoch(
    network: nn.Module,
    optimizer: Optimizer,
    batches: TrainingBatches,
    epoch: int,
    precision: Precision,
    group: ProcessGroup,
) -> tuple[float, float]:
    """Take one epoch's steps; return mean loss and the share of pixels that were right."""
    settings = batches.settings
    total = batches.steps * settings.epochs
    sums = torch.zeros(2, dtype=torch.float64, device=precision.device)  # loss, right pixels
    members = torch.from_numpy(batches.slices.labelling.members).to(precision.device)
    network.train()
    steps = batches.epoch(epoch)
    if group.is_rank_zero:
        steps = iter(track(steps, f"train {epoch}/{settings.epochs}", total=batches.steps, unit="steps"))
    for step, batch in enumerate(steps, start=(epoch - 1) * batches.steps):
        for parameters in optimizer.param_groups:
            parameters["lr"] = learning_rate(step, total, settings)
        loss, right = training_step(network, optimizer, batch, settings, precision, members)
        sums[0] += loss  # stays on the device: reading it here would make a GPU wait
        sums[1] += right
    loss_sum, right_sum = group.all_reduce(sums).tolist()
    if not math.isfinite(loss_sum):
        raise ModelError(
            f"training diverged in epoch {epoch}: the loss is not a number; lower train.learning_rate "
            f"(now {settings.learning_rate:g}) or set train.precision to fp32"
        )
    taken = batches.steps * group.size
    return loss_sum / taken, right_sum / (taken * settings.batch_size * settings.crop**2)


def precise_batch_norm(network: nn.Module, batches: TrainingBatches, epoch: int, precision: Precision) -> None:
    """Measure the means and variances of batch normalisation anew while the running ones still tell of the start.

    Running statistics need some 5 / momentum steps to follow; Keras's momentum makes that 500. Until then a network
    that learned well is validated with the wrong ones. Precise statistics as in Wu and Johnson, Rethinking "Batch" in
    BatchNorm (2021), over some batches of the epoch.
    """
    momenta = [layer.momentum for layer in network.modules() if isinstance(layer, nn.BatchNorm2d) and layer.momentum]
    if not momenta or epoch * batches.steps * min(momenta) >= TRUSTED_AFTER:
        return
    images = (precision.image(batch.image) for batch in islice(batches.epoch(epoch), PRECISE_BATCHES))
    with precision.autocast():
        update_bn(images, network)


def training_step(
    network: nn.Module,
    optimizer: Optimizer,
    batch: Batch,
    settings: TrainSettings,
    precision: Precision,
    members: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Take one optimizer step; return the loss and how many pixels were right before it.

    ``members`` (values, classes) says which classes a label value may be; none = every value is its class.
    """
    label = batch.label.to(precision.device, non_blocking=True).long()
    with precision.autocast():
        logits = network(precision.image(batch.image))
    loss = loss_of(settings.loss, logits, label, members)
    loss.backward()  # type: ignore[no-untyped-call]
    if settings.gradient_norm is not None:
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    found = logits.detach().argmax(dim=1)
    return loss.detach(), (found == label if members is None else members[label, found]).sum()


@torch.inference_mode()
def validate(
    network: nn.Module, batches: ValidationBatches, loss_kind: Loss, precision: Precision, group: ProcessGroup
) -> tuple[float, metrics.Counts]:
    """Label whole slices; return the mean loss and pixel counts by value and predicted class, of all processes."""
    sums = torch.zeros(2, dtype=torch.float64, device=precision.device)  # loss times slices, slices
    members = torch.from_numpy(batches.slices.labelling.members).to(precision.device)
    values, classes = members.shape
    counts = torch.zeros(values * classes, dtype=torch.int64, device=precision.device)
    network.eval()
    for batch in track(batches, "validate", total=len(batches), unit="batches") if group.is_rank_zero else batches:
        label = batch.label.to(precision.device).long()
        with precision.autocast():
            logits = network(precision.image(batch.image))
        sums[0] += loss_of(loss_kind, logits, label, members) * len(label)
        sums[1] += len(label)
        counts += torch.bincount((label * classes + logits.argmax(dim=1)).flatten(), minlength=len(counts))
    loss, slices = group.all_reduce(sums).tolist()
    pooled = group.all_reduce(counts).cpu().numpy().reshape(values, classes)
    return loss / slices, pooled


def epoch_record(
    epoch: int,
    training: tuple[float, float],
    validation_loss: float,
    counts: metrics.Counts,
    labelling: Labelling,
    seconds: float,
) -> EpochRecord:
    """Write down an epoch. A class that occurs nowhere counts 0 by itself and is left out of the means."""
    regions = metrics.Regions.of(labelling.members, [[value] for value in range(labelling.scheme.size)])
    iou, dice = metrics.iou(counts, regions), metrics.dice(counts, regions)
    right = np.where(labelling.members, counts, 0).sum()
    bones = metrics.Regions.of(labelling.members, [labelling.scheme.bones])
    return EpochRecord(
        epoch=epoch,
        train_loss=training[0],
        train_accuracy=training[1],
        validation_loss=validation_loss,
        validation_accuracy=float(right / counts.sum()),
        validation_iou=tuple(np.nan_to_num(iou).tolist()),
        validation_dice=tuple(np.nan_to_num(dice).tolist()),
        validation_mean_iou=float(metrics.mean_over_classes(iou)),
        validation_mean_dice=float(metrics.mean_over_classes(dice)),
        validation_bone_dice=float(np.nan_to_num(metrics.dice(counts, bones))[0]),
        seconds=seconds,
    )


def advance(state: TrainingState, record: EpochRecord, network: nn.Module, optimizer: Optimizer) -> None:
    """Bring a state to the end of an epoch; the best weights are copied, for training goes on changing the others."""
    state.weights = network.state_dict()
    state.optimizer = optimizer.state_dict()
    if record.validation_mean_iou > state.best_mean_iou:
        state.best_epoch = record.epoch
        state.best_weights = {name: value.clone() for name, value in state.weights.items()}
    state.history = (*state.history, record)
    state.epoch = record.epoch


def build_optimizer(network: nn.Module, settings: TrainSettings) -> Optimizer:
    """Make the optimizer of a run. Adadelta (Zeiler, 2012) has Keras's constants, not torch's."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adadelta":
        return Adadelta(network.parameters(), lr=rate, rho=0.95, eps=1e-7, weight_decay=decay)
    return AdamW(network.parameters(), lr=rate, weight_decay=decay, fused=True)


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Return the rate of a step, counted from 0: constant, or linear warm-up and half a cosine down to 1 %."""
    highest = settings.learning_rate
    if settings.schedule == "constant":
        return highest
    warmup = max(1, min(WARMUP_STEPS, round(total * WARMUP_SHARE)))
    if step < warmup:
        return highest * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return highest * (FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2)


def validation_batches(task: Task, training: TrainingBatches, group: ProcessGroup) -> ValidationBatches:
    """Choose whole slices, evenly over all validation series, so many that validation stays cheap."""
    slices = SliceDataset(task.workspace, task.validation, task.model.preprocess, task.labelling)
    settings = task.settings
    trained = training.steps * group.size * settings.batch_size * settings.crop**2
    pixels_of = [math.prod(_network_size(record, task.model.preprocess)) for record in task.validation]
    limit = max(VALIDATION_LEAST, round(VALIDATION_SHARE * trained / float(np.mean(pixels_of))))
    size = max(1, settings.batch_size // 2)
    return ValidationBatches(slices, size, settings.loader_threads, limit, group.rank, group.size)


def _network_size(record: ShardRecord, preprocess: PreprocessSettings) -> tuple[int, int]:
    _, rows, columns = record.geometry.shape
    return network_size((rows, columns), record.geometry.geometry().spacing[1:], preprocess)
