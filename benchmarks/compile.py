"""A training step with and without ``torch.compile``, in turn: ``python -m benchmarks.compile``.

Prints how long the code takes to make, and the ratio of the times of a step: what ``train.compile = auto`` rests on.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from boneseg.dataset.slices import Batch
from boneseg.models.build import build_model
from boneseg.models.precision import choose_precision
from boneseg.settings.schema import ModelSettings, TrainSettings
from boneseg.train.compilation import compiled
from boneseg.train.epoch import training_step
from boneseg.train.optimisation import build_optimizer
from boneseg.train.process_group import ProcessGroup


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default=ModelSettings().architecture)
    parser.add_argument("--encoder", default=ModelSettings().encoder)
    parser.add_argument("--batch-size", type=int, default=TrainSettings().batch_size)
    parser.add_argument("--crop", type=int, default=TrainSettings().crop)
    parser.add_argument("--rounds", type=int, default=10, help="steps that are compared")
    chosen = parser.parse_args()
    settings = TrainSettings(batch_size=chosen.batch_size, crop=chosen.crop)
    precision = choose_precision()
    shape = (settings.batch_size, 1, settings.crop, settings.crop)
    label = torch.randint(0, 3, (shape[0], *shape[2:]), dtype=torch.uint8)
    batch = Batch(torch.rand(shape), label)
    torch.set_flush_denormal(True)
    times: dict[str, list[float]] = {"as it is": [], "compiled": []}
    sides = {}
    for side in times:
        network = precision.place(
            build_model(ModelSettings(architecture=chosen.architecture, encoder=chosen.encoder))
        ).train()
        optimizer = build_optimizer(network, settings)
        if side == "compiled":
            started = time.perf_counter()
            network = compiled(network, shape, precision, ProcessGroup())
            print(f"compiling took {time.perf_counter() - started:.0f} s")
        sides[side] = network, optimizer
    for turn in range(chosen.rounds + 2):  # the first two are warm-up
        for side, (network, optimizer) in sides.items():
            started = time.perf_counter()
            loss, _ = training_step(network, optimizer, batch, settings, precision)
            loss.item()  # waits for a GPU
            if turn >= 2:
                times[side].append(time.perf_counter() - started)
    slow, fast = (statistics.median(each) for each in times.values())
    print(f"{chosen.architecture} on {chosen.encoder}, {precision.device.type}, {precision.words}")
    print(f"a step as it is {slow * 1e3:.0f} ms, compiled {fast * 1e3:.0f} ms: {slow / fast:.2f} times as fast")


if __name__ == "__main__":
    main()
