"""One epoch of training: its steps, and the statistics of batch normalisation after it."""

from __future__ import annotations

import math
from itertools import islice

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import update_bn

from boneseg.dataset.slices import Batch, TrainingBatches
from boneseg.errors import ModelError
from boneseg.models.precision import Precision
from boneseg.progress import track
from boneseg.settings.schema import TrainSettings
from boneseg.train.losses import loss_of
from boneseg.train.optimisation import learning_rate
from boneseg.train.process_group import ProcessGroup

TRUSTED_AFTER = 5.0
"""Time constants after which running statistics are taken as they are."""
PRECISE_BATCHES = 16


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
