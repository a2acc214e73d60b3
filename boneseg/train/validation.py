"""Whole slices of the validation series, labelled and counted after each epoch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from boneseg.dataset.manifest import ShardRecord
from boneseg.dataset.preprocess import network_size
from boneseg.dataset.slices import SliceDataset, TrainingBatches, ValidationBatches, loader_threads
from boneseg.metrics import counts as metrics
from boneseg.models.card import EpochRecord
from boneseg.models.precision import Precision
from boneseg.progress import track
from boneseg.scheme import Labelling
from boneseg.settings.schema import Loss, PreprocessSettings
from boneseg.train.losses import loss_from, sums_of
from boneseg.train.pieces import most_at_once
from boneseg.train.process_group import ProcessGroup
from boneseg.train.task import Task

VALIDATION_SHARE = 0.5
"""Pixels of a validation per training pixel of an epoch, at most. A forward pass costs a third of a training step, so
validation takes at most a seventh of the time."""
VALIDATION_LEAST = 32
"""Slices that are validated in any case."""


@torch.inference_mode()
def validate(
    network: nn.Module, batches: ValidationBatches, loss_kind: Loss, precision: Precision, group: ProcessGroup
) -> tuple[float, metrics.Counts]:
    """Label whole slices; return the mean loss and pixel counts by value and predicted class, of all processes.

    A batch's loss does not depend on how many of its slices are computed at once.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=precision.device)  # loss times slices, slices
    members = torch.from_numpy(batches.slices.labelling.members).to(precision.device)
    values, classes = members.shape
    counts = torch.zeros(values * classes, dtype=torch.int64, device=precision.device)
    network.eval()
    for batch in track(batches, "validate", total=len(batches), unit="batches") if group.is_rank_zero else batches:
        parts = []
        for first in range(0, len(batch.label), batches.at_once):
            label = batch.label[first : first + batches.at_once].to(precision.device).long()
            with precision.autocast():
                logits = network(precision.image(batch.image[first : first + batches.at_once]))
            parts.append(sums_of(loss_kind, logits, label, members))
            counts += torch.bincount((label * classes + logits.argmax(dim=1)).flatten(), minlength=len(counts))
        sums[0] += loss_from(loss_kind, torch.stack(parts).sum(dim=0)) * len(batch.label)
        sums[1] += len(batch.label)
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


def validation_batches(task: Task, training: TrainingBatches, group: ProcessGroup) -> ValidationBatches:
    """Choose whole slices, evenly over all validation series, so many that validation stays cheap."""
    slices = SliceDataset(task.workspace, task.validation, task.model.preprocess, task.labelling)
    settings = task.settings
    trained = training.steps * settings.batch_size * settings.crop**2
    pixels_of = [math.prod(_network_size(record, task.model.preprocess)) for record in task.validation]
    limit = max(VALIDATION_LEAST, round(VALIDATION_SHARE * trained / float(np.mean(pixels_of))))
    size = max(1, settings.batch_size // 2)
    at_once = max(1, most_at_once(settings, group.size) // 2)
    return ValidationBatches(slices, size, loader_threads(settings), limit, group.rank, group.size, at_once)


def _network_size(record: ShardRecord, preprocess: PreprocessSettings) -> tuple[int, int]:
    _, rows, columns = record.geometry.shape
    return network_size((rows, columns), record.geometry.geometry().spacing[1:], preprocess)
