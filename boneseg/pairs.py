"""Which architecture works with which encoder, told from the names alone: no network is built.

The rules were found by building every architecture on every encoder of segmentation-models-pytorch, and on models of
every family of timm. Families that no rule names are tried when training starts.
"""

from __future__ import annotations

TIMM = "tu-"

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

SHOWN = ("resnet18", "resnet50", "efficientnet-b0", "mobilenet_v2", "mit_b0", "plain", "tu-vit_tiny_patch16_224")
"""Encoders that a refusal offers, as far as they work."""

DILATING = ("deeplabv3", "deeplabv3plus", "pan")
"""Architectures that want an encoder's last stages dilated instead of shrunk."""
SHALLOW = ("pspnet",)
"""Architectures that read an encoder's features at strides 2 to 8 only."""
UNDILATED = ("vgg", "densenet", "inception", "xception")
"""Encoders of segmentation-models-pytorch that shrink by pooling, which cannot be dilated."""

_TIMM_FLAT = (
    *("vit_", "deit", "beit", "cait_", "convit", "crossvit", "eva", "flexivit", "naflexvit", "samvit", "aimv2", "xcit"),
    *("mixer_", "gmixer", "gmlp", "resmlp", "convmixer", "levit", "pit_", "tnt_", "volo", "deepseek_vit", "gemma4_vit"),
    *("qwen3_vit", "efficientvim", "efficientvit_m", "csatv2", "sequencer2d", "shvit"),
)
"""timm models whose features are not at strides 2 or 4 to 32."""
_TIMM_FIXED = ("gcvit", "maxvit", "coat_", "hiera_", "nest_")
"""timm models for pictures of one size."""
_TIMM_SHALLOW = ("efficientformer", "inception_v", "inception_resnet", "halonet")
"""timm models whose deeper features depend on the picture's size."""
_TIMM_SHALLOW = ("pspnet",)
"""Architectures that read an encoder's features at strides 2 to 8 only."""
UNDILATED = (
    *("cpubone", "davit", "densenet", "dla", "dpn", "edgenext", "efficientvit_b", "efficientvit_l", "fasternet"),
    *("fastvit", "focalnet", "ghostnet", "hgnet", "hieradet", "hrnet", "iformer", "lcnetv2", "lowformer", "mambaout"),
    *("caformer", "convformer", "poolformer", "mobilenetv5", "mvitv2", "nasnet", "nextvit", "pnasnet", "pvt_v2"),
    *("rdnet", "repghost", "repvit", "selecsls", "legacy_se", "starnet", "swiftformer", "swin", "vgg"),
)
"""timm models that cannot be dilated."""
_TIMM_UNEVEN = ("nasnet", "pnasnet")
"""timm models whose first features are a row and a column short."""
_JOINING = ("unetplusplus", "manet", "linknet")
"""Architectures that join features of neighbouring scales and want them to fit."""


def refusal(architecture: str, encoder: str) -> str | None:
    """Say in one sentence why a pair cannot work and what can; none where nothing speaks against it.

    Names that are not known are none of its business: ``models.build`` says what they look like.
    """
    reason = _reason(architecture, encoder) if architecture in ARCHITECTURES else None
    if reason is None:
        return None
    with_encoder = [name for name in ARCHITECTURES if _reason(name, encoder) is None]
    works_with = [name for name in PAPER_ENCODERS.get(architecture, SHOWN) if _reason(architecture, name) is None]
    kin = f"{encoder} works with {', '.join(with_encoder)}" if with_encoder else f"no architecture takes {encoder}"
    return (
        f"{architecture} does not work with encoder {encoder}: {reason}; {architecture} works with "
        f"{', '.join(works_with[:4])}{' and others' if len(works_with) > 1 and architecture not in PAPER_ENCODERS else ''}"
        f"; {kin}"
    )


def _reason(architecture: str, encoder: str) -> str | None:
    if architecture in PAPER_ENCODERS:
        own = PAPER_ENCODERS[architecture]
        return None if encoder in own else "the paper's networks have encoders of their own"
    if encoder == "plain":
        return "plain is the encoder of the paper's networks"
    if encoder.startswith(TIMM):
        return _timm_reason(architecture, encoder.removeprefix(TIMM))
    if architecture == "dpt":
        return "it takes timm's plain vision transformers only"
    if architecture in DILATING and encoder.startswith(UNDILATED):
        return "it wants an encoder that can be dilated, and this one shrinks by pooling"
    if architecture in ("unetplusplus", "linknet") and encoder.startswith("mit_b"):
        return "it wants features at half the image's size, and this encoder starts at a quarter"
    return None


def _timm_reason(architecture: str, name: str) -> str | None:
    if architecture == "dpt":
        takes = name.startswith(("vit_", "deit"))
        return None if takes else "it takes timm's plain vision transformers only"
    if name.startswith(_TIMM_FLAT):
        return "it wants features at strides 2 to 32, and this encoder has them at one scale or on another grid"
    if name.startswith(_TIMM_FIXED):
        return "this encoder takes pictures of one size only"
    if name.startswith(_TIMM_SHALLOW) and architecture not in SHALLOW:
        return "this encoder's deeper features do not fit pictures of any size"
    if architecture in DILATING and name.startswith(_TIMM_UNDILATED):
        return "it wants an encoder that can be dilated, and this one cannot be"
    if architecture in _JOINING and name.startswith(_TIMM_UNEVEN):
        return "it joins features of neighbouring scales, and this encoder's do not fit"
    return None
