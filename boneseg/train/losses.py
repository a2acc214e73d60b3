"""What a network minimises, from logits (N, classes, H, W) and labels (N, H, W).

A label value may stand for a set of classes (see ``scheme.labelling``): the probability of the set is the sum of its
members' (the marginal loss), and a class that a pixel may or may not be is left out of its Dice there. Shi et al.,
"Marginal loss and exclusion loss for partially supervised multi-organ segmentation", Medical Image Analysis 70, 2021.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from boneseg.settings.schema import Loss

SMOOTH = 1.0
"""Pixels added to both sides of the Dice ratio, so that a class a batch does not have neither divides by zero nor
weighs much."""


def loss_of(kind: Loss, logits: Tensor, label: Tensor, members: Tensor | None = None) -> Tensor:
    """Return one of the losses, a scalar, computed in float32 whatever the logits' type.

    Args:
        kind: which loss.
        logits: (N, classes, H, W), any float type.
        label: (N, H, W), int64 values.
        members: (values, classes), bool: which classes a value may be; none = every value is its class.
    """
    # Softmax over the last axis of contiguous memory is what both terms share; it is computed once.
    log_probabilities = functional.log_softmax(logits.float(), dim=1)
    if members is not None and len(members) > logits.shape[1]:
        return _MARGINAL_TERMS[kind](log_probabilities, label, members.to(logits.device))
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


def marginal_cross_entropy(log_probabilities: Tensor, label: Tensor, members: Tensor) -> Tensor:
    """Mean of -log of the summed p of the classes that a pixel may be, over pixels that may not be every class."""
    classes = log_probabilities.shape[1]
    sets = [log_probabilities[:, row].logsumexp(dim=1, keepdim=True) for row in members[classes:]]
    losses = functional.nll_loss(torch.cat([log_probabilities, *sets], dim=1), label, reduction="none")
    known = (~members.all(dim=1))[label]
    return (losses * known).sum() / known.sum().clamp(min=1)


def marginal_dice(log_probabilities: Tensor, label: Tensor, members: Tensor) -> Tensor:
    """Do what ``soft_dice`` does over classes and sets of them; each over the pixels that surely are in it or not."""
    told = members[~members.all(dim=1)]
    inside = (told[:, None] | ~members[None]).all(dim=2)  # (classes and sets, values)
    outside = ~(told[:, None] & members[None]).any(dim=2)
    probabilities = torch.einsum("nchw,sc->nshw", log_probabilities.exp(), told.to(log_probabilities.dtype))
    target = inside[:, label].movedim(0, 1).to(probabilities.dtype)
    probabilities = probabilities * (inside | outside)[:, label].movedim(0, 1)
    pixels = (0, 2, 3)
    shared = (probabilities * target).sum(pixels)
    total = probabilities.sum(pixels) + target.sum(pixels)
    return 1 - ((2 * shared + SMOOTH) / (total + SMOOTH)).mean()


_TERMS: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    Loss.CROSS_ENTROPY: cross_entropy,
    Loss.DICE: soft_dice,
    Loss.CROSS_ENTROPY_DICE: lambda one, two: cross_entropy(one, two) + soft_dice(one, two),
}
_MARGINAL_TERMS: dict[Loss, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    Loss.CROSS_ENTROPY: marginal_cross_entropy,
    Loss.DICE: marginal_dice,
    Loss.CROSS_ENTROPY_DICE: lambda one, two, three: (
        marginal_cross_entropy(one, two, three) + marginal_dice(one, two, three)
    ),
}
