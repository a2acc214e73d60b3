import math

import numpy as np
import pytest
from scipy import ndimage

from boneseg.augment.paper_photo import (
    Blur,
    Brightness,
    Contrast,
    Dropout,
    Edges,
    Emboss,
    Inversion,
    Multiply,
    Noise,
    Sharpen,
    Superpixels,
    find_regions,
)
from tests.augment.pictures import assert_share, blob, random_slice


def clouds(*channels: int) -> np.ndarray:
    """Return smooth random fields (64, 64) within 0..1, in which regions can be found."""
    fields = ndimage.gaussian_filter(random_slice(64, 64, channels=3)[0], (3, 3, 0))
    fields = (fields - fields.min()) / np.ptp(fields)
    return np.ascontiguousarray(fields[..., channels[0] if len(channels) == 1 else list(channels)])


def test_blurs_agree_with_scipy() -> None:
    image, label = random_slice(50, 60)
    for blur, expected in (
        (Blur("gaussian", 1.7), ndimage.gaussian_filter(image, 1.7, mode="mirror")),
        (Blur("average", 5), ndimage.uniform_filter(image, 5, mode="mirror")),
        (Blur("median", 3), ndimage.median_filter(image, 3, mode="nearest")),
        (Blur("median", 9), ndimage.median_filter(image, 9, mode="nearest")),
    ):
        np.testing.assert_allclose(blur.apply(image, label)[0], expected, atol=0.003)
    np.testing.assert_array_equal(Blur("gaussian", 0).apply(image, label)[0], image)


def test_sharpen_emboss_and_edges_agree_with_their_kernels() -> None:
    image, label = random_slice(30, 30)
    image = 0.4 + 0.02 * image  # far from black and white

    def blended(kernel: list[list[float]], alpha: float) -> np.ndarray:
        effect = ndimage.correlate(image, np.array(kernel), mode="mirror")
        return np.clip((1 - alpha) * image + alpha * effect, 0, 1)

    sharp = blended([[-1, -1, -1], [-1, 9.2, -1], [-1, -1, -1]], 0.6)
    np.testing.assert_allclose(Sharpen(0.6, 1.2).apply(image, label)[0], sharp, atol=1e-5)
    lit = blended([[-2.5, -1.5, 0], [-1.5, 1, 1.5], [0, 1.5, 2.5]], 0.3)
    np.testing.assert_allclose(Emboss(0.3, 1.5).apply(image, label)[0], lit, atol=1e-5)
    edges = blended([[0, 1, 0], [1, -4, 1], [0, 1, 0]], 0.8)
    changed = Edges(0.8, None, 4, 1).apply(image, label)[0]
    weight = (changed - image) / (edges - image)
    assert weight.min() >= -1e-3
    assert weight.max() <= 1 + 1e-3
    assert weight.min() < 0.2 < 0.8 < weight.max()


def test_directed_edges_show_most_where_it_gets_brighter_in_their_direction() -> None:
    image = np.zeros((40, 40), np.float32)
    image[10:30, 10:30] = 0.8
    label = np.zeros((40, 40), np.uint8)
    for degrees, side in ((0, np.s_[30, 20]), (90, np.s_[20, 9]), (180, np.s_[9, 20]), (270, np.s_[20, 30])):
        changes = [Edges(1, degrees, 2, seed).apply(image, label)[0] for seed in range(20)]
        brightest = np.max(changes, axis=0)
        around = [brightest[place] for place in (np.s_[30, 20], np.s_[20, 9], np.s_[9, 20], np.s_[20, 30])]
        assert brightest[side] == max(around) > 1.5 * sorted(around)[-2]


def test_noise_has_its_deviation() -> None:
    image, label = np.full((100, 100), 0.5, np.float32), np.zeros((100, 100), np.uint8)
    changed = Noise(0.03, 1).apply(image, label)[0]
    assert changed.std() == pytest.approx(0.03, rel=0.03)
    assert changed.mean() == pytest.approx(0.5, abs=0.002)


def test_dropout_blackens_its_share_in_pixels_or_patches() -> None:
    image, label = np.full((200, 200), 0.5, np.float32), np.zeros((200, 200), np.uint8)
    changed = Dropout(0.07, None, 1).apply(image, label)[0]
    assert set(np.unique(changed)) == {0, 0.5}
    assert_share(int((changed == 0).sum()), changed.size, 0.07)
    patches = [Dropout(0.1, 0.05, seed).apply(image, label)[0] == 0 for seed in range(60)]
    for black in patches:
        grid = black.reshape(10, 20, 10, 20)
        np.testing.assert_array_equal(grid.all(axis=(1, 3)), grid.any(axis=(1, 3)))
    assert_share(sum(int(black[::20, ::20].sum()) for black in patches), 6000, 0.1)


def test_inversion_brightness_multiply_and_contrast_do_the_arithmetic() -> None:
    image = np.array([[0, 0.2, 0.5, 0.8, 1]], np.float32)
    label = np.zeros((1, 5), np.uint8)
    for operation, expected in (
        (Inversion(), [1, 0.8, 0.5, 0.2, 0]),
        (Brightness(0.03), [0.03, 0.23, 0.53, 0.83, 1]),
        (Brightness(-0.03), [0, 0.17, 0.47, 0.77, 0.97]),
        (Multiply(1.5), [0, 0.3, 0.75, 1, 1]),
        (Contrast(2), [0, 0, 0.5, 1, 1]),
        (Contrast(0.5), [0.25, 0.35, 0.5, 0.65, 0.75]),
    ):
        np.testing.assert_allclose(operation.apply(image, label)[0], [expected], atol=1e-6)


def test_superpixels_follow_edges_and_are_as_many_as_asked_for() -> None:
    inside = blob(200)
    noise = np.random.default_rng(0).normal(0, 0.02, inside.shape)
    image = np.clip(np.where(inside, 0.8, 0.3) + noise, 0, 1).astype(np.float32)
    for segments in (50, 100, 200):
        regions = find_regions(image, segments)
        assert regions.min() >= 0
        pixels = np.bincount(regions.ravel())
        assert 0.6 * segments < np.count_nonzero(pixels) < 1.4 * segments
        within = np.bincount(regions.ravel(), weights=inside.ravel())
        astray = np.minimum(within, pixels - within).sum() / inside.size
        step = round(200 / math.sqrt(segments))
        grid = (np.arange(200) // step)[:, None] * 100 + np.arange(200) // step
        within_grid = np.bincount(grid.ravel(), weights=inside.ravel())
        astray_grid = np.minimum(within_grid, np.bincount(grid.ravel()) - within_grid).sum() / inside.size
        assert astray < 0.35 * astray_grid


def test_superpixels_of_several_slices_are_those_of_the_middle_one() -> None:
    image, label = clouds(0, 1, 2), np.zeros((64, 64), np.uint8)
    regions = find_regions(image[..., 1], 60)
    flat = Superpixels(1, 60, 1).apply(image, label)[0]
    for channel in range(3):
        numbers = np.unique(regions)
        expected = ndimage.mean(image[..., channel], regions, numbers)[np.searchsorted(numbers, regions)]
        np.testing.assert_allclose(flat[..., channel], expected, atol=1e-5)


def test_superpixels_replace_their_share_of_regions_by_the_mean() -> None:
    image, label = clouds(0), np.zeros((64, 64), np.uint8)
    regions = find_regions(image, 60)
    numbers = np.unique(regions)
    assert 40 < len(numbers) < 80
    np.testing.assert_array_equal(Superpixels(0, 60, 1).apply(image, label)[0], image)
    flat = Superpixels(1, 60, 1).apply(image, label)[0]
    expected = ndimage.mean(image, regions, numbers)
    np.testing.assert_allclose(flat, expected[np.searchsorted(numbers, regions)], atol=1e-5)
    replaced = 0
    for seed in range(40):
        changed = Superpixels(0.3, 60, seed).apply(image, label)[0]
        same = np.array([np.array_equal(changed[regions == number], image[regions == number]) for number in numbers])
        replaced += int((~same).sum())
        taken = np.isin(regions, numbers[~same])
        np.testing.assert_allclose(changed, np.where(taken, flat, image), atol=1e-5)
    assert_share(replaced, 40 * len(numbers), 0.3)
