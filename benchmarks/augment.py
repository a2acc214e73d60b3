"""Speed of augmentation: ``python -m benchmarks.augment``.

Images of 256 x 256 a second and core of each augmentation, on slices of a phantom; target for ``paper``: 33. Beside it
one training step of unet / resnet18 on one core of this CPU, so that the share says whether training waits for
augmentation, and how many loader threads a GPU needs that trains 1,000 images a second.

Times are a core's own, which other programs on the machine hardly change. ``--threads`` also lets that many threads
work at once, by the clock, to see that they do not wait for one another: the machine must be idle for that.
``--operations`` prints what each operation costs.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from boneseg.augment import ct, paper
from boneseg.augment.base import Augmentation
from boneseg.augment.build import build_augmentation
from boneseg.dataset.slices import Batch, ahead, cut
from boneseg.hu import normalise
from boneseg.models.build import build_model
from boneseg.models.precision import choose_precision
from boneseg.phantom.series import make_phantom
from boneseg.settings.schema import ModelSettings, PreprocessSettings, TrainSettings
from boneseg.train.epoch import training_step

NAMES = ("basic", "ct", "paper")
TARGETS = {"paper": 33}
"""Images a second and core."""
CROP, SLICES, SIZE = 256, 8, 512
GPU_IMAGES = 1000
"""Images a second that a GPU may train."""

Window = tuple[NDArray[np.float32], NDArray[np.uint8]]


def windows(augmentation: Augmentation, pixel_mm: float) -> list[Window]:
    """Cut the middle out of slices from the thigh to the spine, (1, window, window) in HU with its label."""
    phantom = make_phantom(1, SLICES, SIZE, (50.0, pixel_mm, pixel_mm))
    corner, size = ((SIZE - augmentation.window) // 2,) * 2, (augmentation.window, augmentation.window)
    planes = cut(phantom.hu.astype(np.float32), corner, size)
    return [(plane[None], label) for plane, label in zip(planes, cut(phantom.label, corner, size), strict=True)]


def core_ms(work: Callable[[int], object], count: int, rounds: int) -> float:
    """Return the ms of a core for ``work(0)`` to ``work(count - 1)``, one of them on average; median of rounds."""
    work(0)
    times = []
    for _ in range(rounds):
        started = time.process_time()
        for number in range(count):
            work(number)
        times.append(time.process_time() - started)
    return 1e3 * median(times) / count


def augmentation_ms(name: str, pixel_mm: float, count: int, rounds: int) -> float:
    augmentation = build_augmentation(name, CROP, PreprocessSettings())
    given = windows(augmentation, pixel_mm)
    return core_ms(lambda seed: augmentation(*given[seed % SLICES], pixel_mm, seed), count, rounds)


def training_ms(rounds: int) -> float:
    """Return the ms of a core that one training step takes for one image."""
    settings = TrainSettings(crop=CROP, batch_size=4)
    precision = choose_precision("cpu")
    network = precision.place(build_model(ModelSettings(architecture="unet", encoder="resnet18"))).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    shape = (settings.batch_size, CROP, CROP)
    batch = Batch(torch.rand(shape)[:, None], torch.randint(0, 3, shape, dtype=torch.uint8))
    step = core_ms(lambda _: training_step(network, optimizer, batch, settings, precision), 1, rounds)
    return step / settings.batch_size


def images_by_threads(name: str, pixel_mm: float, threads: int, count: int) -> float:
    """Return images a second, by the clock, when threads augment batches of 8 as for training."""
    augmentations = [build_augmentation(name, CROP, PreprocessSettings()) for _ in range(count)]
    given = windows(augmentations[0], pixel_mm)

    def batch(step: int) -> None:
        for number in range(8):
            augmentations[step](*given[number % SLICES], pixel_mm, 8 * step + number)

    started = time.perf_counter()
    for _ in ahead(batch, count, threads):
        pass
    return 8 * count / (time.perf_counter() - started)


def paper_operations(pixel_mm: float, count: int, rounds: int) -> Iterator[tuple[str, float, float]]:
    """Yield name, ms and the times an image that an operation happens."""
    preprocess = PreprocessSettings()
    given = [
        (normalise(hu[0], preprocess.window), label)
        for hu, label in windows(build_augmentation("none", CROP, preprocess), pixel_mm)
    ]
    plans = [replace(paper.Plan.draw(seed), operations=()) for seed in range(count)]
    yield "flips, crop, affine", core_ms(lambda n: plans[n].apply(*given[n % SLICES]), count, rounds), 1.0
    chosen = paper.MOST_OPERATIONS / 2 / len(paper.OPERATIONS)
    for kind, chance in paper.OPERATIONS:
        rng = np.random.default_rng(0)
        drawn = [kind.draw(rng) for _ in range(count)]
        spent = core_ms(lambda n, drawn=drawn: drawn[n].apply(*given[n % SLICES]), count, rounds)  # type: ignore[misc]
        yield type(drawn[0]).__name__, spent, chance * chosen


def ct_operations(pixel_mm: float, count: int, rounds: int) -> Iterator[tuple[str, float, float]]:
    """Yield name, ms and the times an image that an operation happens."""
    augmentation = build_augmentation("ct", CROP, PreprocessSettings())
    given = windows(augmentation, pixel_mm)
    rng = np.random.default_rng(0)
    yield "move", core_ms(lambda n: ct.move(*given[n % SLICES], CROP, rng), count, rounds), 1.0
    moved = [ct.move(*window, CROP, rng)[:2] for window in given]
    for chance, operation in ct.OPERATIONS:

        def once(number: int, operation: ct.Operation = operation) -> None:
            hu, label = moved[number % SLICES]
            operation(hu.copy(), label.copy(), pixel_mm, rng)

        yield operation.__name__, core_ms(once, count, rounds), chance


def print_operations(title: str, rows: Iterator[tuple[str, float, float]]) -> None:
    print(f"\n{title:24}{'ms':>8}{'times':>8}{'ms an image':>13}")
    for name, spent, times in sorted(rows, key=lambda row: -row[1] * row[2]):
        print(f"{name:24}{spent:8.2f}{times:8.3f}{spent * times:13.3f}")


def print_augmentations(pixel_mm: float, count: int, rounds: int) -> None:
    step = training_ms(rounds)
    print(f"one training step of unet / resnet18: {step:.1f} ms of a core an image\n")
    print(f"{'name':8}{'ms':>8}{'images/s':>10}{'target':>8}{'of training':>13}{'threads for a GPU':>19}")
    for name in NAMES:
        spent = augmentation_ms(name, pixel_mm, count, rounds)
        threads = math.ceil(GPU_IMAGES * spent / 1e3)
        target = TARGETS.get(name, "")
        print(f"{name:8}{spent:8.2f}{1e3 / spent:10.0f}{target:>8}{spent / step:13.1%}{threads:19d}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400, help="images a round, each with its own seed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pixel-mm", type=float, default=0.9)
    parser.add_argument("--threads", type=int, default=0, help="also measure so many threads against one")
    parser.add_argument("--operations", action="store_true", help="also print the ms of each operation")
    chosen = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    print_augmentations(chosen.pixel_mm, chosen.images, chosen.rounds)
    if chosen.threads:
        print(f"\nimages a second, by the clock: 1 thread, {chosen.threads} threads")
        for name in NAMES:
            alone, together = (
                images_by_threads(name, chosen.pixel_mm, n, chosen.images // 8) for n in (1, chosen.threads)
            )
            print(f"{name:8}{alone:10.0f}{together:10.0f}   ratio {together / alone:.2f}")
    if chosen.operations:
        few = max(SLICES, chosen.images // 8)
        print_operations("paper", paper_operations(chosen.pixel_mm, few, chosen.rounds))
        print_operations("ct", ct_operations(chosen.pixel_mm, few, chosen.rounds))


if __name__ == "__main__":
    main()
