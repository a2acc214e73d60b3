"""One epoch of training: its steps, and the statistics of batch normalisation after it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from itertools import islice

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import update_bn

from boneseg.dataset.slices import Batch, TrainingBatches
from boneseg.errors import ModelError
from boneseg.models.precision import Precision
from boneseg.progress import track
from boneseg.settings.schema import Loss, TrainSettings
from boneseg.train.losses import label_sums, loss_from, needs_probabilities, slope_of, sums_of
from boneseg.train.one_batch import one_batch
from boneseg.train.optimisation import Course
from boneseg.train.pieces import Piece, pieces
from boneseg.train.process_group import ALONE, ProcessGroup

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
    course: Course | None = None,
) -> tuple[float, float]:
    """Take one epoch's steps, or what is left of them; return mean loss and the share of pixels that were right."""
    settings = batches.settings
    course = course or Course.plain(settings, epoch, batches.steps)
    sums = torch.zeros(2, dtype=torch.float64, device=precision.device)  # loss, right pixels
    sums[0] += course.sums[0]  # the loss is that of all processes in each of them
    if group.is_rank_zero:
        sums[1] += course.sums[1]
    members = torch.from_numpy(batches.slices.labelling.members).to(precision.device)
    network.train()
    steps = batches.epoch(epoch, course.first)
    if group.is_rank_zero:
        left = batches.steps - course.first
        name = f"train {epoch}/{settings.epochs}"
        steps = track(steps, name, total=left, unit="steps", images=settings.batch_size)
    for step, batch in enumerate(steps, start=course.first):
        course.set_rates(optimizer, step)
        loss, right = training_step(network, optimizer, batch, settings, precision, members, group)
        sums[0] += loss  # stays on the device: reading it here would make a GPU wait
        sums[1] += right
        course.after_step(step + 1, sums)
    loss_sum, right_sum = float(sums[0]), float(group.all_reduce(sums)[1])
    if not math.isfinite(loss_sum):
        raise ModelError(
            f"training diverged in epoch {epoch}: the loss is not a number; lower train.learning_rate "
            f"(now {settings.learning_rate:g}) or set train.precision to fp32"
        )
    return loss_sum / batches.steps, right_sum / (batches.steps * settings.batch_size * settings.crop**2)


def precise_batch_norm(
    network: nn.Module, batches: TrainingBatches, epoch: int, precision: Precision, group: ProcessGroup = ALONE
) -> None:
    """Measure the means and variances of batch normalisation anew while the running ones still tell of the start.

    Running statistics need some 5 / momentum steps to follow; Keras's momentum makes that 500. Until then a network
    that learned well is validated with the wrong ones. Precise statistics as in Wu and Johnson, Rethinking "Batch" in
    BatchNorm (2021), over some batches of the epoch.
    """
    momenta = [layer.momentum for layer in network.modules() if isinstance(layer, nn.BatchNorm2d) and layer.momentum]
    if not momenta or epoch * batches.steps * min(momenta) >= TRUSTED_AFTER:
        return
    chosen = islice(batches.epoch(epoch), PRECISE_BATCHES)
    update_bn(
        (piece for batch in chosen for piece in pieces(batch, batches.settings, group)),
        _Together(network, precision, group),
    )


class _Together(nn.Module):
    """A network as all processes compute it together, for what torch calls with one argument."""

    def __init__(self, network: nn.Module, precision: Precision, group: ProcessGroup) -> None:
        super().__init__()
        self.network = network
        self.precision = precision
        self.group = group

    def forward(self, piece: Piece) -> Tensor:
        """Map a piece of a batch to its logits (N, classes, H, W)."""
        with one_batch(piece.rows, self.group), self.precision.autocast():
            logits: Tensor = self.network(self.precision.image(piece.batch.image))
        return logits


def training_step(
    network: nn.Module,
    optimizer: Optimizer,
    batch: Batch,
    settings: TrainSettings,
    precision: Precision,
    members: Tensor | None = None,
    group: ProcessGroup = ALONE,
) -> tuple[Tensor, Tensor]:
    """Take one optimizer step, all processes together.

    Args:
        network: as ``group.data_parallel`` returns it.
        optimizer: of its parameters.
        batch: this process's share of ``settings.batch_size`` slices.
        settings: loss, gradient norm, and how the batch is divided.
        precision: where and in what format to compute.
        members: (values, classes), which classes a label value may be; none = every value is its class.
        group: the processes.

    Returns:
        The loss of the whole batch before the step, the same in every process, and how many pixels of this process's
        share were right.
    """
    together, parts = _Together(network, precision, group), list(pieces(batch, settings, group))
    slope = _slope_of_all(together, parts, settings.loss, members) if len(parts) > 1 else None
    right: list[Tensor] = []
    seen: list[Tensor] = []
    for number, piece in enumerate(parts, start=1):
        label = piece.batch.label.to(precision.device, non_blocking=True).long()
        with group.gradients_stay(network) if number < len(parts) else nullcontext():
            logits = together(piece)
            own = sums_of(settings.loss, logits, label, members) * bool(piece.rows.own)
            seen.append(own.detach())
            if slope is None:
                seen = [group.all_reduce(own.detach().clone())]
                slope = slope_of(settings.loss, seen[0])
            # The loss of all is a function of sums over all: each adds its own part of the gradient, and torch's
            # averaging is turned into adding up.
            (own @ (slope * group.size)).backward()  # type: ignore[no-untyped-call]
        found = logits.detach().argmax(dim=1)
        hits = found == label if members is None else members[label, found]
        right.append(hits.sum() * bool(piece.rows.own))
    sums = seen[0] if len(parts) == 1 else group.all_reduce(torch.stack(seen).sum(dim=0))
    if settings.gradient_norm is not None:
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss_from(settings.loss, sums), torch.stack(right).sum()


@torch.no_grad()
def _slope_of_all(together: _Together, parts: list[Piece], kind: Loss, members: Tensor | None) -> Tensor:
    """Return the loss's slope for a batch that is computed piece by piece, before any of its gradients.

    Dice's depends on all that the network answers: it is asked twice, with the same random numbers, so that gradients
    are those of the whole batch's Dice.
    """
    device = together.precision.device
    before = [(buffer, buffer.clone()) for buffer in together.buffers()]  # running statistics are to follow once
    sums = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for piece in parts:
            label = piece.batch.label.to(device, non_blocking=True).long()
            if needs_probabilities(kind):
                own = sums_of(kind, together(piece), label, members)
            else:
                own = label_sums(label, members)
            sums.append(own * bool(piece.rows.own))
    for buffer, value in before:
        buffer.copy_(value)
    return slope_of(kind, together.group.all_reduce(torch.stack(sums).sum(dim=0)))
