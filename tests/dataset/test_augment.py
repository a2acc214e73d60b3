import numpy as np
import pytest

from boneseg.dataset.augment import SCALE, build_recipe

CROP = 96


def window(recipe_window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a bright disc, off the centre, as image and label."""
    rows, columns = np.ogrid[:recipe_window, :recipe_window]
    middle = recipe_window // 2
    disc = (rows - middle + 5) ** 2 + (columns - middle - 8) ** 2 < 20**2
    return np.where(disc, 0.9, 0.3).astype(np.float32), np.where(disc, 2, 1).astype(np.uint8)


def test_none_changes_nothing() -> None:
    recipe = build_recipe("none", CROP)
    image, label = window(recipe.window)
    assert recipe.window == CROP
    for changed, original in zip(recipe(image, label, 1), (image, label), strict=True):
        np.testing.assert_array_equal(changed, original)


def test_the_same_seed_makes_the_same_crop_and_another_seed_another() -> None:
    first, second = build_recipe("basic", CROP), build_recipe("basic", CROP)
    image, label = window(first.window)
    first(image, label, 5)
    for seed in range(10):
        for one, other in zip(first(image, label, seed), second(image, label, seed), strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first(image, label, 1)[0], first(image, label, 2)[0])


def test_image_and_label_move_together_and_values_stay_allowed() -> None:
    recipe = build_recipe("basic", CROP)
    image, label = window(recipe.window)
    for seed in range(100):
        changed, moved = recipe(image, label, seed)
        assert changed.shape == moved.shape == (CROP, CROP)
        assert (changed.dtype, moved.dtype) == (np.float32, np.uint8)
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert set(np.unique(moved)) <= {1, 2}, "a turned or shrunken crop reaches over the window's edge"
        bright = changed > 0.6
        assert 2 * (bright & (moved == 2)).sum() / (bright.sum() + (moved == 2).sum()) > 0.93


def test_each_kind_of_change_happens_on_its_own() -> None:
    recipe = build_recipe("basic", CROP)
    image, label = window(recipe.window)
    area, flipped, noisy = [], [], []
    for seed in range(300):
        changed, moved = recipe(image, label, seed)
        area.append((moved == 2).sum() / (label == 2).sum())
        flipped.append(np.argwhere(moved == 2)[:, 1].mean() < CROP / 2)
        noisy.append(changed[moved == 1][:200].std() > 0.003)
    assert 0.4 < np.mean(flipped) < 0.6
    assert 0.2 < np.mean(noisy) < 0.6
    assert min(area) < 0.7
    assert max(area) > 1.5
    assert min(area) > SCALE[0] ** 2 * 0.9
    assert max(area) < SCALE[1] ** 2 * 1.1
    # Chances are independent: as many are flipped among the noisy as among all.
    assert np.mean(np.array(flipped)[noisy]) == pytest.approx(np.mean(flipped), abs=0.12)
