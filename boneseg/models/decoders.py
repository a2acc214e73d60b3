"""Decoders that segmentation-models-pytorch does not have, on its encoders: FCN-8s, FCN-32s and SegNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn
from torch.nn import functional

from boneseg.models.scores import ScoreConvolution

STAGES = 5
"""Features that a decoder is given besides the image: at strides 2, 4, 8, 16 and 32."""
WIDEST, NARROWEST = 512, 32
"""Most and fewest channels of a SegNet decoder's layers."""


class FCN(nn.Module):
    """Scores of the deepest features, enlarged to the image by learned interpolation.

    FCN-32s enlarges the scores at stride 32 at once. FCN-8s doubles them and adds the scores of stride 16, doubles
    again and adds those of stride 8, then enlarges eightfold. Long, Shelhamer and Darrell, "Fully convolutional
    networks for semantic segmentation", CVPR 2015. VGG's two layers of 4096 channels before the deepest score are a
    3x3 convolution to a quarter of the encoder's channels here: with a deep encoder they would hold more parameters
    than all the rest.

    Args:
        channels: of the encoder's features, stride 1 to 32.
        classes: that it tells apart.
        steps: enlargements one after the other; their product is 32, and features join between them.
    """

    def __init__(self, channels: Sequence[int], classes: int, steps: Sequence[int]) -> None:
        super().__init__()
        hidden = max(channels[-1] // 4, classes)
        self.deepest = nn.Sequential(_convolution(channels[-1], hidden), nn.Dropout(0.1), _score(hidden, classes))
        self.joined = nn.ModuleList(_score(channels[STAGES - number], classes) for number in range(1, len(steps)))
        self.enlargements = nn.ModuleList(_enlarge(step, classes) for step in steps)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map features (N, C_i, H / 2^i, W / 2^i), i = 0..5, to logits (N, classes, H, W)."""
        logits: Tensor = self.enlargements[0](self.deepest(features[-1]))
        for number, (score, enlarge) in enumerate(zip(self.joined, self.enlargements[1:], strict=True), start=1):
            logits = enlarge(logits + score(features[STAGES - number]))
        return logits


class SegNet(nn.Module):
    """The encoder mirrored: five times enlarged twofold and convolved twice, nothing taken from shallower features.

    After Badrinarayanan, Kendall and Cipolla, "SegNet", IEEE TPAMI 39 (12), 2017. Nearest neighbours stand in for
    their unpooling, since most encoders shrink by strides and have no pooling indices.

    Args:
        channels: of the encoder's features, stride 1 to 32.
        classes: that it tells apart.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        mirrored = [min(max(width, NARROWEST), WIDEST) for width in (*channels[-2:0:-1], NARROWEST)]
        before = [channels[-1], *mirrored[:-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(given, width), _convolution(width, width))
            for given, width in zip(before, mirrored, strict=True)
        )
        self.score = nn.Conv2d(mirrored[-1], classes, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map features, of which the deepest counts, (N, C, H / 32, W / 32), to logits (N, classes, H, W)."""
        image = features[-1]
        for stage in self.stages:
            image = stage(functional.interpolate(image, scale_factor=2, mode="nearest"))
        logits: Tensor = self.score(image)
        return logits


DECODERS: dict[str, Callable[[Sequence[int], int], nn.Module]] = {
    "fcn8": partial(FCN, steps=(2, 2, 8)),
    "fcn32": partial(FCN, steps=(32,)),
    "segnet": SegNet,
}
"""Architecture -> function from the channels of an encoder's features and the number of classes to a decoder."""


class OnEncoder(nn.Module):
    """An encoder of segmentation-models-pytorch and one of these decoders.

    Args:
        architecture: one of ``DECODERS``.
        encoder: an encoder's name as in ``get_encoder``; random weights.
        channels: of the image.
        classes: that it tells apart.
        options: for a timm encoder.

    Raises:
        ValueError: the encoder does not give features at strides 2 to 32.
    """

    def __init__(self, architecture: str, encoder: str, channels: int, classes: int, **options: Any) -> None:
        super().__init__()
        self.encoder = get_encoder(encoder, in_channels=channels, depth=STAGES, weights=None, **options)
        widths = list(self.encoder.out_channels)
        if len(widths) != STAGES + 1:
            raise ValueError(f"it gives features at {len(widths) - 1} strides, not at 2, 4, 8, 16 and 32")
        self.decoder = DECODERS[architecture](widths, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, channels, H, W), H and W multiples of 32, to logits (N, classes, H, W)."""
        logits: Tensor = self.decoder(self.encoder(image))
        return logits


def _convolution(given: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(given, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def _score(width: int, classes: int) -> nn.Conv2d:
    return ScoreConvolution(width, classes, 1)


def _enlarge(step: int, classes: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution that starts as bilinear interpolation, each class for itself."""
    layer = nn.ConvTranspose2d(classes, classes, 2 * step, stride=step, padding=step // 2, bias=False)
    ramp = 1 - (torch.arange(2 * step, dtype=torch.float32) - (step - 0.5)).abs() / step
    with torch.no_grad():
        layer.weight.copy_(torch.eye(classes)[:, :, None, None] * ramp[:, None] * ramp)
    return layer
