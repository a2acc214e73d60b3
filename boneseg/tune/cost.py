"""What a trial's network costs: its parameters, and how long it takes for a slice where the trial runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from boneseg.dataset.manifest import Dataset
from boneseg.dataset.preprocess import network_size
from boneseg.models.build import build_model, count_parameters
from boneseg.models.precision import choose_precision
from boneseg.settings.schema import RunSettings, Split

WARMUP, REPEATS = 1, 8
LONGEST_SECONDS = 2.0
"""A slow network gets fewer repeats."""


@dataclass(frozen=True)
class Cost:
    """Of a network.

    Attributes:
        parameters: numbers that training adjusts.
        ms_per_slice: median milliseconds from a slice's pixels to its labels, one slice at a time.
    """

    parameters: int
    ms_per_slice: float


@torch.inference_mode()
def cost_of(settings: RunSettings, dataset: Dataset) -> Cost:
    """Build a trial's network and time it on a slice of the size of the first validation series."""
    model = settings.model
    state = torch.random.get_rng_state()
    built = build_model(model, dataset.scheme.size)
    torch.random.set_rng_state(state)
    precision = choose_precision(settings.train.device, settings.train.precision)
    geometry = dataset.of(Split.VALIDATION)[0].geometry
    rows, columns = network_size(geometry.shape[1:], geometry.geometry().spacing[1:], model.preprocess)
    network = precision.place(built).eval()
    image = precision.image(torch.rand(1, model.preprocess.slices, rows, columns))
    times: list[float] = []
    while len(times) < WARMUP + REPEATS and (len(times) <= WARMUP or sum(times) < LONGEST_SECONDS):
        started = time.perf_counter()
        with precision.autocast():
            labels = network(image).argmax(dim=1)
        labels.cpu()  # a GPU answers before it is done
        times.append(time.perf_counter() - started)
    measured = sorted(times[WARMUP:])
    return Cost(count_parameters(built).trainable, 1000 * measured[len(measured) // 2])
