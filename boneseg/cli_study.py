"""The command line of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from boneseg.cli_options import with_settings


@click.group(epilog="Example: boneseg study paper --data series/")
def study() -> None:
    """Train and compare many networks on one folder of CT series."""


@study.command("paper", epilog="Example: boneseg study paper --data series/ --epochs 2 --steps 30 --size 128")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of CT series with labels.")
@click.option("--networks", help="As architecture/encoder, with commas between; none = the paper's seven.")
@click.option("--epochs", type=click.IntRange(1), help="Of every network; none = as in the paper, 10 and 30.")
@click.option("--steps", type=click.IntRange(1), help="An epoch; none = as in the paper, 512.")
@click.option("--size", type=click.IntRange(32, 4096), help="Rows and columns of an image; none = 512.")
@click.option("--recipe", type=click.Choice(["paper", "paper-tf-keras", "boneseg"]), help="None = paper.")
@click.option(
    "--weights",
    type=click.Choice(["imagenet", "none"]),
    help="What encoders such as VGG16 and ResNet50 start from; none given = model.weights, else imagenet.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("study"), show_default=True)
@click.option("--parallel", type=click.IntRange(1), default=1, show_default=True, help="Networks at the same time.")
@click.option("--note", default="", help="What the report says of the data: how many are real, who drew the labels.")
@with_settings
def study_paper(config: Path | None, overrides: tuple[str, ...], networks: str | None, **given: Any) -> None:
    """Do the paper's study on CT series: its networks, tables and figures, ours beside the printed values."""
    from boneseg.study.plan import Budget
    from boneseg.study.study import Options, run_study

    names = tuple(name.strip() for name in (networks or "").split(",") if name.strip())
    budget = Budget(given.pop("epochs"), given.pop("steps"), given.pop("size"))
    run_study(Options(networks=names, budget=budget, config=config, overrides=overrides, **given), click.echo)
