"""What all trials of a sweep share, and the settings of one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from boneseg.dataset.manifest import Dataset
from boneseg.settings.schema import RunSettings
from boneseg.storage.workspace import Workspace
from boneseg.tune.space import apply_best, overrides


@dataclass(frozen=True)
class Sweep:
    """What all trials share. Crosses process borders."""

    name: str
    workspace: Workspace
    dataset: Dataset
    settings: RunSettings


def trial_settings(settings: RunSettings, choice: dict[str, Any]) -> RunSettings:
    """Return a trial's settings: one process, the sweep's epochs, and its own choice."""
    chosen = apply_best(settings, overrides(choice))
    train = chosen.train.model_copy(update={"epochs": settings.tune.epochs, "workers": 1, "backend": "local"})
    return chosen.model_copy(update={"train": train})
