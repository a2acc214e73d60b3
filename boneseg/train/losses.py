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
    return loss_from(kind, sums_of(kind, logits, label, members))


def sums_of(kind: Loss, logits: Tensor, label: Tensor, members: Tensor | None = None) -> Tensor:
    """Return what a loss is made of, for arguments of ``loss_of``: float32, one axis.

    Sums of several parts of a batch, added up, are those of the whole: the loss of a batch that several processes
    share, or that one computes piece by piece, is ``loss_from`` their sum.
    """
    # Softmax over the last axis of contiguous memory is what both terms share; it is computed once.
    log_probabilities = functional.log_softmax(logits.float(), dim=1)
    if members is not None and len(members) > logits.shape[1]:
        marginal = [term(log_probabilities, label, members.to(logits.device)) for term in _MARGINAL_TERMS[kind]]
        return torch.cat(marginal)
    return torch.cat([term(log_probabilities, label) for term in _TERMS[kind]])


def loss_from(kind: Loss, sums: Tensor) -> Tensor:
    """Return the loss of a batch from its ``sums_of``.

    Cross entropy is the mean of -log p(label) over the pixels that may not be every class; Dice is 1 - mean over
    classes of (2 sum(p t) + 1) / (sum(p) + sum(t) + 1), sums over all pixels of the batch. Milletari et al., V-Net
    (2016), without squares in the denominator; p are probabilities, t is 1 where the label is the class.
    """
    terms = []
    if kind != Loss.DICE:
        losses, pixels = sums[:2]
        terms.append(losses / pixels.clamp(min=1))
        sums = sums[2:]
    if kind != Loss.CROSS_ENTROPY:
        shared, total = sums.chunk(2)
        terms.append(1 - ((2 * shared + SMOOTH) / (total + SMOOTH)).mean())
    return torch.stack(terms).sum()


def slope_of(kind: Loss, sums: Tensor) -> Tensor:
    """Return the gradient of the loss by its sums: what each part of a batch needs to know of the others."""
    given = sums.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(loss_from(kind, given), given)[0]


def needs_probabilities(kind: Loss) -> bool:
    """Say whether the slope depends on what a network answers, and not on the labels alone."""
    return kind != Loss.CROSS_ENTROPY


def label_sums(label: Tensor, members: Tensor | None = None) -> Tensor:
    """Return of cross entropy's ``sums_of`` what the labels alone tell, the number of pixels; the other one is 0."""
    known = _known(label, members).sum() if members is not None else torch.tensor(label.numel(), device=label.device)
    return torch.stack([torch.zeros_like(known), known]).float()


def cross_entropy(log_probabilities: Tensor, label: Tensor) -> Tensor:
    """Return the sum of -log p(label), and the number of pixels."""
    losses = functional.nll_loss(log_probabilities, label, reduction="sum")
    return torch.stack([losses, losses.new_full((), label.numel())])


def soft_dice(log_probabilities: Tensor, label: Tensor) -> Tensor:
    """Return for each class sum(p t), then for each class sum(p) + sum(t)."""
    probabilities = log_probabilities.exp()
    classes = torch.arange(probabilities.shape[1], device=label.device)[:, None, None]
    target = (label[:, None] == classes).to(probabilities.dtype)
    return _overlap(probabilities, target)


def marginal_cross_entropy(log_probabilities: Tensor, label: Tensor, members: Tensor) -> Tensor:
    """Return the sum of -log of the summed p of the classes that a pixel may be, and the number of pixels that count.

    These are the ones that may not be every class.
    """
    classes = log_probabilities.shape[1]
    sets = [log_probabilities[:, row].logsumexp(dim=1, keepdim=True) for row in members[classes:]]
    losses = functional.nll_loss(torch.cat([log_probabilities, *sets], dim=1), label, reduction="none")
    known = _known(label, members)
    return torch.stack([(losses * known).sum(), known.sum().to(losses.dtype)])


def marginal_dice(log_probabilities: Tensor, label: Tensor, members: Tensor) -> Tensor:
    """Do what ``soft_dice`` does over classes and sets of them; each over the pixels that surely are in it or not."""
    told = members[~members.all(dim=1)]
    inside = (told[:, None] | ~members[None]).all(dim=2)  # (classes and sets, values)
    outside = ~(told[:, None] & members[None]).any(dim=2)
    probabilities = torch.einsum("nchw,sc->nshw", log_probabilities.exp(), told.to(log_probabilities.dtype))
    target = inside[:, label].movedim(0, 1).to(probabilities.dtype)
    return _overlap(probabilities * (inside | outside)[:, label].movedim(0, 1), target)


def _known(label: Tensor, members: Tensor) -> Tensor:
    return (~members.all(dim=1))[label]


def _overlap(probabilities: Tensor, target: Tensor) -> Tensor:
    pixels = (0, 2, 3)
    total = probabilities.sum(pixels) + target.sum(pixels)
    return torch.cat([(probabilities * target).sum(pixels), total])


_TERMS: dict[Loss, tuple[Callable[[Tensor, Tensor], Tensor], ...]] = {
    Loss.CROSS_ENTROPY: (cross_entropy,),
    Loss.DICE: (soft_dice,),
    Loss.CROSS_ENTROPY_DICE: (cross_entropy, soft_dice),
}
_MARGINAL_TERMS: dict[Loss, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], ...]] = {
    Loss.CROSS_ENTROPY: (marginal_cross_entropy,),
    Loss.DICE: (marginal_dice,),
    Loss.CROSS_ENTROPY_DICE: (marginal_cross_entropy, marginal_dice),
}
