"""Which architecture works with which encoder of segmentation-models-pytorch, told from the names alone.

The rules were found by building every architecture on every one of its encoders. Of timm's thousand models, whose
names and features change from version to version, ``settings.probed_pairs`` asks the libraries themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

TIMM = "tu-"
"""Prefix of an encoder that timm builds."""

PAPER_ENCODERS: dict[str, tuple[str, ...]] = {
    "paper-fcn8": ("plain",),
    "paper-fcn32": ("plain",),
    "paper-pspnet": ("plain",),
    "paper-unet": ("plain", "vgg16", "resnet50"),
    "paper-segnet": ("plain",),
}
"""The paper's networks and the encoders it trained them on."""

PYRAMID_ARCHITECTURES = (
    *("unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet"),
    *("segformer", "fcn8", "fcn32", "segnet"),
)
"""Architectures that read an encoder's features at several scales."""
ARCHITECTURES = (*PYRAMID_ARCHITECTURES, "dpt", *PAPER_ENCODERS)

SHOWN = ("resnet18", "resnet50", "efficientnet-b0", "mobilenet_v2", "mit_b0", "plain")
"""Encoders that a refusal offers, as far as they work."""
VISION_TRANSFORMER = "tu-vit_tiny_patch16_224"
"""Encoder of dpt, which takes timm's vision transformers only, where none is named."""
DILATING = ("deeplabv3", "deeplabv3plus", "pan")
"""Architectures that want an encoder's last stages dilated instead of shrunk."""
UNDILATED = ("vgg", "densenet", "inception", "xception")
"""Encoders of segmentation-models-pytorch that shrink by pooling, which cannot be dilated."""

_Rule = tuple[tuple[str, ...], tuple[str, ...], str]
_RULES: tuple[_Rule, ...] = (
    (("",), ("dpt",), "it takes timm's vision transformers only"),
    (UNDILATED, DILATING, "it wants an encoder that can be dilated, and this one shrinks by pooling"),
    (
        ("mit_b",),
        ("unetplusplus", "linknet"),
        "it wants features at half the image's size, and this encoder starts at a quarter",
    ),
)
"""Starts of encoders' names, architectures that do not work with them, and why."""


def refusal(architecture: str, encoder: str) -> str | None:
    """Say in one sentence why a pair cannot work and what can; none where nothing speaks against it.

    Names that are not known are none of its business: ``models.build`` says what they look like. Nor are those of timm.
    """
    reason = _reason(architecture, encoder) if architecture in ARCHITECTURES else None
    if reason is None:
        return None
    return sentence(architecture, encoder, reason, [name for name in ARCHITECTURES if _reason(name, encoder) is None])


def sentence(architecture: str, encoder: str, reason: str, architectures: Sequence[str]) -> str:
    """Return the sentence that refuses a pair.

    Args:
        architecture: the one that does not work.
        encoder: with this one.
        reason: why.
        architectures: those that work with the encoder.
    """
    offered = (VISION_TRANSFORMER,) if architecture == "dpt" else PAPER_ENCODERS.get(architecture, SHOWN)
    encoders = [name for name in offered if _reason(architecture, name) is None]
    more = ", ..." if offered is SHOWN else ""
    return (
        f"{architecture} does not work with encoder {encoder}: {reason}; {architecture} works with "
        f"{', '.join(encoders[:4])}{more}; {encoder} works with {', '.join(architectures) or 'no architecture'}"
    )


def _reason(architecture: str, encoder: str) -> str | None:
    if architecture in PAPER_ENCODERS:
        works = encoder in PAPER_ENCODERS[architecture]
        return None if works else "the paper's networks have encoders of their own"
    if encoder == "plain":
        return "plain is the encoder of the paper's networks"
    if encoder.startswith(TIMM):
        return None
    matching = (why for starts, refusing, why in _RULES if architecture in refusing and encoder.startswith(starts))
    return next(matching, None)
