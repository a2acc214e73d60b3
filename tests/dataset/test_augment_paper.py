import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from boneseg.dataset.augment_paper import OPERATIONS, PaperAugmentation, Plan
from boneseg.dataset.augment_paper_geometry import (
    Affine,
    CropAndPad,
    Elastic,
    LocalAffine,
    Perspective,
    triangles,
    warp,
)
from boneseg.dataset.augment_paper_photo import (
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

GEOMETRY = (Elastic, LocalAffine, Perspective)
PLANS = [Plan.draw(seed) for seed in range(6000)]

seeds = st.integers(0, 2**40)
sizes = st.integers(8, 70)


def random_slice(rows: int, columns: int, seed: int = 0, channels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (rows, columns) if channels is None else (rows, columns, channels)
    return rng.random(shape, dtype=np.float32), rng.choice([0, 2, 5], (rows, columns)).astype(np.uint8)


def clouds(*channels: int) -> np.ndarray:
    """Return smooth random fields (64, 64) within 0..1, in which regions can be found."""
    fields = ndimage.gaussian_filter(random_slice(64, 64, channels=3)[0], (3, 3, 0))
    fields = (fields - fields.min()) / np.ptp(fields)
    return np.ascontiguousarray(fields[..., channels[0] if len(channels) == 1 else list(channels)])


def blob(size: int = 96) -> np.ndarray:
    """Return a smooth shape off the centre, 1 inside and 0 outside, of at least some pixels' width everywhere."""
    rows, columns = np.mgrid[:size, :size] / size
    inside = (rows - 0.42) ** 2 / 0.09 + (columns - 0.57) ** 2 / 0.04 < 1
    return inside & ((rows - 0.35) ** 2 + (columns - 0.6) ** 2 > 0.08**2)


def drawn(kind: type, number: int = 300) -> list:
    rng = np.random.default_rng(3)
    return [kind.draw(rng) for _ in range(number)]


def assert_share(happened: int, of: int, chance: float) -> None:
    """Check a frequency against a binomial: 4.5 standard deviations are passed once in 150,000 times."""
    assert abs(happened - of * chance) < 4.5 * math.sqrt(of * chance * (1 - chance))


def assert_fills(values: list[float], low: float, high: float) -> None:
    """Check that values drawn evenly lie in a range and reach into its ends."""
    assert low <= min(values) < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < max(values) <= high


# What every user relies on.


@settings(deadline=None, max_examples=150)
@given(seed=seeds, rows=sizes, columns=sizes, channels=st.sampled_from([None, 1, 3, 7]))
def test_shapes_types_and_values_stay_allowed(seed: int, rows: int, columns: int, channels: int | None) -> None:
    image, label = random_slice(rows, columns, seed, channels)
    given_image, given_label = image.copy(), label.copy()
    changed, moved = PaperAugmentation()(image, label, seed)
    assert (changed.shape, changed.dtype) == (image.shape, np.float32)
    assert (moved.shape, moved.dtype) == (label.shape, np.uint8)
    assert np.isfinite(changed).all()
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert set(np.unique(moved)) <= {0, 2, 5}
    np.testing.assert_array_equal(image, given_image)
    np.testing.assert_array_equal(label, given_label)
    assert not np.shares_memory(changed, image)
    assert not np.shares_memory(moved, label)


@settings(deadline=None, max_examples=50)
@given(seed=seeds)
def test_the_same_seed_makes_the_same_change(seed: int) -> None:
    image, label = random_slice(40, 32)
    augmentation = PaperAugmentation()
    first = augmentation(image, label, seed)
    augmentation(image, label, seed + 1)
    for one, other in zip(first, PaperAugmentation()(image, label, seed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_seeds_make_other_changes() -> None:
    assert len({str(plan) for plan in PLANS}) > 0.9 * len(PLANS)


@settings(deadline=None, max_examples=80)
@given(seed=seeds, channels=st.sampled_from([3, 5, 7]))
def test_all_channels_change_alike(seed: int, channels: int) -> None:
    image, label = random_slice(48, 40)
    alone, moved = PaperAugmentation()(image, label, seed)
    together, moved_too = PaperAugmentation()(np.repeat(image[..., None], channels, axis=2), label, seed)
    np.testing.assert_array_equal(moved_too, moved)
    np.testing.assert_allclose(together, np.repeat(alone[..., None], channels, axis=2), atol=1e-5)


@settings(deadline=None, max_examples=120)
@given(seed=seeds, kinds=st.lists(st.sampled_from(GEOMETRY), max_size=3, unique=True))
def test_image_and_label_move_together(seed: int, kinds: list[type]) -> None:
    """The label, given as the image too, is found again where the moved image is bright."""
    rng = np.random.default_rng(seed)
    plan = replace(Plan.draw(seed), operations=tuple(kind.draw(rng) for kind in kinds))
    bright, labelled = moved_blob(plan)
    assert labelled.sum() > 200
    frayed = Elastic in kinds
    if not frayed:
        border = ndimage.binary_dilation(labelled, iterations=2) ^ ndimage.binary_erosion(labelled, iterations=2)
        assert not ((bright ^ labelled) & ~border).any()
    assert 2 * (bright & labelled).sum() / (bright.sum() + labelled.sum()) > (0.85 if frayed else 0.94)


def moved_blob(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Return where a moved shape is in the image and where in the label."""
    inside = blob()
    image, label = plan.apply(inside.astype(np.float32), np.where(inside, 2, 0).astype(np.uint8))
    return image > 0.5, label == 2


@pytest.mark.parametrize("kinds", [(), *((kind,) for kind in GEOMETRY)])
def test_on_average_image_and_label_lie_in_the_same_place(kinds: tuple[type, ...]) -> None:
    """Half a pixel between the two, as from another idea of a pixel's place, would show."""
    apart = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        plan = replace(Plan.draw(seed), flip_horizontal=False, flip_vertical=False)
        bright, labelled = moved_blob(replace(plan, operations=tuple(kind.draw(rng) for kind in kinds)))
        apart.append(np.argwhere(bright).mean(axis=0) - np.argwhere(labelled).mean(axis=0))
    assert np.abs(np.mean(apart, axis=0)).max() < 0.04


@pytest.mark.parametrize("kind", [kind for kind, _ in OPERATIONS if kind not in GEOMETRY])
def test_operations_on_brightness_leave_the_label_alone(kind: type) -> None:
    image, label = random_slice(40, 48)
    given_label = label.copy()
    for operation in drawn(kind, 30):
        changed, same = operation.apply(image, label)
        np.testing.assert_array_equal(same, given_label)
        assert 0 <= changed.min() <= changed.max() <= 1
    assert not np.array_equal(changed, image)


# Rates and ranges.


def test_flips_crops_and_affine_changes_happen_as_often_as_stated() -> None:
    for happened, chance in (
        (lambda plan: plan.flip_horizontal, 0.5),
        (lambda plan: plan.flip_vertical, 0.2),
        (lambda plan: plan.crop_and_pad is not None, 0.5),
        (lambda plan: plan.affine is not None, 0.5),
        (lambda plan: plan.flip_horizontal and plan.flip_vertical, 0.1),
        (lambda plan: plan.affine is not None and plan.crop_and_pad is not None, 0.25),
    ):
        assert_share(sum(map(happened, PLANS)), len(PLANS), chance)


def test_nought_to_five_operations_are_as_likely_and_each_as_often_as_its_chance() -> None:
    numbers = Counter(len(plan.operations) for plan in PLANS)
    assert set(numbers) == set(range(6))
    for number in range(6):
        assert_share(numbers[number], len(PLANS), 1 / 6)
    kinds = Counter(type(operation) for plan in PLANS for operation in plan.operations if operation is not None)
    for kind, chance in OPERATIONS:
        assert_share(kinds[kind], len(PLANS), 2.5 / 14 * chance)
    half = {Superpixels, Elastic, LocalAffine, Perspective}
    for kind, chance in OPERATIONS:
        assert chance == (0.05 if kind is Inversion else 0.5 if kind in half else 1.0)
    assert len({kind for kind, _ in OPERATIONS}) == 14


def test_an_operation_is_chosen_once_and_in_any_order() -> None:
    before = Counter()
    for plan in PLANS:
        kinds = [type(operation) for operation in plan.operations if operation is not None]
        assert len(set(kinds)) == len(kinds)
        if Blur in kinds and Noise in kinds:
            before[kinds.index(Blur) < kinds.index(Noise)] += 1
    assert_share(before[True], before.total(), 0.5)


def test_sizes_of_the_geometric_changes_are_as_stated() -> None:
    crops = [plan.crop_and_pad for plan in PLANS if plan.crop_and_pad is not None]
    affine = [plan.affine for plan in PLANS if plan.affine is not None]
    for side in range(4):
        assert_fills([crop.sides[side] for crop in crops], -0.05, 0.1)
    for axis in range(2):
        assert_fills([change.scale[axis] for change in affine], 0.8, 1.2)
    assert_fills([change.rotation_degrees for change in affine], -45, 45)
    assert_fills([change.shear_degrees for change in affine], -16, 16)
    assert_fills([change.pixels for change in drawn(Elastic)], 0.5, 3.5)
    assert_fills([change.scale for change in drawn(LocalAffine)], 0.01, 0.05)
    inwards = np.array([change.corners for change in drawn(Perspective, 2000)])
    assert inwards.min() >= 0
    assert inwards.max() <= 0.45
    # Mean of a half-normal value, its standard deviation being even over 0.01..0.1.
    assert inwards.mean() == pytest.approx(0.055 * math.sqrt(2 / math.pi), rel=0.05)


def test_sizes_of_the_changes_of_brightness_are_as_stated() -> None:
    blurs = {
        kind: [blur.size for blur in drawn(Blur) if blur.kind == kind] for kind in ("gaussian", "average", "median")
    }
    for sizes_drawn in blurs.values():
        assert_share(len(sizes_drawn), 300, 1 / 3)
    assert_fills(blurs["gaussian"], 0, 3)
    assert set(blurs["average"]) == {2, 3, 4, 5, 6, 7}
    assert set(blurs["median"]) == {3, 5, 7, 9, 11}
    for kind, name, low, high in (
        (Superpixels, "share", 0, 1),
        (Superpixels, "segments", 20, 200),
        (Sharpen, "alpha", 0, 1),
        (Sharpen, "lightness", 0.75, 1.5),
        (Emboss, "alpha", 0, 1),
        (Emboss, "strength", 0, 2),
        (Edges, "alpha", 0.5, 1),
        (Noise, "deviation", 0, 0.05),
        (Brightness, "added", -10 / 255, 10 / 255),
        (Multiply, "factor", 0.5, 1.5),
        (Contrast, "factor", 0.5, 2),
    ):
        assert_fills([getattr(operation, name) for operation in drawn(kind)], low, high)
    pixels = [drop.share for drop in drawn(Dropout) if drop.cell is None]
    patches = [drop.share for drop in drawn(Dropout) if drop.cell is not None]
    assert_share(len(pixels), 300, 0.5)
    assert_fills(pixels, 0.01, 0.1)
    assert_fills(patches, 0.03, 0.1)


# Each operation against a reference of its own.


def test_flips_mirror_and_an_empty_plan_changes_nothing() -> None:
    image, label = random_slice(20, 30)
    for horizontal, vertical in ((False, False), (True, False), (False, True), (True, True)):
        plan = Plan(horizontal, vertical, None, None, ())
        axes = [axis for axis, mirrored in enumerate((vertical, horizontal)) if mirrored]
        for changed, original in zip(plan.apply(image, label), (image, label), strict=True):
            np.testing.assert_array_equal(changed, np.flip(original, axes))


def test_crop_and_pad_cut_off_or_add_and_resize() -> None:
    """Two of 40 columns cut off the left, four added to the right, against slicing and linear interpolation."""
    image, label = random_slice(40, 40)
    change = CropAndPad((-0.05, 0.1, 0.0, 0.0))
    moved, labels = warp(image, label, change.matrix(40, 40))
    wider = np.pad(image[:, 2:], ((0, 0), (0, 4)))
    places = (np.arange(40) + 0.5) * 42 / 40 - 0.5
    expected = np.stack([np.interp(places, np.arange(42), row) for row in wider])
    np.testing.assert_allclose(moved[:, 1:-1], expected[:, 1:-1], atol=1e-4)
    np.testing.assert_array_equal(labels[:, :-4], label[:, 2:][:, np.rint(places).astype(int)[:-4]])
    assert not labels[:, -3:].any()


def test_affine_turns_scales_and_shears_about_the_middle() -> None:
    image, label = random_slice(41, 41)
    turned, turned_label = warp(image, label, Affine((1, 1), 90, 0).matrix(41, 41))
    np.testing.assert_allclose(turned, np.rot90(image, -1), atol=1e-4)
    np.testing.assert_array_equal(turned_label, np.rot90(label, -1))

    dot = np.zeros((101, 101), np.float32)
    dot[60, 70] = 1  # 20 to the right of the middle and 10 below it
    dot = ndimage.gaussian_filter(dot, 2)
    for change, x, y in (
        (Affine((1.2, 0.8), 0, 0), 24, 8),
        (Affine((1, 1), 0, 16), 20 + 10 * math.tan(math.radians(16)), 10),
        (Affine((1, 1), 30, 0), 20 * math.cos(math.pi / 6) - 5, 10 + 10 * math.cos(math.pi / 6)),
    ):
        moved, _ = warp(dot, np.zeros((101, 101), np.uint8), change.matrix(101, 101))
        np.testing.assert_allclose(ndimage.center_of_mass(moved), (50 + y, 50 + x), atol=0.02)


def test_crop_and_pad_come_before_the_affine_change_and_need_no_square() -> None:
    image = np.zeros((60, 100), np.float32)
    image[20, 30] = 1
    image = ndimage.gaussian_filter(image, 2)
    plan = Plan(True, False, CropAndPad((0.1, 0.0, 0.0, 0.1)), Affine((1, 0.8), 40, 0), ())
    x, y = 99 - 30, 20  # mirrored
    x, y = (x + 0.5 + 10) / 1.1 - 0.5, (y + 0.5) / 1.1 - 0.5
    x, y = x - 49.5, 0.8 * (y - 29.5)
    angle = math.radians(40)
    expected = (29.5 + x * math.sin(angle) + y * math.cos(angle), 49.5 + x * math.cos(angle) - y * math.sin(angle))
    moved, _ = plan.apply(image, np.zeros((60, 100), np.uint8))
    np.testing.assert_allclose(ndimage.center_of_mass(moved), expected, atol=0.02)


def test_perspective_stretches_a_quadrangle_to_the_whole() -> None:
    rows, columns = np.mgrid[:60, :80].astype(np.float32) / 100
    corners = ((0.1, 0.05), (0.2, 0.15), (0.0, 0.1), (0.05, 0.2))
    change = Perspective(corners)
    for plane, name in ((columns, 0), (rows, 1)):
        moved, _ = change.apply(plane, np.zeros((60, 80), np.uint8))
        last = (80, 60)[name] - 1
        for (row, column), corner, far in zip(
            ((0, 0), (0, -1), (-1, -1), (-1, 0)), corners, ((0, 0), (1, 0), (1, 1), (0, 1)), strict=True
        ):
            inside = abs(far[name] - corner[name]) * last
            assert 100 * moved[row, column] == pytest.approx(inside, abs=0.05)


def test_elastic_moves_no_pixel_further_than_its_strength() -> None:
    columns = np.tile(np.arange(64, dtype=np.float32) / 64, (64, 1))
    moved, _ = Elastic(2.5, 1).apply(columns, np.zeros((64, 64), np.uint8))
    way = 64 * (moved - columns)[4:-4, 4:-4]
    assert 2.3 < np.abs(way).max() <= 2.51
    assert way.std() == pytest.approx(2.5 / math.sqrt(3), rel=0.05)


def test_local_affine_is_linear_on_each_triangle_of_its_grid() -> None:
    points = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    field = triangles(points, 31, 31)  # ten pixels a cell
    np.testing.assert_allclose(field[::10, ::10], points, atol=1e-5)
    for row, column in np.ndindex(31, 31):
        i, j = min(row // 10, 2), min(column // 10, 2)
        v, u = row / 10 - i, column / 10 - j
        near, far = (points[i, j], u, v), (points[i + 1, j + 1], 1 - v, 1 - u)
        corner, along_row, along_column = near if u + v <= 1 else far
        expected = corner + along_row * (points[i, j + 1] - corner) + along_column * (points[i + 1, j] - corner)
        assert field[row, column] == pytest.approx(expected, abs=1e-5)


def test_local_affine_moves_as_far_as_its_scale() -> None:
    columns = np.tile(np.arange(64, dtype=np.float32) / 64, (64, 1))
    ways = []
    for seed in range(200):
        moved, _ = LocalAffine(0.03, seed).apply(columns, np.zeros((64, 64), np.uint8))
        ways.append((moved - columns)[21, 21])  # a point of the grid
    assert np.std(ways) == pytest.approx(0.03, rel=0.2)


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
