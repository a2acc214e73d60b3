"""An encoder's first convolution, learned on normalised pictures of three colours, fitted to slices of 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn

from boneseg.encoder_compatibility import TIMM
from boneseg.errors import ModelError
from boneseg.models import hub_weights, smp


def names(encoder: nn.Module, name: str) -> list[str]:
    """Return the names of the weights that depend on the number of channels: of one layer, or of parallel ones.

    Args:
        encoder: of a network.
        name: of the encoder.
    """

    def build(channels: int) -> nn.Module:
        if name.startswith(TIMM):
            return hub_weights.timm_encoder(encoder, name, channels, pretrained=False)
        alone: nn.Module = get_encoder(name, in_channels=channels, weights=None)
        return alone

    three, four = (smp.hollow(lambda n=n: build(n)).state_dict() for n in (3, 4))  # type: ignore[misc]
    return [key for key, value in three.items() if value.shape != four[key].shape]


def fit_kernel(kernel: Tensor, channels: int, std: Sequence[float]) -> Tensor:
    """Change a kernel for three colours into one for slices.

    Channel i takes the kernel of colour i mod 3, over the standard deviation and over the number of channels that share
    the colour; one channel takes the sum of all colours.

    Args:
        kernel: (out, 3, rows, columns).
        channels: of the image: 1, or 3 and more.
        std: of red, green and blue.

    Returns:
        (out, channels, rows, columns).
    """
    scaled = kernel / kernel.new_tensor(std)[:, None, None]
    if channels == 1:
        return scaled.sum(1, keepdim=True)
    colours = torch.arange(channels) % 3
    shared = torch.bincount(colours, minlength=3)[colours]
    return scaled[:, colours] / shared[:, None, None]


def offset(kernel: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return what normalisation takes from each output (out,) of a kernel for three colours: sum of W_c m_c / s_c."""
    return (kernel.sum((2, 3)) * (kernel.new_tensor(mean) / kernel.new_tensor(std))).sum(1)


def norm_behind(encoder: nn.Module, layer: str) -> str | None:
    """Return the name of the batch normalisation that follows a layer; none where another layer comes first."""
    numbered = [pair for pair in encoder.named_modules() if any(True for _ in pair[1].parameters(recurse=False))]
    for (name, _), (behind, module) in pairwise(numbered):
        if name == layer:
            return behind if isinstance(module, nn.BatchNorm2d) else None
    return None


def fit(encoder: nn.Module, name: str, weights: dict[str, Tensor], mean: Sequence[float], std: Sequence[float]) -> None:
    """Fit the first layer among published weights to an encoder for slices of 0 to 1, normalisation included.

    Args:
        encoder: that will take the weights; tells the number of channels.
        name: of the encoder.
        weights: as ``hub_weights.read`` gives them; changed in place.
        mean: of red, green and blue in pictures of 0 to 1.
        std: likewise.

    Raises:
        ModelError: the first layer is no convolution over colours.
    """
    target = encoder.state_dict()
    for key in names(encoder, name):
        kernel = weights[key]
        if kernel.ndim != 4 or kernel.shape[1] != hub_weights.COLOURS:
            raise ModelError(
                f"encoder {name}: its first layer is no convolution over three colours, so ImageNet weights cannot be "
                "fitted to slices; set model.weights to none, or model.encoder to another such as resnet18"
            )
        layer = key.removesuffix(".weight")
        taken = offset(kernel, mean, std)
        weights[key] = fit_kernel(kernel, target[key].shape[1], std)
        norm = norm_behind(encoder, layer)
        if f"{layer}.bias" in target:
            weights[f"{layer}.bias"] = weights.get(f"{layer}.bias", torch.zeros_like(taken)) - taken
        elif norm is not None:
            weights[f"{norm}.running_mean"] = weights[f"{norm}.running_mean"] + taken
