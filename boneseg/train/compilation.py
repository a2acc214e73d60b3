"""``torch.compile`` for the training step, where it pays and where it works."""

from __future__ import annotations

import logging
import time
from typing import cast

import torch
from torch import nn

from boneseg.models.precision import Precision
from boneseg.settings.schema import TrainSettings
from boneseg.train.process_group import ProcessGroup

log = logging.getLogger(__name__)


def pays(settings: TrainSettings, device: torch.device, group: ProcessGroup) -> bool:
    """Say whether the training step is to be compiled.

    ``auto``: on a GPU only. There the code of normalisation, activation and addition becomes one kernel, where each
    alone is bound by memory. On a CPU oneDNN's convolutions are nearly all of the time and stay what they are:
    ``benchmarks/compile.py`` measures it. Several processes share what layers see in ways that compiled code would
    pass over (see ``one_batch``), so they compute as the network is written.
    """
    if group.size > 1:
        return False
    return settings.compile == "on" or (settings.compile == "auto" and device.type == "cuda")


def compiled(
    network: nn.Module, batch: tuple[int, int, int, int], precision: Precision, group: ProcessGroup
) -> nn.Module:
    """Return a network's compiled form, which shares its weights; the network itself where that does not work.

    One step with random numbers makes the code, before training; it changes neither the network nor later random
    numbers. Validation uses the network itself: each size of its slices would be compiled for.

    Args:
        network: where it computes.
        batch: images, channels, rows and columns of a step.
        precision: in which it computes.
        group: where one process cannot compile, none does.
    """
    started = time.monotonic()
    fast = network
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    fault = ""
    devices = [precision.device] if precision.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            network.train()
            fast = cast("nn.Module", torch.compile(network, dynamic=False))
            with precision.autocast():
                logits = fast(precision.image(torch.rand(batch)))
            logits.float().square().mean().backward()
        except Exception as error:  # a compiler raises whatever it stumbles over
            fault = type(error).__name__
    network.zero_grad(set_to_none=True)
    for buffer, before in buffers:
        buffer.copy_(before)
    faults = [each for each in group.all_gather(fault) if each]
    if faults:
        if group.is_rank_zero:
            log.warning("torch.compile does not work here (%s); training goes on without it", faults[0])
        return network
    if group.is_rank_zero:
        log.info("torch.compile made the code of the training step in %.0f s", time.monotonic() - started)
    return fast
