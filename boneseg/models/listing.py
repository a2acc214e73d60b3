"""What ``boneseg models`` shows: architectures and encoders with their size and their cost."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import timm
import torch
from segmentation_models_pytorch.encoders import get_encoder_names
from torch.utils.flop_counter import FlopCounterMode

from boneseg.encoder_compatibility import PAPER_ENCODERS, TIMM, VISION_TRANSFORMER, refusal
from boneseg.errors import SettingsError
from boneseg.models import smp
from boneseg.models.build import BUILDERS, build_model, count_parameters
from boneseg.settings.schema import ModelSettings, PreprocessSettings


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        architecture: its name.
        encoder: its name.
        parameters: how many numbers training adjusts; none where the two do not work together.
        multiply_adds: of convolutions and products for one image; none likewise.
        refused: the sentence that says why they do not work together; none where they do.
    """

    architecture: str
    encoder: str
    parameters: int | None = None
    multiply_adds: int | None = None
    refused: str | None = None


def measure(architecture: str, encoder: str, size: int = 512, slices: int = 1) -> Row:
    """Count a network's parameters and the multiply-adds of one image; nothing is computed, so it takes a moment.

    Args:
        architecture: one of ``BUILDERS``.
        encoder: an encoder's name.
        size: rows and columns of the image.
        slices: channels of the image, as in ``PreprocessSettings.slices``.

    Raises:
        SettingsError: one of the names is unknown.
    """
    refused = refusal(architecture, encoder)
    if refused is None:
        preprocess = PreprocessSettings.model_validate({"slices": slices})
        settings = ModelSettings(architecture=architecture, encoder=encoder, preprocess=preprocess)
        if encoder not in PAPER_ENCODERS.get(architecture, ()):
            smp.check_encoder(encoder)
        try:
            network = smp.hollow(lambda: build_model(settings)).eval()
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(torch.empty(1, slices, size, size, device="meta"))
            return Row(architecture, encoder, count_parameters(network).trainable, counter.get_total_flops() // 2)
        except SettingsError as error:
            if architecture not in BUILDERS:
                raise
            refused = str(error)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            refused = smp.misfit(architecture, encoder, error)
    return Row(architecture, encoder, refused=refused)


def chosen(
    architecture: str | None = None, encoder: str | None = None, pattern: str | None = None
) -> list[tuple[str, str]]:
    """Return the architectures and encoders to show.

    Args:
        architecture: the one to show with every encoder; none = all.
        encoder: the one for all architectures; none = resnet18, or what an architecture wants instead.
        pattern: of timm models' names, such as ``convnext*``; none = the encoders that are not timm's.

    Raises:
        SettingsError: the architecture is unknown, or timm has no such model.
    """
    if architecture is not None and architecture not in BUILDERS:
        raise SettingsError(smp.unknown("architecture", architecture, tuple(BUILDERS)))
    if encoder is not None:
        return [(name, encoder) for name in ([architecture] if architecture else BUILDERS)]
    if architecture is None:
        special = {"dpt": VISION_TRANSFORMER, **{name: own[0] for name, own in PAPER_ENCODERS.items()}}
        return [(name, special.get(name, ModelSettings().encoder)) for name in BUILDERS]
    if architecture in PAPER_ENCODERS:
        return [(architecture, name) for name in PAPER_ENCODERS[architecture]]
    names = get_encoder_names()
    if pattern is not None or architecture == "dpt":
        pattern = (pattern or "vit_*tiny*").removeprefix(TIMM)
        names = [TIMM + name for name in timm.list_models() if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            raise SettingsError(f"timm has no model {pattern!r}; give a pattern such as 'convnext*' or '*_tiny*'")
    return [(architecture, name) for name in names]


def hint(architecture: str | None, encoder: str | None, pattern: str | None) -> str:
    """Return the line below a table: what else can be shown."""
    if architecture is None:
        return "all encoders of one architecture: boneseg models --architecture unet"
    if architecture in PAPER_ENCODERS or encoder is not None or pattern is not None:
        return "all architectures: boneseg models"
    count = len(timm.list_models())
    return f"and {count} models of timm as tu-NAME: boneseg models --architecture {architecture} --timm 'convnext*'"


def lines(pairs: Iterable[tuple[str, str]], size: int, slices: int) -> Iterator[str]:
    """Yield the table line by line, each as soon as its network is measured; refused pairs at the end.

    Args:
        pairs: architectures and encoders.
        size: rows and columns of the image.
        slices: channels of the image.
    """
    channels = f"{slices} slices as channels" if slices > 1 else "1 slice"
    yield f"one image of {size} x {size} pixels, {channels}; cost in billions of multiply-adds (GMAC)"
    yield f"{'architecture':<16}{'encoder':<32}{'parameters':>14}{'GMAC':>10}"
    refused = []
    for architecture, encoder in pairs:
        row = measure(architecture, encoder, size, slices)
        if row.parameters is None or row.multiply_adds is None:
            refused.append(row)
        else:
            yield f"{architecture:<16}{encoder:<32}{row.parameters:>14,}{row.multiply_adds / 1e9:>10.2f}"
    yield from _refusals(refused)


def _refusals(rows: list[Row]) -> Iterator[str]:
    of_one_architecture = len({row.architecture for row in rows}) == 1
    if of_one_architecture and len(rows) > 1:
        yield f"{rows[0].architecture} does not work with: {', '.join(row.encoder for row in rows)}"
        return
    for row in rows:
        yield f"refused: {row.refused}"
