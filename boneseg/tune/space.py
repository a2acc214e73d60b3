"""What a sweep chooses among, and how a choice becomes settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boneseg.settings.loading import parse_settings
from boneseg.settings.schema import RunSettings

ARCHITECTURE, ENCODER, LEARNING_RATE, LOSS = "architecture", "encoder", "learning_rate", "loss"


def overrides(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, by section, that a choice stands for."""
    # Four digits: a rate that went through a table or a message is the same rate.
    return {
        "model": {ARCHITECTURE: choice[ARCHITECTURE], ENCODER: choice[ENCODER]},
        "train": {LEARNING_RATE: float(f"{choice[LEARNING_RATE]:.4g}"), LOSS: choice[LOSS]},
    }


def apply_best(settings: RunSettings, best: Mapping[str, Any]) -> RunSettings:
    """Put what a sweep found into a run's settings.

    Args:
        settings: of the run.
        best: ``TuneResult.best``.

    Raises:
        SettingsError: ``best`` is not from a sweep.
    """
    values = settings.model_dump(mode="json")
    for section, changes in best.items():
        values[section] = {**values.get(section, {}), **changes}
    return parse_settings(values, source="best settings of the sweep")
