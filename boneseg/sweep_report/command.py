"""From a trial to the command that trains its settings in full."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from boneseg.errors import SettingsError
from boneseg.settings import identities
from boneseg.settings.loading import as_overrides, parse_settings
from boneseg.settings.schema import RunSettings
from boneseg.train.runs import RunRecord
from boneseg.tune.space import apply_best, overrides

OF_THE_SWEEP = ("epochs", "workers")
"""Training settings that a sweep sets for its trials: in full they are the run's own."""
OF_THIS_MACHINE = ("train.weights_mirror=",)
"""Settings that name a folder: they stay out of a report."""


def trial_settings(settings: RunSettings, choice: Mapping[str, Any], record: RunRecord | None) -> RunSettings:
    """Return the settings that train a trial in full.

    Args:
        settings: of the run around the sweep; they say how long and with how many workers to train.
        choice: what the trial chose, by dotted name.
        record: what the trial's run noted of itself, which holds whatever the settings are now; none = it is gone.

    Raises:
        SettingsError: the choice is not of settings that this version knows.
    """
    values = settings.model_dump(mode="json")
    if record is not None:
        values["model"] = record.model.model_dump(mode="json")
        noted = {**identities.TRAIN.later, **record.train}
        values["train"] |= {key: value for key, value in noted.items() if key not in OF_THE_SWEEP}
    return apply_best(parse_settings(values, source="settings of a trial"), overrides(choice))


def train_command(
    settings: RunSettings, choice: Mapping[str, Any], record: RunRecord | None, dataset_uri: str | None = None
) -> str:
    """Return a line for the shell that trains a trial's settings: its choice, then all else that is not a default.

    Args:
        settings: of the run around the sweep.
        choice: what the trial chose, by dotted name.
        record: what the trial's run noted of itself; none = it is gone.
        dataset_uri: of the data; none = the last one prepared.

    Raises:
        SettingsError: the choice is not of settings that this version knows.
    """
    wanted = trial_settings(settings, choice, record)
    chosen = [f"{name}={_written(value)}" for name, value in choice.items()]
    others = [_readable(override) for override in as_overrides(wanted) if _belongs(override, choice)]
    words = ["boneseg", "train", *(["--dataset", dataset_uri] if dataset_uri is not None else [])]
    for override in (*chosen, *others):
        words += ["--set", override]
    return shlex.join(words)


def _belongs(override: str, choice: Mapping[str, Any]) -> bool:
    """Say whether an override decides a training or where its data is, and is not a part of the choice."""
    parts = ("recipe=", "store.", "model.", "train.")
    known = override.partition("=")[0] in choice
    return override.startswith(parts) and not override.startswith(OF_THIS_MACHINE) and not known


def _readable(override: str) -> str:
    key, _, text = override.partition("=")
    return f"{key}={_written(json.loads(text))}"


def _written(value: Any) -> str:
    """Return a value as it is written behind ``--set``: plain where YAML reads it as the same."""
    if isinstance(value, str) and value and yaml.safe_load(value) == value:
        return value
    return json.dumps(value)


def readable_command(
    settings: RunSettings, choice: Mapping[str, Any], record: RunRecord | None, dataset_uri: str | None = None
) -> str:
    """Do what ``train_command`` does; empty where the trial's settings are not any that this version knows."""
    try:
        return train_command(settings, choice, record, dataset_uri)
    except SettingsError:
        return ""
