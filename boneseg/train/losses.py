"""What a network minimises, from logits (N, 3, H, W) and labels (N, H, W)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from boneseg.settings.schema import Loss

SMOOTH = 1.0
"""Pixels added to both sides of the Dice ratio, so that a class a batch does not have neither divides by zero nor
weighs much."""


def loss_of(kind: Loss, logits: Tensor, label: Tensor) -> Tensor:
    """Return one of the losses, a scalar, computed in float32 whatever the logits' type.

    Args:
        kind: which loss.
        logits: (N, 3, H, W), any float type.
        label: (N, H, W), int64 classes.
    """
    # Softmax over the last axis of contiguous memory is what both terms share; it is computed once.
    log_probabilities = functional.log_softmax(logits.float(), dim=1)
    return _TERMS[kind](log_probabilities, label)


def cross_entropy(log_probabilities: Tensor, label: Tensor) -> Tensor:
    """Mean of -log p(label) over all pixels."""
    return functional.nll_loss(log_probabilities, label)


def soft_dice(log_probabilities: Tensor, label: Tensor) -> Tensor:
    """Return 1 - mean over classes of (2 sum(p t) + 1) / (sum(p) + sum(t) + 1), sums over all pixels of the batch.

    Milletari et al., V-Net (2016), without squares in the denominator; p are probabilities, t is 1 where the label
    is the class.
    """
    probabilities = log_probabilities.exp()
    classes = torch.arange(probabilities.shape[1], device=label.device)[:, None, None]
    target = (label[:, None] == classes).to(probabilities.dtype)
    pixels = (0, 2, 3)
    shared = (probabilities * target).sum(pixels)
    total = probabilities.sum(pixels) + target.sum(pixels)
    return 1 - ((2 * shared + SMOOTH) / (total + SMOOTH)).mean()


def cross_entropy_dice(log_probabilities: Tensor, label: Tensor) -> Tensor:
    """Sum of both."""
    return cross_entropy(log_probabilities, label) + soft_dice(log_probabilities, label)


_TERMS: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    Loss.CROSS_ENTROPY: cross_entropy,
    Loss.DICE: soft_dice,
    Loss.CROSS_ENTROPY_DICE: cross_entropy_dice,
}
