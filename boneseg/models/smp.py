"""A decoder (the architecture) on an encoder of segmentation-models-pytorch or timm; every architecture by its name."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.encoders import get_encoder_names
from torch import nn
from torch.overrides import TorchFunctionMode

from boneseg.encoder_compatibility import TIMM, VISION_TRANSFORMER
from boneseg.errors import SettingsError
from boneseg.models.decoders import DECODERS, OnEncoder

Network = TypeVar("Network", bound=nn.Module)

ARCHITECTURES: tuple[str, ...] = (*smp.MODEL_ARCHITECTURES_MAPPING, *DECODERS)
"""The library's own architectures, then those of ``decoders``."""


def build(architecture: str, encoder: str, channels: int = 1, classes: int = 3) -> nn.Module:
    """Build a network with random weights; nothing is downloaded.

    Args:
        architecture: one of ``ARCHITECTURES``.
        encoder: an encoder's name, or ``tu-`` and the name of a timm model.
        channels: of the image.
        classes: that it tells apart.

    Returns:
        A network from (N, channels, H, W) to logits (N, classes, H, W), with H and W multiples of its stride.

    Raises:
        SettingsError: the encoder is unknown, or the two do not fit together.
    """
    check_encoder(encoder)
    options: dict[str, object] = {
        "encoder_name": encoder,
        "encoder_weights": None,
        "in_channels": channels,
        "classes": classes,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if architecture in DECODERS:
                return OnEncoder(architecture, encoder, channels, classes, **_any_size(encoder))
            if architecture == "dpt":
                return _build_dpt(options)
            network: nn.Module = smp.create_model(architecture, **options, **_any_size(encoder))
            return network
    except (ValueError, RuntimeError, TypeError, AttributeError, IndexError, KeyError, AssertionError) as error:
        raise SettingsError(misfit(architecture, encoder, error)) from error


class _Hollow(TorchFunctionMode):
    FACTORIES = frozenset((torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.normal))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func in self.FACTORIES and given.get("device") is None:
            given["device"] = "meta"
        return func(*args, **given)


def hollow(build: Callable[[], Network]) -> Network:
    """Build a network of shapes without numbers, on torch's meta device: no memory, no random numbers, no time.

    Unlike ``with torch.device("meta")`` this leaves small tables such as ``linspace`` alone, whose numbers some
    encoders read while they are built.
    """
    with torch.random.fork_rng(devices=[]), _Hollow(), torch.no_grad():
        network = build()
    return network.to("meta")


def misfit(architecture: str, encoder: str, error: Exception) -> str:
    """Return the sentence for a pair that cannot work."""
    advice = f"pick a timm vision transformer such as {VISION_TRANSFORMER} for it" if architecture == "dpt" else ""
    first_line = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return (
        f"architecture {architecture} does not work with encoder {encoder} ({first_line}); "
        f"{advice or 'pick another of the two, for example encoder resnet18'}"
    )


def _any_size(encoder: str) -> dict[str, bool]:
    """Swin transformers take images of any size, their windows padded, only if told so."""
    swin = encoder.startswith((f"{TIMM}swin_", f"{TIMM}swinv2_")) and not encoder.startswith(f"{TIMM}swinv2_cr")
    return {"strict_img_size": False} if swin else {}


def _build_dpt(options: dict[str, object]) -> nn.Module:
    """DPT takes images of any size only if told so, and mixes in class tokens only where the encoder has them."""
    network: nn.Module = smp.create_model("dpt", dynamic_img_size=True, **options)
    if not network.get_submodule("encoder").has_prefix_tokens:
        network = smp.create_model("dpt", dynamic_img_size=True, decoder_readout="ignore", **options)
    return network


def check_encoder(name: str) -> None:
    """Check that an encoder of this name exists, in segmentation-models-pytorch or in timm.

    Raises:
        SettingsError: it does not; says which names look like it.
    """
    known = get_encoder_names()
    if name in known:
        return
    # A colon would make timm fetch the model from a hub.
    if name.startswith(TIMM) and ":" not in name and timm.is_model(name.removeprefix(TIMM)):
        return
    if name.startswith(TIMM):
        known = [TIMM + model for model in timm.list_models()]
    raise SettingsError(unknown("encoder", name, known))


def unknown(what: str, name: str, known: list[str] | tuple[str, ...]) -> str:
    """Return the sentence for a name that is not known, with those that look like it."""
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    if near:
        return f"model.{what} = {name!r}: unknown; did you mean {' or '.join(near)}?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"model.{what} = {name!r}: unknown; known are {shown}"
