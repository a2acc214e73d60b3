import pytest
import torch
from torch.nn import functional

from boneseg.models.decoders import DECODERS, OnEncoder, SegNet

CHANNELS = (1, 8, 8, 16, 16, 32)


def features(rows: int) -> list[torch.Tensor]:
    return [torch.rand(2, width, rows >> level, rows >> level) for level, width in enumerate(CHANNELS)]


@pytest.mark.parametrize("architecture", sorted(DECODERS))
@pytest.mark.parametrize("encoder", ["mobilenet_v2", "mit_b0"])
def test_an_image_is_answered_at_its_size_and_every_weight_learns(architecture: str, encoder: str) -> None:
    network = OnEncoder(architecture, encoder, channels=3, classes=3).train()
    logits = network(torch.rand(2, 3, 64, 96))
    assert logits.shape == (2, 3, 64, 96)
    logits.square().mean().backward()
    assert all(weight.grad is not None for weight in network.decoder.parameters())


def test_enlarging_starts_as_bilinear_interpolation() -> None:
    decoder = DECODERS["fcn32"](CHANNELS, 3).eval()
    given = features(128)
    scores = decoder.get_submodule("deepest")(given[-1])
    expected = functional.interpolate(scores, scale_factor=32, mode="bilinear", align_corners=False)
    # Bilinear interpolation repeats the border; a transposed convolution fades out there.
    inner = (..., slice(16, -16), slice(16, -16))
    assert torch.allclose(decoder(given)[inner], expected[inner], atol=1e-5)


@pytest.mark.parametrize(("architecture", "used"), [("fcn8", {3, 4, 5}), ("fcn32", {5}), ("segnet", {5})])
def test_a_decoder_sees_the_features_that_its_paper_says(architecture: str, used: set[int]) -> None:
    decoder = DECODERS[architecture](CHANNELS, 3).eval()
    given = [feature.requires_grad_() for feature in features(64)]
    decoder(given).sum().backward()
    assert {level for level, feature in enumerate(given) if feature.grad is not None} == used


def test_segnet_mirrors_the_encoders_widths_within_bounds() -> None:
    decoder = SegNet((1, 8, 64, 128, 1024, 2048), 3)
    widths = [layer.out_channels for layer in decoder.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [512, 512, 128, 128, 64, 64, 32, 32, 32, 32, 3]
