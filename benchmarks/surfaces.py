"""Surface distances of every class and group, side by side: ``python -m benchmarks.surfaces``.

A made-up series of 8 and of 60 classes, whose prediction has its edges moved. As boneseg measures them (the box of each
class, small windows in it) and as it first did (masks of the whole volume for each class, one distance transform over
the class's box each way), in one run. The results must be equal to the last digit. Ratios say how many times faster and
smaller the first is; memory is the peak of numpy's and SciPy's arrays above the two volumes.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from boneseg.metrics.counts import Regions
from boneseg.metrics.surface import surfaces

SPACING, TOLERANCE_MM = (1.5, 0.8, 0.8), 2.0
Labels = NDArray[np.uint8]


def series(classes: int, shape: tuple[int, int, int], seed: int = 0) -> tuple[Labels, Labels]:
    """Return a label whose bones are balls of equal size all over the volume, and a prediction."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    radius = 0.28 * (np.prod(shape) / classes) ** (1 / 3)  # a tenth of the volume is bone
    across = np.ceil(classes ** (1 / 3))
    for value in range(1, classes + 1):
        place = np.array(np.unravel_index(value - 1, (int(across),) * 3))
        centre = (place + 0.5) / across * np.array(shape)
        low = np.maximum(np.floor(centre - radius), 0).astype(int)
        high = np.minimum(np.ceil(centre + radius) + 1, shape).astype(int)
        grid = np.ogrid[tuple(map(slice, low, high))]
        ball = sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True)) < radius**2
        label[tuple(map(slice, low, high))][ball] = value
    noise = ndimage.gaussian_filter(rng.normal(size=shape).astype(np.float32), 3)
    return label, np.where(noise > 0, np.roll(label, 1, axis=2), label).astype(np.uint8)


def first_way(label: Labels, mask: Labels, groups: Sequence[Sequence[int]]) -> list[tuple[float, float, float]]:
    """Measure as boneseg first did."""
    return [_whole(np.isin(label, values), np.isin(mask, values)) for values in groups]


def present_way(label: Labels, mask: Labels, regions: Regions) -> list[tuple[float, float, float]]:
    """Measure as boneseg does."""
    found = surfaces(label, mask, regions, SPACING, TOLERANCE_MM)
    return [(one.hd95_mm, one.average_mm, one.normalised) for one in found]


def _whole(truth: NDArray[np.bool_], guess: NDArray[np.bool_]) -> tuple[float, float, float]:
    both, box = truth | guess, []
    for axis in range(3):
        used = np.flatnonzero(both.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    edges = [part & ~ndimage.binary_erosion(part) for part in (truth[tuple(box)], guess[tuple(box)])]
    ways = []
    for start, target in ((edges[1], edges[0]), (edges[0], edges[1])):
        nearest = ndimage.distance_transform_edt(~target, sampling=SPACING, return_distances=False, return_indices=True)
        points, squared = np.nonzero(start), np.zeros(int(start.sum()))
        for axis, step in enumerate(SPACING):
            squared += (step * (points[axis] - nearest[axis][points])) ** 2
        ways.append(np.sqrt(squared))
    every = np.concatenate(ways)
    hd95 = max(float(np.percentile(way, 95)) for way in ways)
    return hd95, float(every.mean()), float((every <= TOLERANCE_MM).mean())


def timed(
    work: Callable[[], list[tuple[float, float, float]]],
) -> tuple[list[tuple[float, float, float]], float, float]:
    """Return what a function returns, its seconds, and in a second run its peak memory in MiB."""
    started = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - started
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return found, seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs=3, type=int, default=(160, 360, 360), metavar=("SLICES", "ROWS", "COLUMNS"))
    options = parser.parse_args()
    shape = tuple(options.shape)
    print(f"{shape} voxels; every class, and all of them as one group, which is also the bone of the common classes")
    print(f"{'classes':>8}{'first s':>10}{'now s':>10}{'ratio':>8}{'first MiB':>12}{'now MiB':>10}{'ratio':>8}  equal")
    for classes in (8, 60):
        label, mask = series(classes, shape)
        bone = tuple(range(1, classes + 1))
        groups = [bone, *((value,) for value in bone), bone]
        regions = Regions.of(np.eye(classes + 1, dtype=bool), groups)

        old, old_s, old_mib = timed(partial(first_way, label, mask, groups))
        new, new_s, new_mib = timed(partial(present_way, label, mask, regions))
        print(
            f"{classes:8}{old_s:10.2f}{new_s:10.2f}{old_s / new_s:8.1f}{old_mib:12.0f}{new_mib:10.0f}"
            f"{old_mib / new_mib:8.1f}  {old == new}",
            flush=True,
        )


if __name__ == "__main__":
    main()
