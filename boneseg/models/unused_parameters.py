"""Parameters that a network holds and never uses: they must not train, be waited for or be counted.

Libraries build whole encoders of which a decoder reads a part. A group of processes waits for every gradient, so that
one that never comes ends the training.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from boneseg.models.smp import hollow

PROBE_BATCH, PROBE_SIDE = 2, 64
"""Of the images of the probe: two, since normalisation over a batch refuses one."""


def unused_parameters(build: Callable[[], nn.Module], channels: int, least: int = PROBE_SIDE) -> frozenset[str]:
    """Return the names of parameters that get no gradient in a training step.

    The step is taken once on torch's meta device, where only shapes exist: it costs a fraction of a second, draws no
    random numbers and says the same in every process.

    Args:
        build: makes the network.
        channels: of its images.
        least: rows and columns that its images must have.

    Returns:
        Names as in ``named_parameters``; empty where the network does not take a step at all.
    """
    network = hollow(build).train()
    side = max(PROBE_SIDE, least)
    with torch.inference_mode(False), torch.enable_grad():
        try:
            network(torch.empty(PROBE_BATCH, channels, side, side, device="meta")).sum().backward()
        except (RuntimeError, ValueError, TypeError, AssertionError):
            return frozenset()  # build.check_model says what is wrong with it
    return frozenset(name for name, weight in network.named_parameters() if weight.grad is None)
