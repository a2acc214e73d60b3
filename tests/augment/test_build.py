import numpy as np
import pytest

from boneseg.augment.basic import SCALE
from boneseg.augment.build import AUGMENTATIONS, build_augmentation
from boneseg.hu import normalise
from boneseg.settings.schema import PreprocessSettings

CROP = 96
PLAIN = PreprocessSettings()


def window(size: int, slices: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return a bright disc, off the centre, in tissue: HU and label."""
    rows, columns = np.ogrid[:size, :size]
    middle = size // 2
    disc = (rows - middle + 5) ** 2 + (columns - middle - 8) ** 2 < 20**2
    hu = np.where(disc, 1100, 40).astype(np.float32)
    return np.repeat(hu[None], slices, axis=0), np.where(disc, 2, 1).astype(np.uint8)


def test_none_only_normalises() -> None:
    augmentation = build_augmentation("none", CROP, PLAIN)
    hu, label = window(augmentation.window)
    assert augmentation.window == CROP
    image, same = augmentation(hu, label, 1.0, 1)
    np.testing.assert_array_equal(image, normalise(hu, PLAIN.window))
    np.testing.assert_array_equal(same, label)


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
@pytest.mark.parametrize("slices", [1, 5])
def test_a_crop_has_the_size_and_values_that_training_expects(name: str, slices: int) -> None:
    augmentation = build_augmentation(name, CROP, PLAIN)
    hu, label = window(augmentation.window, slices)
    for seed in range(20):
        image, moved = augmentation(hu.copy(), label.copy(), 1.0, seed)
        assert image.shape == (slices, CROP, CROP)
        assert moved.shape == (CROP, CROP)
        assert (image.dtype, moved.dtype) == (np.float32, np.uint8)
        assert image.min() >= 0
        assert image.max() <= 1
        assert set(np.unique(moved)) <= {0, 1, 2}


@pytest.mark.parametrize("name", ["basic", "ct", "paper"])
def test_the_same_seed_makes_the_same_crop_and_another_seed_another(name: str) -> None:
    first, second = build_augmentation(name, CROP, PLAIN), build_augmentation(name, CROP, PLAIN)
    hu, label = window(first.window)
    first(hu.copy(), label.copy(), 1.0, 5)
    for seed in range(10):
        crops = [augmentation(hu.copy(), label.copy(), 1.0, seed) for augmentation in (first, second)]
        for one, other in zip(*crops, strict=True):
            np.testing.assert_array_equal(one, other)
    one, other = (first(hu.copy(), label.copy(), 1.0, seed)[0] for seed in (1, 2))
    assert not np.array_equal(one, other)


def test_image_and_label_move_together() -> None:
    augmentation = build_augmentation("basic", CROP, PLAIN)
    hu, label = window(augmentation.window)
    for seed in range(100):
        changed, moved = augmentation(hu, label, 1.0, seed)
        assert set(np.unique(moved)) <= {1, 2}, "a turned or shrunken crop reaches over the window's edge"
        bright = changed[0] > 0.6
        assert 2 * (bright & (moved == 2)).sum() / (bright.sum() + (moved == 2).sum()) > 0.93


def test_each_kind_of_change_happens_on_its_own() -> None:
    augmentation = build_augmentation("basic", CROP, PLAIN)
    hu, label = window(augmentation.window)
    area, flipped, noisy = [], [], []
    for seed in range(300):
        changed, moved = augmentation(hu, label, 1.0, seed)
        area.append((moved == 2).sum() / (label == 2).sum())
        flipped.append(np.argwhere(moved == 2)[:, 1].mean() < CROP / 2)
        noisy.append(changed[0][moved == 1][:200].std() > 0.003)
    assert 0.4 < np.mean(flipped) < 0.6
    assert 0.2 < np.mean(noisy) < 0.6
    assert min(area) < 0.7
    assert max(area) > 1.5
    assert min(area) > SCALE[0] ** 2 * 0.9
    assert max(area) < SCALE[1] ** 2 * 1.1
    # Chances are independent: as many are flipped among the noisy as among all.
    assert np.mean(np.array(flipped)[noisy]) == pytest.approx(np.mean(flipped), abs=0.12)
