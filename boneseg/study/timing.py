"""How long a network takes for one image on this device."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from boneseg.machine import cpu_name
from boneseg.models.build import count_parameters
from boneseg.models.checkpoint import load_model
from boneseg.models.precision import choose_precision

WARMUP, REPEATS = 3, 20
LONGEST_SECONDS = 6.0
"""A slow network gets fewer repeats."""


@dataclass(frozen=True)
class OurCost:
    """What a network costs."""

    milliseconds: float
    """Mean time of one image."""
    parameters: int
    """As Keras counts them: with the running statistics of batch normalisation."""
    trainable: int


def measure_cost(model: Path, size: int) -> OurCost:
    """Count a network's parameters and time it.

    Args:
        model: folder of the model.
        size: rows and columns of the image.
    """
    network, card = load_model(model)
    count = count_parameters(network)
    return OurCost(milliseconds(network, card.model.preprocess.slices, size), count.total, count.trainable)


@torch.inference_mode()
def milliseconds(network: nn.Module, channels: int, size: int) -> float:
    """Return the mean time of one image, from its pixels to its labels in memory, one image at a time."""
    precision = choose_precision("auto")
    network = precision.place(network).eval()
    image = precision.image(torch.rand(1, channels, size, size))
    times: list[float] = []
    while len(times) < WARMUP + REPEATS and (len(times) <= WARMUP or sum(times) < LONGEST_SECONDS):
        started = time.perf_counter()
        with precision.autocast():
            labels = network(image).argmax(dim=1)
        labels.cpu()  # a GPU answers before it is done
        times.append(time.perf_counter() - started)
    measured = times[WARMUP:]
    return 1000 * sum(measured) / len(measured)


def device_name() -> str:
    """Return what a person calls the device that networks run on here, with the number format."""
    precision = choose_precision("auto")
    name = torch.cuda.get_device_name() if precision.device.type == "cuda" else _processor()
    return f"{name}, {'bf16' if precision.bf16 else 'fp32'}"


def _processor() -> str:
    """Return the name of the processor and how many threads torch uses."""
    threads = torch.get_num_threads()
    name = cpu_name() or platform.processor() or platform.machine()
    return f"{name}, {threads} {'thread' if threads == 1 else 'threads'}"
