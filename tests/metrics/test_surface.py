"""Surface distances against MONAI and by hand."""

import time
import tracemalloc

import numpy as np
import pytest
import SimpleITK
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from boneseg.metrics.counts import Regions
from boneseg.metrics.surface import Spacing, surface_distances, surface_metrics, surfaces

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


def whole_volume(truth: np.ndarray, guess: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Distances by one distance transform of the whole volume each way, as boneseg first computed them."""
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (truth, guess)]
    found = []
    for start, target in ((edges[1], edges[0]), (edges[0], edges[1])):
        nearest = ndimage.distance_transform_edt(~target, sampling=spacing, return_distances=False, return_indices=True)
        points, squared = np.nonzero(start), np.zeros(int(start.sum()))
        for axis, step in enumerate(spacing):
            squared += (step * (points[axis] - nearest[axis][points])) ** 2
        found.append(np.sqrt(squared))
    return found[0], found[1]


def whole_volume_metrics(truth: np.ndarray, guess: np.ndarray, spacing: Spacing) -> tuple[float, float, float]:
    there, back = whole_volume(truth, guess, spacing)
    both = np.concatenate([there, back])
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(hd95), float(both.mean()), float((both <= 2.0).mean())


@pytest.mark.parametrize("spacing", [*SPACINGS, (0.7, 0.7, 0.7), (3.27, 0.9766, 0.9766)])
@pytest.mark.parametrize("seed", range(5))
def test_windows_and_boxes_change_no_digit(seed: int, spacing: Spacing) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(30, 90, 3))
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0.6, 3)) for _ in range(2)]
    truth, guess = (field > np.quantile(field, rng.uniform(0.5, 0.999)) for field in fields)
    found = surface_metrics(truth, guess, spacing, 2.0)
    assert (found.hd95_mm, found.average_mm, found.normalised) == whole_volume_metrics(truth, guess, spacing)


def test_a_fragment_far_away_is_found_past_many_windows() -> None:
    truth, guess = np.zeros((40, 60, 400), bool), np.zeros((40, 60, 400), bool)
    truth[10:14, 10:14, 5:9] = guess[10:14, 10:14, 5:9] = True
    guess[30:33, 50:53, 380:390] = True
    there, back = surface_distances(truth, guess, (2.0, 1.0, 1.0))
    np.testing.assert_array_equal(there, whole_volume(truth, guess, (2.0, 1.0, 1.0))[0])
    assert back.max() == 0
    assert there.max() > 380


def many(seed: int, classes: int = 60, shape: tuple[int, int, int] = (40, 70, 80)) -> tuple[np.ndarray, np.ndarray]:
    """Return a label of many classes, and the same with moved edges, two of them mixed up and one missed."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros(shape, np.uint8)
    places = rng.permutation(seeds.size)[:classes]
    seeds.flat[places] = np.arange(1, classes + 1)
    far, nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    truth = np.where(far < 7, seeds[tuple(nearest)], 0).astype(np.uint8)
    truth[[0, -1]], truth[:, [0, -1]], truth[:, :, [0, -1]] = 0, 0, 0  # what SimpleITK takes for an edge differs there
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    guess = np.where(noise > 0.02, np.roll(truth, 1, axis=2), truth)
    guess[:, :, [0, -1]] = 0
    guess[truth == 7], guess[truth == 3] = 3, 0
    return truth, guess


def one_by_one(classes: int, *groups: tuple[int, ...]) -> Regions:
    return Regions.of(np.eye(classes + 1, dtype=bool), [*((value,) for value in range(1, classes + 1)), *groups])


def by_simpleitk(truth: np.ndarray, guess: np.ndarray, spacing: Spacing) -> tuple[float, float]:
    """HD95 and average surface distance by SimpleITK's contours and distance maps."""
    images = [SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in (truth, guess)]
    for image in images:
        image.SetSpacing(spacing[::-1])
    edges = [SimpleITK.LabelContour(image, fullyConnected=False) for image in images]
    maps = [
        SimpleITK.Abs(SimpleITK.SignedMaurerDistanceMap(edge, squaredDistance=False, useImageSpacing=True))
        for edge in edges
    ]
    arrays = [[SimpleITK.GetArrayFromImage(image) for image in kind] for kind in (edges, maps)]
    ways = [arrays[1][0][arrays[0][1] > 0], arrays[1][1][arrays[0][0] > 0]]
    return max(float(np.percentile(way, 95)) for way in ways), float(np.concatenate(ways).mean())


@pytest.mark.parametrize("classes", [8, 60])
def test_every_class_and_group_in_one_pass_equals_simpleitk_on_the_whole_volume(classes: int) -> None:
    truth, guess = many(classes, classes)
    spacing, group = (2.5, 0.8, 0.8), (2, 5, 7)
    found = surfaces(truth, guess, one_by_one(classes, group), spacing, 2.0)
    assert len(found) == classes + 1
    for values, ours in zip([*((value,) for value in range(1, classes + 1)), group], found, strict=True):
        masks = np.isin(truth, values), np.isin(guess, values)
        if not all(mask.any() for mask in masks):
            diagonal = np.linalg.norm(np.array(truth.shape) * spacing)
            assert ours.hd95_mm == pytest.approx(diagonal) if any(m.any() for m in masks) else np.isnan(ours.hd95_mm)
            continue
        hd95, average = by_simpleitk(*masks, spacing)
        assert ours.hd95_mm == pytest.approx(hd95, abs=1e-4)  # its distance maps are in single precision
        assert ours.average_mm == pytest.approx(average, abs=1e-4)
        assert (ours.hd95_mm, ours.average_mm, ours.normalised) == whole_volume_metrics(*masks, spacing)


def test_a_value_that_may_be_of_several_classes_is_inside_their_group_alone() -> None:
    members = np.vstack([np.eye(3, dtype=bool), [False, True, True]])
    truth, guess = np.zeros((5, 9, 9), np.uint8), np.zeros((5, 9, 9), np.uint8)
    truth[1:4, 1:4, 1:4], truth[1:4, 5:8, 5:8] = 1, 3
    guess[1:4, 1:4, 1:4], guess[1:4, 5:8, 5:8] = 1, 2
    one, both = surfaces(truth, guess, Regions.of(members, [(1,), (1, 2)]), (1.0, 1.0, 1.0), 1.0)
    assert (one.hd95_mm, both.hd95_mm, both.normalised) == (0, 0, 1)


def test_sixty_classes_take_little_memory() -> None:
    truth, guess = (np.zeros((120, 200, 200), np.uint8) for _ in range(2))
    small = many(1)
    for volume, part in zip((truth, guess), small, strict=True):
        for corner in ((0, 0, 0), (70, 110, 110)):  # every class is in two places: its box is nearly the volume
            volume[tuple(slice(at, at + size) for at, size in zip(corner, part.shape, strict=True))] = part
    tracemalloc.start()
    surfaces(truth, guess, one_by_one(60), (2.5, 0.8, 0.8), 2.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * truth.size, f"{peak / truth.size:.1f} bytes a voxel; a whole distance transform takes 12 and more"
