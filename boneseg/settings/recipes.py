"""Named sets of settings: a run starts from one of them, and what the user gives stands above it."""

from __future__ import annotations

from typing import Any

PAPER = "Krawczyk and Starzynski, Bull. Pol. Acad. Sci. Tech. Sci. 69(3) 2021, e136751"
"""Where the recipe ``paper`` comes from."""

_PAPER: dict[str, Any] = {
    # The paper feeds whole slices of one size; its library's default optimizer is Adadelta.
    "model": {"architecture": "paper-unet", "encoder": "plain", "preprocess": {"size": 512}},
    "train": {
        "epochs": 10,
        "steps_per_epoch": 512,
        "batch_size": 2,
        "crop": 512,
        "optimizer": "adadelta",
        "schedule": "constant",
        "learning_rate": 1.0,
        "weight_decay": 0.0,
        "gradient_norm": None,
        "loss": "cross_entropy",
        "augmentation": "paper",
        "bone_share": 0.0,
    },
}

RECIPES: dict[str, dict[str, Any]] = {
    "boneseg": {},
    "paper": _PAPER,
    "paper-tf-keras": {**_PAPER, "train": {**_PAPER["train"], "learning_rate": 1e-3}},
}
"""Recipe -> settings by section. ``boneseg`` is what the settings' own defaults say: of what was measured, the one that
held best on patients and scanners it never saw (``docs/recipe.md``). ``paper`` uses Adadelta's default
rate in Keras 2 and torch, 1.0; ``paper-tf-keras`` the one in tf.keras, 0.001. The paper does not say which it was."""


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return both mappings as one, section by section; where both have a value, ``above`` wins."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result
