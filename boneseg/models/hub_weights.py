"""Encoders' weights as segmentation-models-pytorch and timm publish them on the Hugging Face hub."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from segmentation_models_pytorch.encoders import TimmUniversalEncoder, TimmViTEncoder, encoders, get_encoder
from torch import Tensor, nn

from boneseg.atomic_write import atomic_write
from boneseg.encoder_compatibility import TIMM
from boneseg.errors import ModelError
from boneseg.models import smp

FILE, SETTINGS_FILE = "model.safetensors", "config.json"
COLOURS = 3


# It logs every try of its own; what a user needs to know of them is in one sentence.
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


class AbsentError(Exception):
    """The hub does not give the file: it is not reached, or it has none."""


@dataclass(frozen=True)
class Place:
    """Where weights are published."""

    repository: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}" if self.revision else self.repository

    def fetch(self, file: str) -> Path:
        """Fetch a file of the repository into the hub's own cache.

        Raises:
            AbsentError: the hub does not give it.
        """
        try:
            return Path(hf_hub_download(self.repository, file, revision=self.revision))
        except (OSError, EntryNotFoundError, ValueError) as error:
            raise AbsentError(f"{file} of {self.repository} on the Hugging Face hub cannot be fetched") from error


def place(encoder: str) -> Place:
    """Return where an encoder's weights are published; the ImageNet ones where there are several.

    Raises:
        SettingsError: the encoder is unknown.
        ModelError: no weights are published for it.
    """
    if encoder != "plain":
        smp.check_encoder(encoder)
    if encoder.startswith(TIMM):
        repository = _timm_settings(encoder).get("hf_hub_id")
        if repository:
            return Place(repository, None)
    elif encoder in encoders and encoders[encoder]["pretrained_settings"]:
        offered = encoders[encoder]["pretrained_settings"]
        chosen = offered.get("imagenet") or next(iter(offered.values()))
        return Place(chosen["repo_id"], chosen["revision"])
    raise ModelError(
        f"encoder {encoder}: nobody publishes ImageNet weights for it; set model.weights to none, or model.encoder to "
        "another such as resnet18"
    )


def _timm_settings(encoder: str) -> dict[str, Any]:
    settings = timm.models.get_pretrained_cfg(encoder.removeprefix(TIMM))
    return vars(settings) if settings is not None else {}


def download(encoder: str, file: Path) -> tuple[str, Sequence[float], Sequence[float]]:
    """Fetch an encoder's weights as they are published.

    Args:
        encoder: its name.
        file: where they go; appears whole or not at all.

    Returns:
        Where they are from, and mean and standard deviation of red, green and blue in pictures of 0 to 1.

    Raises:
        AbsentError: the hub does not give them.
        ModelError: none are published.
    """
    published = place(encoder)
    if encoder.startswith(TIMM):
        settings = _timm_settings(encoder)
        white = 1.0
    else:
        settings = json.loads(published.fetch(SETTINGS_FILE).read_text())
        white = settings.get("input_range", [0, 1])[1]
    fetched = published.fetch(FILE)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as partial:
        shutil.copyfile(fetched, partial)
    mean, std = ([value / white for value in settings[key]] for key in ("mean", "std"))
    return str(published), mean, std


def read(encoder: nn.Module, name: str, file: Path) -> dict[str, Tensor]:
    """Read published weights under the names they have in an encoder; its first layer is for three colours.

    Args:
        encoder: of a network, as it was built.
        name: of the encoder.
        file: the weights as published.

    Raises:
        RuntimeError, SafetensorError, OSError, ValueError: the file is not of this encoder.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.startswith(TIMM):
            first, second = (_read_timm(encoder, name, file, seed) for seed in range(2))
            # timm lets some files leave gaps, which random numbers would fill.
            gap = next((key for key, value in first.items() if not torch.equal(value, second[key])), None)
            if gap is not None:
                raise ValueError(f"it has no {gap}")
            return first
        plain = get_encoder(name, in_channels=COLOURS, weights=None)
        plain.load_state_dict(safetensors.torch.load_file(file))
        values: dict[str, Tensor] = plain.state_dict()
        return values


def _read_timm(encoder: nn.Module, name: str, file: Path, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    # A file given so is read by timm itself, which knows how older files name their layers.
    overlay = {"file": str(file), "custom_load": False}
    loaded = timm_encoder(encoder, name, COLOURS, pretrained=True, pretrained_cfg_overlay=overlay)
    values: dict[str, Tensor] = loaded.state_dict()
    return values


def timm_encoder(encoder: nn.Module, name: str, channels: int, **options: Any) -> nn.Module:
    """Build a timm encoder like a network's, for another number of channels."""
    name = name.removeprefix(TIMM)
    built: nn.Module
    if isinstance(encoder, TimmViTEncoder):
        depth = len(encoder.output_strides)
        built = TimmViTEncoder(name, in_channels=channels, depth=depth, dynamic_img_size=True, **options)
    else:
        like: dict[str, Any] = {"depth": encoder._depth, "output_stride": encoder._output_stride}
        built = TimmUniversalEncoder(name, in_channels=channels, **like, **options)
    return built
