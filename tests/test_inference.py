import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from boneseg.geometry import axial
from boneseg.inference import predict_both, predict_ensemble, predict_volume
from boneseg.models.build import AnySize, build_model
from boneseg.settings.schema import ModelSettings, PreprocessSettings


class Threshold(nn.Module):
    """Scores that label by intensity alone: below 0.25, below 0.6, above."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen = getattr(self, "seen", [])
        self.seen.append(tuple(image.shape))
        return torch.cat([0.25 - image, 0.5 - (image - 0.425).abs() * 2 - 0.15, image - 0.6], dim=1)


def volume(shape: tuple[int, int, int] = (5, 40, 56)) -> NDArray[np.int16]:
    values = np.random.default_rng(0).choice([-900, 200, 1000], size=shape)
    return values.astype(np.int16)


def test_each_voxel_gets_its_class_on_its_own_place() -> None:
    hu = volume()
    mask = predict_volume(Threshold(), PreprocessSettings(spacing_mm=None), hu, axial(hu.shape, (3, 1, 1)))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.searchsorted([-900, 200, 1000], hu))


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_mask_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    hu = volume()
    geometry = axial(hu.shape, (3, 1, 1))
    torch.manual_seed(0)
    network = build_model(ModelSettings(encoder="mobilenet_v2"))
    expected = predict_volume(network, PreprocessSettings(spacing_mm=None), hu, geometry, batch_size=4)
    found = predict_volume(network, PreprocessSettings(spacing_mm=None), hu, geometry, batch_size=batch_size)
    # Sums of another order may turn a tie of bf16 scores; more than a few such voxels would be a fault.
    assert (found != expected).mean() < 0.01


def test_the_same_input_gives_the_same_mask() -> None:
    hu = volume()
    geometry = axial(hu.shape, (3, 1, 1))
    network = build_model(ModelSettings(encoder="mobilenet_v2"))
    first, second = (predict_volume(network, PreprocessSettings(spacing_mm=None), hu, geometry) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_network_sees_the_spacing_of_its_card_and_the_mask_has_the_series_own_grid() -> None:
    hu = np.full((2, 64, 64), -900, dtype=np.int16)
    hu[:, 16:48, 24:40] = 1000
    network = Threshold()
    mask = predict_volume(network, PreprocessSettings(spacing_mm=1.0), hu, axial(hu.shape, (3, 0.5, 0.75)))
    assert network.seen[0] == (2, 1, 32, 48)
    bone = mask == 2
    assert mask.shape == hu.shape
    truth = hu == 1000
    assert 2 * (bone & truth).sum() / (bone.sum() + truth.sum()) > 0.9
    np.testing.assert_allclose(np.argwhere(bone).mean(axis=0), np.argwhere(truth).mean(axis=0), atol=0.5)


def test_floats_of_the_whole_volume_never_exist() -> None:
    hu = np.zeros((64, 128, 128), dtype=np.int16)
    network = Threshold()
    predict_volume(network, PreprocessSettings(spacing_mm=None), hu, axial(hu.shape, (3, 1, 1)), batch_size=4)
    assert max(shape[0] for shape in network.seen) == 4


class Half(nn.Module):
    """Answers at half the size; scores by intensity, and counts its passes."""

    passes = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return Threshold()(functional.avg_pool2d(image, 2))


def test_both_grids_are_labelled_from_one_pass() -> None:
    hu = volume((3, 64, 96))
    network = Half()
    labels = predict_both(
        AnySize(network), PreprocessSettings(spacing_mm=None), hu, axial(hu.shape, (3, 1, 1)), batch_size=3
    )
    assert network.passes == 1
    assert labels.output is not None
    np.testing.assert_array_equal(
        labels.mask,
        predict_volume(AnySize(Half()), PreprocessSettings(spacing_mm=None), hu, axial(hu.shape, (3, 1, 1))),
    )
    assert (labels.output.shape, labels.mask.shape) == ((3, 32, 48), (3, 64, 96))
    own = Half()(torch.from_numpy(np.clip((hu + 500.0) / 1800.0, 0, 1).astype(np.float32))[:, None])
    np.testing.assert_array_equal(labels.output, own.argmax(dim=1).numpy())


def test_a_network_that_answers_on_the_slices_own_pixels_is_labelled_once() -> None:
    hu = volume()
    labels = predict_both(Threshold(), PreprocessSettings(spacing_mm=None), hu, axial(hu.shape, (3, 1, 1)))
    assert labels.output is None


def test_resampled_slices_have_an_output_grid_of_their_own() -> None:
    hu = volume((2, 64, 64))
    labels = predict_both(Threshold(), PreprocessSettings(spacing_mm=2.0), hu, axial(hu.shape, (3, 1, 1)))
    assert labels.output is not None
    assert (labels.output.shape, labels.mask.shape) == ((2, 32, 32), (2, 64, 64))


def test_chosen_slices_are_labelled_as_within_the_whole_volume() -> None:
    hu = volume((6, 40, 56))
    geometry = axial(hu.shape, (3, 1, 1))
    whole = predict_volume(Threshold(), PreprocessSettings(spacing_mm=None), hu, geometry)
    some = predict_volume(Threshold(), PreprocessSettings(spacing_mm=None), hu, geometry, slices=[4, 0, 5])
    np.testing.assert_array_equal(some, whole[[4, 0, 5]])


class Fixed(nn.Module):
    """The same scores everywhere."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = torch.tensor(scores)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        shape = (len(image), len(self.scores), *image.shape[-2:])
        return self.scores[None, :, None, None].expand(shape).float()


@pytest.mark.parametrize("spacing_mm", [None, 2.0])
def test_an_ensemble_of_one_network_is_the_network(spacing_mm: float | None) -> None:
    hu = volume()
    geometry, preprocess = axial(hu.shape, (3, 1, 1)), PreprocessSettings(spacing_mm=spacing_mm, slices=3)
    torch.manual_seed(0)
    network = build_model(ModelSettings(encoder="mobilenet_v2", preprocess=preprocess))
    alone = predict_volume(network, preprocess, hu, geometry)
    assert len(np.unique(alone)) > 1
    np.testing.assert_array_equal(predict_ensemble([(network, preprocess)], hu, geometry), alone)


def test_an_ensemble_takes_the_class_of_the_highest_mean_probability() -> None:
    # Softmax by hand: (0.5, 0.4, 0.1) and (0.1, 0.45, 0.45); each network alone says 0 or 1 (a tie), the mean is
    # (0.3, 0.425, 0.275). The mean of the scores instead would say the same of these, but not of the second pair:
    # means (0.37, 0.3, 0.33), geometric means (0.19, 0.3, 0.08).
    plain = PreprocessSettings(spacing_mm=None)
    hu = volume((2, 40, 40))
    geometry = axial(hu.shape, (3, 1, 1))

    def together(*probabilities: tuple[float, ...]) -> np.ndarray:
        networks = [Fixed(*np.log(row)) for row in probabilities]
        return np.unique(predict_ensemble([(network, plain) for network in networks], hu, geometry))

    assert together((0.5, 0.4, 0.1), (0.1, 0.45, 0.45)) == [1]
    assert together((0.69, 0.3, 0.01), (0.05, 0.3, 0.65)) == [0]
    assert together((0.69, 0.3, 0.01), (0.05, 0.3, 0.65), (0.05, 0.3, 0.65)) == [2]


def test_members_of_an_ensemble_each_see_their_own_grid_and_answer_on_that_of_the_series() -> None:
    hu = volume((3, 64, 48))
    geometry = axial(hu.shape, (3, 1, 1))
    fine, coarse = Threshold(), Threshold()
    members = [(fine, PreprocessSettings(spacing_mm=None)), (coarse, PreprocessSettings(spacing_mm=2.0, slices=1))]
    mask = predict_ensemble(members, hu, geometry, batch_size=2)
    assert mask.shape == hu.shape
    assert fine.seen == [(2, 1, 64, 48), (1, 1, 64, 48)]
    assert coarse.seen == [(2, 1, 32, 24), (1, 1, 32, 24)]
    np.testing.assert_array_equal(predict_ensemble(members, hu, geometry, slices=[2, 0]), mask[[2, 0]])
