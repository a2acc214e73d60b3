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

VISION_TRANSFORMERS = ("vit_", "deit", "swin")
"""timm models that dpt takes."""
DILATING = ("deeplabv3", "deeplabv3plus", "pan")
"""Architectures that want an encoder's last stages dilated instead of shrunk."""
UNDILATED = ("vgg", "densenet", "inception", "xception")
"""Encoders of segmentation-models-pytorch that shrink by pooling, which cannot be dilated."""

_TIMM_FLAT = (
    *("vit_", "deit", "beit", "cait_", "convit", "crossvit", "eva", "flexivit", "naflexvit", "samvit", "aimv2", "xcit"),
    *("mixer_", "gmixer", "gmlp", "resmlp", "convmixer", "levit", "pit_", "tnt_", "volo", "deepseek_vit", "gemma4_vit"),
    *("qwen3_vit", "efficientvim", "efficientvit_m", "csatv2", "sequencer2d", "shvit"),
)
"""timm models whose features are not at strides 2 or 4 to 32."""
_TIMM_FIXED = ("gcvit", "maxvit", "coat_", "hiera_", "nest_", "swinv2_cr")
"""timm models for pictures of one size."""
_TIMM_SHALLOW = ("efficientformer", "inception_v", "inception_resnet", "halonet")
"""timm models whose deeper features depend on the picture's size."""
_TIMM_UNDILATED = (
    *("cpubone", "davit", "densenet", "dla", "dpn", "edgenext", "efficientvit_b", "efficientvit_l", "fasternet"),
    *("fastvit", "focalnet", "ghostnet", "hgnet", "hieradet", "hrnet", "iformer", "lcnetv2", "lowformer", "mambaout"),
    *("caformer", "convformer", "poolformer", "mobilenetv5", "mvitv2", "nasnet", "nextvit", "pnasnet", "pvt_v2"),
    *(
        "rdnet",
        "repghost",
        "repvit",
        "selecsls",
        "legacy_se",
        "starnet",
        "swiftformer",
        "swin",
        "tiny_vit",
        "tresnet",
        "vgg",
    ),
)
"""timm models that cannot be dilated."""
_TIMM_UNEVEN = ("nasnet", "pnasnet")
"""timm models whose first features are a row and a column short."""
_JOINING = ("unetplusplus", "manet", "linknet")
"""Architectures that join features of neighbouring scales and want them to fit."""
_DEEP = tuple(name for name in PYRAMID_ARCHITECTURES if name != "pspnet")
"""Architectures that read features at strides beyond 8."""

_Rule = tuple[tuple[str, ...], tuple[str, ...], str]
_OWN_RULES: tuple[_Rule, ...] = (
    (("",), ("dpt",), "it takes timm's vision transformers only"),
    (UNDILATED, DILATING, "it wants an encoder that can be dilated, and this one shrinks by pooling"),
    (
        ("mit_b",),
        ("unetplusplus", "linknet"),
        "it wants features at half the image's size, and this encoder starts at a quarter",
    ),
)
"""Starts of encoders' names, architectures that do not work with them, and why: encoders that are not timm's."""
_TIMM_RULES: tuple[_Rule, ...] = (
    (_TIMM_FLAT, PYRAMID_ARCHITECTURES, "it wants features at strides 2 to 32, and this encoder has others"),
    (_TIMM_FIXED, PYRAMID_ARCHITECTURES, "this encoder takes pictures of one size only"),
    (_TIMM_SHALLOW, _DEEP, "this encoder's deeper features do not fit pictures of any size"),
    (_TIMM_UNDILATED, DILATING, "it wants an encoder that can be dilated, and this one cannot be"),
    (_TIMM_UNEVEN, _JOINING, "it joins features of neighbouring scales, and this encoder's do not fit"),
)


def refusal(architecture: str, encoder: str) -> str | None:
    """Say in one sentence why a pair cannot work and what can; none where nothing speaks against it.

    Names that are not known are none of its business: ``models.build`` says what they look like.
    """
    reason = _reason(architecture, encoder) if architecture in ARCHITECTURES else None
    if reason is None:
        return None
    offered = PAPER_ENCODERS.get(architecture, SHOWN)
    encoders = [name for name in offered if _reason(architecture, name) is None]
    architectures = [name for name in ARCHITECTURES if _reason(name, encoder) is None]
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
    name = encoder.removeprefix(TIMM)
    if architecture == "dpt" and name != encoder and name.startswith(VISION_TRANSFORMERS):
        return None
    rules = _OWN_RULES if name == encoder else (*_OWN_RULES[:1], *_TIMM_RULES)
    matching = (why for starts, refusing, why in rules if architecture in refusing and name.startswith(starts))
    return next(matching, None)
