import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from boneseg.augment.paper import OPERATIONS, PaperSequence, Plan
from boneseg.augment.paper_geometry import (
    Elastic,
    LocalAffine,
    Perspective,
)
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
)
from tests.augment.pictures import assert_share, blob, random_slice

GEOMETRY = (Elastic, LocalAffine, Perspective)
PLANS = [Plan.draw(seed) for seed in range(6000)]

seeds = st.integers(0, 2**40)
sizes = st.integers(8, 70)


def drawn(kind: type, number: int = 300) -> list:
    rng = np.random.default_rng(3)
    return [kind.draw(rng) for _ in range(number)]


def assert_fills(values: list[float], low: float, high: float) -> None:
    """Check that values drawn evenly lie in a range and reach into its ends."""
    assert low <= min(values) < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < max(values) <= high


@settings(deadline=None, max_examples=150)
@given(seed=seeds, rows=sizes, columns=sizes, channels=st.sampled_from([None, 1, 3, 7]))
def test_shapes_types_and_values_stay_allowed(seed: int, rows: int, columns: int, channels: int | None) -> None:
    image, label = random_slice(rows, columns, seed, channels)
    given_image, given_label = image.copy(), label.copy()
    changed, moved = PaperSequence()(image, label, seed)
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
    augmentation = PaperSequence()
    first = augmentation(image, label, seed)
    augmentation(image, label, seed + 1)
    for one, other in zip(first, PaperSequence()(image, label, seed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_seeds_make_other_changes() -> None:
    assert len({str(plan) for plan in PLANS}) > 0.9 * len(PLANS)


@settings(deadline=None, max_examples=80)
@given(seed=seeds, channels=st.sampled_from([3, 5, 7]))
def test_all_channels_change_alike(seed: int, channels: int) -> None:
    image, label = random_slice(48, 40)
    alone, moved = PaperSequence()(image, label, seed)
    together, moved_too = PaperSequence()(np.repeat(image[..., None], channels, axis=2), label, seed)
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
