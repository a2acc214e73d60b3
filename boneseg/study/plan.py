"""Which networks a study trains, and with which settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneseg.errors import SettingsError
from boneseg.settings.loading import load_settings, parse_settings
from boneseg.settings.recipes import RECIPES, merged
from boneseg.settings.schema import RunSettings
from boneseg.study import paper_numbers as printed

DEFAULT_RECIPE, DEFAULT_WEIGHTS = "paper", "imagenet"
LEAST_SIZE = 32
"""Images must be a multiple of this, since training takes them whole."""
U_NETS = ("paper-unet", "unet")


@dataclass(frozen=True)
class Budget:
    """How much is trained; none = as much as in the paper."""

    epochs: int | None = None
    """For all networks alike; the paper trains those of Table 1 for 10 and those of Table 3 for 30."""
    steps: int | None = None
    """An epoch."""
    size: int | None = None
    """Rows and columns of an image."""


@dataclass(frozen=True)
class Trial:
    """One network to train. Crosses process borders."""

    key: str
    """Names the trial within the study."""
    network: str
    """Architecture/encoder."""
    title: str
    tables: tuple[int, ...]
    """Tables of the paper in which the network stands: 1 compares architectures, 3 the encoders of the U-Net."""
    settings: RunSettings


@dataclass(frozen=True)
class Plan:
    """All trials of a study."""

    recipe: str
    trials: tuple[Trial, ...]
    settings: RunSettings
    """What the trials share."""


def make_plan(
    networks: Sequence[str],
    budget: Budget,
    recipe: str | None = None,
    weights: str | None = None,
    config: Path | None = None,
    overrides: tuple[str, ...] = (),
) -> Plan:
    """Decide the settings of every network: the recipe, above it the user's settings, above them the budget.

    Args:
        networks: ``architecture/encoder`` each; none = the seven of the paper.
        budget: epochs, steps and size.
        recipe: see ``recipes.RECIPES``; none = the user's settings say, else ``paper``.
        weights: ``imagenet`` or ``none``: what encoders other than ``plain`` start from; None = the user's
            ``model.weights``, else ``imagenet``.
        config: YAML file with settings.
        overrides: settings as ``section.key=value``.

    Raises:
        SettingsError: a network, the size or a setting does not work.
    """
    if budget.size is not None and budget.size % LEAST_SIZE:
        near = max(LEAST_SIZE, round(budget.size / LEAST_SIZE) * LEAST_SIZE)
        raise SettingsError(f"--size {budget.size}: must be a multiple of {LEAST_SIZE}; take {near}")
    # The recipe's own values must not pass for the user's.
    given = load_settings(config, (*overrides, "recipe=boneseg")).model_dump(exclude_unset=True)
    _check_given(given)
    recipe = recipe or _recipe_of(config, overrides)
    weights = weights or given.get("model", {}).get("weights", DEFAULT_WEIGHTS)
    values = merged({"train": {"steps_per_epoch": printed.STEPS}}, {**given, "recipe": recipe})
    values = merged(values, _of_budget(budget, recipe, given))
    epochs = budget.epochs or given.get("train", {}).get("epochs")
    trials: list[Trial] = []
    for network in dict.fromkeys(networks or tuple(printed.TITLES)):
        trials += _trials(network, values, epochs, weights)
    return Plan(recipe, tuple(trials), parse_settings(values, "study"))


def _check_given(given: dict[str, Any]) -> None:
    """Refuse settings that a study would pass over: it decides them by itself."""
    model, train = given.get("model", {}), given.get("train", {})
    for key in ("architecture", "encoder"):
        if key in model:
            raise SettingsError(f"model.{key} = {model[key]}: a study names its networks with --networks; leave it out")
    if train.get("workers", 1) != 1 or train.get("backend") == "ray":
        raise SettingsError(
            "train.workers and train.backend: a study trains each network in one process; leave them out, and set "
            "--parallel for several networks at the same time"
        )


def _recipe_of(config: Path | None, overrides: tuple[str, ...]) -> str:
    settings = load_settings(config, overrides)
    return settings.recipe if "recipe" in settings.model_fields_set else DEFAULT_RECIPE


def _of_budget(budget: Budget, recipe: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return what the budget sets. A recipe that shows whole images takes them at one size, for crops alike."""
    values: dict[str, Any] = {"train": {"workers": 1, "backend": "local"}}
    if budget.steps is not None:
        values["train"]["steps_per_epoch"] = budget.steps
    size = budget.size
    if size is None and RECIPES[recipe]:
        size = given.get("model", {}).get("preprocess", {}).get("size")
    if size is not None:
        values["train"]["crop"] = given.get("train", {}).get("crop", size)
        values["model"] = {"preprocess": {"size": size, "spacing_mm": None}}
    return values


def _trials(network: str, values: dict[str, Any], epochs: int | None, weights: str) -> list[Trial]:
    """Return a network's trials: one for each number of epochs that the tables want of it."""
    architecture, _, encoder = network.partition("/")
    if not architecture or not encoder:
        raise SettingsError(f"--networks {network!r}: must look like architecture/encoder, such as unet/resnet18")
    wanted: dict[int, list[int]] = {}
    for table in _tables(network, architecture, encoder):
        wanted.setdefault(epochs or printed.EPOCHS[table], []).append(table)
    title, trials = printed.TITLES.get(network, network), []
    for count, tables in wanted.items():
        model = {"architecture": architecture, "encoder": encoder, "weights": "none" if encoder == "plain" else weights}
        settings = parse_settings(merged(values, {"model": model, "train": {"epochs": count}}), f"network {network}")
        name = title if len(wanted) == 1 else f"{title}, {count} epochs"
        trials.append(Trial(f"{network} ({count} epochs)", network, name, tuple(tables), settings))
    return trials


def _tables(network: str, architecture: str, encoder: str) -> tuple[int, ...]:
    if network == printed.UNET:
        return 1, 3
    return (3,) if architecture in U_NETS and encoder != "plain" else (1,)
