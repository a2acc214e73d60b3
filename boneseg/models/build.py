"""From the name of an architecture to a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from boneseg.errors import SettingsError
from boneseg.models import paper, smp
from boneseg.models.unused_parameters import unused_parameters
from boneseg.scheme import BONE_SCHEME
from boneseg.settings.schema import ModelSettings

Builder = Callable[[str, int, int], nn.Module]

BUILDERS: dict[str, Builder] = {
    **{name: partial(smp.build, name) for name in smp.ARCHITECTURES},
    **{name: partial(paper.build, name) for name in paper.ARCHITECTURES},
}
"""Architecture -> function from an encoder's name and the numbers of channels and classes to a network. A new network
gets its line here."""

STRIDE = 32
"""Rows and columns are padded to a multiple of this; every encoder's stride divides it, or is the encoder's own."""
SMALLEST = {"pan": 128}
"""Least rows and columns, for architectures whose pooling needs more than one stride."""


class AnySize(nn.Module):
    """A network that takes images of any height and width and answers at that size.

    Images are padded with air to the stride, logits cropped back. A network may answer on a coarser grid, as some of
    the paper's do: calling it gives its logits resized to the image, ``both_sizes`` also as they are.
    """

    def __init__(self, network: nn.Module, stride: int = STRIDE, smallest: int = STRIDE) -> None:
        super().__init__()
        self.network = network
        self.stride = stride
        self.smallest = smallest

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, channels, H, W), 0 = air, to logits (N, classes, H, W)."""
        return self._at_image(self._padded(image), image)

    def both_sizes(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (N, channels, H, W) to logits at their size, and on the network's own grid; h / H is its scale."""
        logits = self._padded(image)
        return self._at_image(logits, image), self._on_own_grid(logits, image)

    def _at_image(self, logits: Tensor, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        padded = (height + self._missing(height), width + self._missing(width))
        if tuple(logits.shape[-2:]) != padded:
            logits = functional.interpolate(logits, padded, mode="bilinear", align_corners=False)
        return logits[..., :height, :width] if padded != (height, width) else logits

    def _on_own_grid(self, logits: Tensor, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        rows = round(height * logits.shape[-2] / (height + self._missing(height)))
        columns = round(width * logits.shape[-1] / (width + self._missing(width)))
        return logits[..., :rows, :columns]

    def _padded(self, image: Tensor) -> Tensor:
        below, right = (self._missing(size) for size in image.shape[-2:])
        if below or right:
            image = functional.pad(image, (0, right, 0, below))
        logits: Tensor = self.network(image)
        return logits

    def _missing(self, size: int) -> int:
        target = max(size, self.smallest)
        return target + -target % self.stride - size


def build_model(settings: ModelSettings, classes: int = BONE_SCHEME.size) -> AnySize:
    """Build a network with random weights (torch's seed decides them); nothing is downloaded.

    Returns:
        A network from images (N, preprocess.slices, H, W), float, as ``dataset.preprocess`` makes them, to logits
        (N, classes, H, W) in the order of the label scheme; any H and W. Parameters that it never uses ask for no
        gradient: a group of processes would wait for it, and they are not what training adjusts.

    Raises:
        SettingsError: architecture or encoder is unknown, or the two do not fit together.
    """
    if settings.architecture not in BUILDERS:
        raise SettingsError(smp.unknown("architecture", settings.architecture, tuple(BUILDERS)))
    shape = (settings.preprocess.slices, classes)
    network = build_any_size(settings.architecture, settings.encoder, shape)
    unused = _unused(settings.architecture, settings.encoder, shape)
    for name, weight in network.named_parameters():
        weight.requires_grad_(name not in unused)
    return network


def build_any_size(architecture: str, encoder: str, shape: tuple[int, int]) -> AnySize:
    """Build a network for images of any size; which of its parameters are used is not looked at.

    Args:
        architecture: one of ``BUILDERS``.
        encoder: an encoder's name.
        shape: numbers of channels and classes.
    """
    network = BUILDERS[architecture](encoder, *shape)
    own = getattr(getattr(network, "encoder", None), "output_stride", STRIDE)
    stride = STRIDE if STRIDE % own == 0 else int(own)
    return AnySize(network, stride, max(stride, SMALLEST.get(architecture, 0)))


@lru_cache(maxsize=64)
def _unused(architecture: str, encoder: str, shape: tuple[int, int]) -> frozenset[str]:
    build = partial(build_any_size, architecture, encoder, shape)
    return unused_parameters(build, shape[0], SMALLEST.get(architecture, STRIDE))


def check_model(settings: ModelSettings, classes: int = BONE_SCHEME.size) -> None:
    """Build the network and run it once on a small image of odd size.

    Raises:
        SettingsError: architecture or encoder is unknown, or the two do not work together.
    """
    state = torch.random.get_rng_state()
    network = build_model(settings, classes).eval()
    torch.random.set_rng_state(state)
    try:
        with torch.inference_mode():
            shape = tuple(network(torch.zeros(1, settings.preprocess.slices, 72, 64)).shape)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise SettingsError(smp.misfit(settings.architecture, settings.encoder, error)) from error
    if shape != (1, classes, 72, 64):
        wrong = ValueError(f"its output has {shape[-2]} rows for 72")
        raise SettingsError(smp.misfit(settings.architecture, settings.encoder, wrong))


def check_batch_of_one(settings: ModelSettings, crop: int, setting: str = "batch_size") -> None:
    """Check that a network trains on one image at a time; one that pools an image to a single value does not.

    Args:
        settings: of the network.
        crop: side of a training image in pixels.
        setting: of training, that makes it one image at a time.

    Raises:
        SettingsError: it does not.
    """
    try:
        build_model(settings).train()(torch.zeros(1, settings.preprocess.slices, crop, crop))
    except ValueError as error:
        raise SettingsError(
            f"train.{setting} leads to single images: {settings.architecture} on {settings.encoder} normalises over a "
            f"batch and cannot train on one; set train.{setting} to 2 or more"
        ) from error


@dataclass(frozen=True)
class ParameterCount:
    """How many numbers a network holds, counted as Keras counts them."""

    total: int
    """All weights, and the running means and variances of batch normalisation."""
    trainable: int
    """Those that training adjusts."""


def count_parameters(network: nn.Module) -> ParameterCount:
    """Count the numbers a network holds; a weight that several layers share counts once."""
    weights = list(network.parameters())
    statistics = [value for name, value in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    return ParameterCount(
        total=sum(value.numel() for value in [*weights, *statistics]),
        trainable=sum(weight.numel() for weight in weights if weight.requires_grad),
    )
