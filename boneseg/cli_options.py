"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def with_settings(command: Command) -> Command:
    """Add the two options by which every stage takes the settings of a run."""
    file = click.option(
        "--config", "-c", "config", type=click.Path(path_type=Path), help="YAML file with the run's settings."
    )
    single = click.option(
        "--set", "-s", "overrides", multiple=True, metavar="KEY=VALUE", help="One setting, such as train.epochs=3."
    )
    return file(single(command))
