import numpy as np
import pytest
import SimpleITK

from boneseg.dataset.preprocess import (
    context,
    from_network,
    images_of,
    labels_to_network,
    network_size,
    to_network,
)
from boneseg.hu import normalise
from boneseg.settings.schema import PreprocessSettings


def test_without_a_spacing_slices_keep_their_pixels() -> None:
    hu = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    assert to_network(hu, (0.7, 0.9), PreprocessSettings(spacing_mm=None)).shape == (2, 3, 4)


def test_rows_and_columns_are_resampled_each_by_its_own_spacing() -> None:
    settings = PreprocessSettings(spacing_mm=1.0)
    assert network_size((100, 80), (0.5, 2.0), settings) == (50, 160)
    assert to_network(np.zeros((3, 100, 80), np.int16), (0.5, 2.0), settings).shape == (3, 50, 160)


def test_enlarging_is_linear_interpolation_at_pixel_centres() -> None:
    rng = np.random.default_rng(0)
    hu = rng.integers(-400, 1200, (1, 20, 24)).astype(np.int16)
    settings = PreprocessSettings(spacing_mm=0.5)
    ours = to_network(hu, (1.0, 1.0), settings)[0]
    image = SimpleITK.GetImageFromArray(hu[0].astype(np.float32))
    finer = SimpleITK.Image(48, 40, SimpleITK.sitkFloat32)
    finer.SetSpacing((0.5, 0.5))
    finer.SetOrigin((-0.25, -0.25))
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.Resample(image, finer, SimpleITK.Transform(), SimpleITK.sitkLinear))
    np.testing.assert_allclose(ours[2:-2, 2:-2], normalise(theirs, settings.window)[2:-2, 2:-2], atol=1e-4)


def test_labels_take_the_nearest_pixel_and_stay_in_place() -> None:
    label = np.zeros((1, 30, 40), dtype=np.uint8)
    label[0, 10:20, 8:28] = 2
    finer = labels_to_network(label, (1.0, 1.0), PreprocessSettings(spacing_mm=0.5))
    np.testing.assert_array_equal(finer, label.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize("spacing", [0.6, 1.0, 1.7])
def test_a_mask_comes_back_to_where_it_was(spacing: float) -> None:
    rows, columns = np.ogrid[:96, :120]
    disc = ((rows - 40) ** 2 + (columns - 70) ** 2 < 25**2).astype(np.float32)
    settings = PreprocessSettings(spacing_mm=spacing)
    there = from_network(disc[None, None], network_size((96, 120), (1.0, 1.0), settings))
    back = from_network(there, (96, 120))
    assert back.shape == (1, 1, 96, 120)
    mask = back[0, 0] > 0.5
    assert 2 * (mask & (disc > 0)).sum() / (mask.sum() + disc.sum()) > 0.97
    np.testing.assert_allclose(np.argwhere(mask).mean(axis=0), [40, 70], atol=0.1)


@pytest.mark.parametrize(
    ("distance", "slices", "wanted", "expected"),
    [
        (3.0, 3, None, [9, 10, 11]),
        (0.6, 3, 3.0, [5, 10, 15]),
        (5.0, 5, 3.0, [8, 9, 10, 11, 12]),  # never the same slice twice
        (2.0, 5, 3.0, [7, 8, 10, 12, 13]),
        (2.0, 1, 3.0, [10]),
    ],
)
def test_neighbours_are_the_slices_nearest_to_the_distance(
    distance: float, slices: int, wanted: float | None, expected: list[int]
) -> None:
    settings = PreprocessSettings.model_validate({"slices": slices, "slice_distance_mm": wanted})
    assert context(10, 21, distance, settings) == expected


def test_images_of_single_slices_are_those_of_the_whole_volume() -> None:
    hu = np.random.default_rng(0).integers(-400, 1200, (7, 20, 24)).astype(np.int16)
    settings = PreprocessSettings(slices=3, spacing_mm=2.0)
    whole = images_of(hu, range(7), (3.0, 1.0, 1.0), settings)
    assert whole.shape == (7, 3, 10, 12)
    np.testing.assert_array_equal(images_of(hu, [5, 0], (3.0, 1.0, 1.0), settings), whole[[5, 0]])
    np.testing.assert_array_equal(whole[3, 1], to_network(hu[3:4], (1.0, 1.0), settings)[0])
