"""Surface distances against MONAI and by hand."""

import time
import tracemalloc

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from boneseg.metrics.surface import Spacing, surface_distances, surface_metrics

SPACINGS: list[Spacing] = [(1.0, 1.0, 1.0), (2.5, 0.78, 0.78), (5.0, 0.6, 0.9)]


def blobs(seed: int, shape: tuple[int, int, int] = (18, 40, 44)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    return field > 0.04, field + 0.3 * noise > 0.04


def cube(*start: int, side: int = 6) -> np.ndarray:
    mask = np.zeros((20, 24, 28), dtype=bool)
    mask[tuple(slice(at, at + side) for at in start)] = True
    return mask


def tensor(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None].float()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
def test_all_three_equal_those_of_monai(seed: int, spacing: Spacing) -> None:
    truth, guess = blobs(seed)
    ours = surface_metrics(truth, guess, spacing, tolerance_mm=1.5)
    pair = (tensor(guess), tensor(truth))
    options = {"include_background": True, "spacing": spacing}
    assert ours.hd95_mm == pytest.approx(compute_hausdorff_distance(*pair, percentile=95, **options).item(), abs=1e-4)
    average = compute_average_surface_distance(*pair, symmetric=True, **options).item()
    assert ours.average_mm == pytest.approx(average, abs=1e-4)
    assert ours.normalised == pytest.approx(compute_surface_dice(*pair, [1.5], **options).item(), abs=1e-5)


@pytest.mark.parametrize(("axis", "step"), [(0, 2.5), (1, 0.8), (2, 0.6)])
def test_a_plate_shifted_along_one_axis_is_off_by_the_spacing_of_that_axis(axis: int, step: float) -> None:
    here, there = np.zeros((9, 9, 9), dtype=bool), np.zeros((9, 9, 9), dtype=bool)
    here[(slice(None),) * axis + (3,)] = True
    there[(slice(None),) * axis + (5,)] = True
    result = surface_metrics(here, there, (2.5, 0.8, 0.6), tolerance_mm=2 * step - 0.01)
    assert result.hd95_mm == pytest.approx(2 * step)
    assert result.average_mm == pytest.approx(2 * step)
    assert result.normalised == 0
    assert surface_metrics(here, there, (2.5, 0.8, 0.6), tolerance_mm=2 * step).normalised == 1


def test_a_shifted_cube_by_brute_force() -> None:
    spacing = (3.0, 1.0, 0.5)
    truth, guess = cube(4, 5, 6), cube(5, 8, 6)
    there, back = surface_distances(truth, guess, spacing)
    points = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.array(spacing) for mask in (truth, guess)]
    every = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    np.testing.assert_allclose(back, every.min(axis=1))
    np.testing.assert_allclose(there, every.min(axis=0))


def test_hd95_takes_the_worse_direction() -> None:
    truth = cube(4, 5, 6)
    guess = truth.copy()
    guess[15:18, 18:22, 20:25] = True
    there, back = surface_distances(truth, guess, (1.0, 1.0, 1.0))
    result = surface_metrics(truth, guess, (1.0, 1.0, 1.0), 2.0)
    assert np.percentile(back, 95) == 0
    assert result.hd95_mm == np.percentile(there, 95) > 10


def test_equal_masks_are_perfect() -> None:
    mask = cube(3, 3, 3)
    result = surface_metrics(mask, mask, (2.0, 1.0, 1.0), 1.0)
    assert (result.hd95_mm, result.average_mm, result.normalised) == (0, 0, 1)


@pytest.mark.parametrize("missed", [True, False])
def test_one_empty_mask_scores_the_volumes_diagonal(missed: bool) -> None:
    full, empty = cube(3, 3, 3), np.zeros((20, 24, 28), dtype=bool)
    pair = (full, empty) if missed else (empty, full)
    result = surface_metrics(*pair, (2.0, 1.0, 0.5), 1.0)
    diagonal = np.sqrt(40**2 + 24**2 + 14**2)
    assert result.hd95_mm == pytest.approx(diagonal)
    assert result.average_mm == pytest.approx(diagonal)
    assert result.normalised == 0


def test_two_empty_masks_have_nothing_to_measure() -> None:
    empty = np.zeros((5, 5, 5), dtype=bool)
    result = surface_metrics(empty, empty, (1.0, 1.0, 1.0), 1.0)
    assert np.isnan([result.hd95_mm, result.average_mm, result.normalised]).all()


def test_masks_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        surface_metrics(np.ones((2, 3, 4), bool), np.ones((2, 3, 5), bool), (1.0, 1.0, 1.0), 1.0)


def test_empty_space_around_the_masks_costs_nothing() -> None:
    small = blobs(1)
    large = [np.zeros((60, 300, 300), dtype=bool) for _ in small]
    for mask, part in zip(large, small, strict=True):
        mask[20:38, 100:140, 100:144] = np.pad(part[1:-1, 1:-1, 1:-1], 1)
    tracemalloc.start()
    started = time.perf_counter()
    far = surface_metrics(large[0], large[1], (2.5, 1.0, 1.0), 2.0)
    assert time.perf_counter() - started < 5
    assert tracemalloc.get_traced_memory()[1] < 4 * large[0].size
    tracemalloc.stop()
    near = surface_metrics(*(np.pad(part[1:-1, 1:-1, 1:-1], 1) for part in small), (2.5, 1.0, 1.0), 2.0)
    assert far == near
