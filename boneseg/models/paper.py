"""The networks the paper trained, to the parameter, as Keras built them.

Krawczyk and Starzynski, Bull. Pol. Acad. Sci. Tech. Sci. 69(3) 2021, e136751: FCN8, FCN32, PSPNet, U-Net and SegNet on
a plain encoder of five convolutions, and U-Net on VGG16 and on ResNet50. The paper's numbers of parameters are those of
the networks of the Python library ``keras_segmentation`` (D. Gupta), so layers, paddings, croppings and the size of the
answer follow that library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from boneseg.encoder_compatibility import refusal
from boneseg.errors import SettingsError
from boneseg.models.scores import ScoreConvolution

PAPER_CHANNELS = 3
"""The paper feeds grey slices as three equal channels."""
HIDDEN = 4096
"""Channels between the encoder and the scores of the FCNs."""
BINS = (1, 2, 3, 6)
"""Rows and columns of PSPNet's pools."""
PYRAMID = 512
"""Channels of PSPNet's pools together and of the layer after them."""
PYRAMID_SCALE = 8
"""PSPNet's scores are this many times as tall and wide as the encoder's last feature."""


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True
) -> nn.Conv2d:
    """Return a convolution that starts as Keras's do: weights by Glorot, biases 0."""
    return _as_keras(nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias))


def _as_keras(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _score(inputs: int, classes: int, kernel: int) -> nn.Conv2d:
    """Return a convolution to the classes' scores that starts by He, normal and cut off at two deviations."""
    kind = ScoreConvolution if kernel == 1 else nn.Conv2d
    layer = _as_keras(kind(inputs, classes, kernel, padding=kernel // 2))
    # Cutting off narrows the distribution to 0.87962566 of its deviation.
    deviation = sqrt(2 / (inputs * kernel**2)) / 0.87962566
    nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    return layer


def _enlarging(classes: int, kernel: int, stride: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution of scores without bias or padding: n rows become (n - 1) stride + kernel."""
    layer = nn.ConvTranspose2d(classes, classes, kernel, stride, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer


def _norm(channels: int) -> nn.BatchNorm2d:
    """Return batch normalisation with Keras's defaults: momentum 0.99 is 0.01 in torch's way of counting.

    Its running statistics need some hundred steps to settle; before that a network predicts worse than it trains.
    """
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Encoder(nn.Module):
    """A network from an image to features, each half as tall and wide as the one before."""

    widths: tuple[int, ...]
    """Channels of each feature."""


class PlainEncoder(Encoder):
    """Convolution, normalisation, ReLU and halving, several times."""

    WIDTHS = (64, 128, 256, 256, 256)

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.widths = self.WIDTHS[:levels]
        self.levels = nn.ModuleList(
            nn.Sequential(_convolution(inputs, outputs, 3, padding=1), _norm(outputs), nn.ReLU(), nn.MaxPool2d(2))
            for inputs, outputs in pairwise((channels, *self.widths))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map images (N, channels, H, W) to features at H / 2, H / 4 and so on."""
        features: list[Tensor] = []
        for level in self.levels:
            features.append(level(features[-1] if features else image))
        return features


class VGG16Encoder(Encoder):
    """VGG16 without normalisation up to its fourth pool; ``features`` is numbered as torchvision numbers it.

    Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition, 2015.
    """

    STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.widths = tuple(stage[-1] for stage in self.STAGES)
        layers: list[nn.Module] = []
        inputs = channels
        for stage in self.STAGES:
            for outputs in stage:
                layers += [_convolution(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map images (N, channels, H, W) to features at H / 2, H / 4, H / 8 and H / 16."""
        pools: list[Tensor] = []
        for layer in self.features:
            image = layer(image)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(image)
        return pools


class Bottleneck(nn.Module):
    """A residual block of ResNet50 v1: the stride is in the first convolution, and every convolution has a bias."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = _convolution(inputs, width, 1, stride), _norm(width)
        self.conv2, self.bn2 = _convolution(width, width, 3, padding=1), _norm(width)
        self.conv3, self.bn3 = _convolution(width, outputs, 1), _norm(outputs)
        self.downsample = (
            nn.Sequential(_convolution(inputs, outputs, 1, stride), _norm(outputs)) if inputs != outputs else None
        )

    def forward(self, feature: Tensor) -> Tensor:
        """Map (N, inputs, h, w) to (N, 4 width, h / stride, w / stride)."""
        inner = functional.relu(self.bn1(self.conv1(feature)))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        inner = self.bn3(self.conv3(inner))
        return functional.relu(inner + (feature if self.downsample is None else self.downsample(feature)))


class ResNet50Encoder(Encoder):
    """ResNet50 v1 up to its third stage; its parts are named as torchvision names them.

    He, Zhang, Ren and Sun, Deep residual learning for image recognition, 2016. As in the paper's library the first
    feature is the first convolution before normalisation, and the pool behind it loses a row and a column.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.widths = (64, 256, 512, 1024)
        self.conv1, self.bn1 = _convolution(channels, 64, 7, 2, padding=3), _norm(64)
        self.layer1 = self._stage(64, 64, blocks=3, stride=1)
        self.layer2 = self._stage(256, 128, blocks=4, stride=2)
        self.layer3 = self._stage(512, 256, blocks=6, stride=2)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map images (N, channels, H, W) to features at H / 2, H / 4, H / 8 and H / 16."""
        first = self.conv1(image)
        second = self.layer1(functional.max_pool2d(functional.relu(self.bn1(first)), 3, 2))
        third = self.layer2(second)
        # One row above and one column to the left make up for what the pool lost.
        return [first, functional.pad(second, (1, 0, 1, 0)), third, self.layer3(third)]

    @staticmethod
    def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        rest = (Bottleneck(4 * width, width, 1) for _ in range(blocks - 1))
        return nn.Sequential(Bottleneck(inputs, width, stride), *rest)


class UNetDecoder(nn.Module):
    """From the fourth feature up to half the image's size, joined by the features on the way."""

    WIDTHS = (512, 256, 128, 64)

    def __init__(self, encoder_widths: Sequence[int], classes: int) -> None:
        super().__init__()
        skips = (0, *reversed(encoder_widths[:3]))
        below = (encoder_widths[3], *self.WIDTHS[:3])
        self.levels = nn.ModuleList(
            nn.Sequential(_convolution(inputs + skip, outputs, 3, padding=1), nn.ReLU(), _norm(outputs))
            for inputs, skip, outputs in zip(below, skips, self.WIDTHS, strict=True)
        )
        self.score = _score(self.WIDTHS[-1], classes, 3)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map features at H / 2 to H / 16 to logits (N, classes, H / 2, W / 2)."""
        first, *others = self.levels
        out: Tensor = first(features[3])
        for level, skip in zip(others, reversed(features[:3]), strict=True):
            out = level(torch.cat([functional.interpolate(out, scale_factor=2.0), skip], dim=1))
        logits: Tensor = self.score(out)
        return logits


class SegNetDecoder(nn.Module):
    """From the fourth feature up to half the image's size, by nothing but convolution and normalisation."""

    WIDTHS = (512, 256, 128, 64)

    def __init__(self, encoder_widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(_convolution(inputs, outputs, 3, padding=1), _norm(outputs))
            for inputs, outputs in pairwise((encoder_widths[3], *self.WIDTHS))
        )
        self.score = _score(self.WIDTHS[-1], classes, 3)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map features at H / 2 to H / 16 to logits (N, classes, H / 2, W / 2)."""
        first, *others = self.levels
        out: Tensor = first(features[3])
        for level in others:
            out = level(functional.interpolate(out, scale_factor=2.0))
        logits: Tensor = self.score(out)
        return logits


def _fully_convolutional(inputs: int, classes: int) -> nn.Sequential:
    """Return the layers that stand for VGG's fully connected ones, down to scores."""
    return nn.Sequential(
        _convolution(inputs, HIDDEN, 7, padding=3),
        nn.ReLU(),
        nn.Dropout(0.5),
        _convolution(HIDDEN, HIDDEN, 1),
        nn.ReLU(),
        nn.Dropout(0.5),
        _score(HIDDEN, classes, 1),
    )


class FCN32Decoder(nn.Module):
    """Scores of the last feature, enlarged 32 times at once; 32 rows and columns more than the image has."""

    def __init__(self, encoder_widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.head = _fully_convolutional(encoder_widths[4], classes)
        self.enlarging = _enlarging(classes, 64, 32)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map features at H / 2 to H / 32 to logits (N, classes, H + 32, W + 32), to be stretched over the image."""
        logits: Tensor = self.enlarging(self.head(features[4]))
        return logits


class FCN8Decoder(nn.Module):
    """Scores of the last three features, added up, enlarged 8 times; 8 rows and columns more than the image has."""

    def __init__(self, encoder_widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.head = _fully_convolutional(encoder_widths[4], classes)
        self.score4, self.score3 = (_score(encoder_widths[level], classes, 1) for level in (3, 2))
        self.enlarging5, self.enlarging4 = (_enlarging(classes, 4, 2) for _ in range(2))
        self.enlarging3 = _enlarging(classes, 16, 8)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map features at H / 2 to H / 32 to logits (N, classes, H + 8, W + 8), to be stretched over the image."""
        _, _, third, fourth, fifth = features
        out = _cropped_sum(self.enlarging5(self.head(fifth)), self.score4(fourth))
        out = _cropped_sum(self.enlarging4(out), self.score3(third))
        logits: Tensor = self.enlarging3(out)
        return logits


def _cropped_sum(larger: Tensor, smaller: Tensor) -> Tensor:
    """Add two features, the larger one without its last rows and columns, which is where the library crops."""
    return larger[..., : smaller.shape[-2], : smaller.shape[-1]] + smaller


class PSPNetDecoder(nn.Module):
    """Averages of the last feature over 1, 4, 9 and 36 parts of the image beside the feature itself.

    The library asks for sides that are multiples of 192, where the parts do not overlap; here any side will do.
    """

    def __init__(self, encoder_widths: Sequence[int], classes: int) -> None:
        super().__init__()
        width = encoder_widths[4]
        self.pools = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(bins), *self._merging(width)) for bins in BINS)
        self.merging = nn.Sequential(*self._merging(width + len(BINS) * PYRAMID))
        self.score = _score(PYRAMID, classes, 3)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map features at H / 2 to H / 32 to logits (N, classes, H / 4, W / 4)."""
        last = features[4]
        pools = [_resized(pool(last), last.shape[-2:]) for pool in self.pools]
        scores = self.score(self.merging(torch.cat([last, *pools], dim=1)))
        return _resized(scores, [PYRAMID_SCALE * size for size in scores.shape[-2:]])

    @staticmethod
    def _merging(inputs: int) -> list[nn.Module]:
        return [_convolution(inputs, PYRAMID, 1, bias=False), _norm(PYRAMID), nn.ReLU()]


def _resized(feature: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(feature, list(size), mode="bilinear", align_corners=False)


class PaperNetwork(nn.Module):
    """An encoder and a decoder; images of one channel are repeated to the three that the paper's networks take."""

    def __init__(self, encoder: Encoder, decoder: nn.Module, repeat: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.repeat = repeat

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, channels, H, W), H and W multiples of 32, to logits (N, classes, h, w) on its own grid."""
        if self.repeat:
            image = image.expand(-1, PAPER_CHANNELS, -1, -1)
        logits: Tensor = self.decoder(self.encoder(image))
        return logits


_DECODERS: dict[str, tuple[Callable[[Sequence[int], int], nn.Module], int]] = {
    "paper-fcn8": (FCN8Decoder, 5),
    "paper-fcn32": (FCN32Decoder, 5),
    "paper-pspnet": (PSPNetDecoder, 5),
    "paper-unet": (UNetDecoder, 4),
    "paper-segnet": (SegNetDecoder, 4),
}
"""Architecture -> its decoder and how many features of the encoder it uses."""

ARCHITECTURES: tuple[str, ...] = tuple(_DECODERS)

_UNET_ENCODERS: dict[str, Callable[[int], Encoder]] = {"vgg16": VGG16Encoder, "resnet50": ResNet50Encoder}


def build(architecture: str, encoder: str, channels: int = 1, classes: int = 3) -> nn.Module:
    """Build one of the paper's networks with random weights.

    Args:
        architecture: one of ``ARCHITECTURES``.
        encoder: ``plain``; for ``paper-unet`` also ``vgg16`` or ``resnet50``.
        channels: of the image. One is repeated to three inside, as the paper does; other numbers widen or narrow the
            first convolution.
        classes: that it tells apart; the paper has three.

    Returns:
        A network from (N, channels, H, W), H and W multiples of 32, to logits (N, classes, h, w) on its own grid; its
        ``encoder`` and ``decoder`` are attributes.

    Raises:
        SettingsError: the paper has no such pair.
    """
    reason = refusal(architecture, encoder)
    if reason is not None:
        raise SettingsError(reason)
    decoder, levels = _DECODERS[architecture]
    inputs = PAPER_CHANNELS if channels == 1 else channels
    body = PlainEncoder(inputs, levels) if encoder == "plain" else _UNET_ENCODERS[encoder](inputs)
    return PaperNetwork(body, decoder(body.widths, classes), repeat=channels == 1)
