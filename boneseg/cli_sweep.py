"""The command ``boneseg sweep-report``."""

from __future__ import annotations

from pathlib import Path

import click

from boneseg.cli_options import with_settings


@click.command("sweep-report", epilog="Example: boneseg sweep-report --best 3 --out sweep/")
@click.argument("sweep", required=False)
@click.option("--best", type=click.IntRange(0), default=0, help="Measure so many of the best, also as an ensemble.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for a copy of the report.")
@with_settings
def sweep_report(
    sweep: str | None, best: int, out: Path | None, config: Path | None, overrides: tuple[str, ...]
) -> None:
    """Write the report of a SWEEP (none = the last one): leaderboard, figures, and a command for every trial.

    The best are measured on the test split, each by itself and all together.
    """
    from boneseg.settings.loading import load_settings
    from boneseg.stages import Stages
    from boneseg.storage.open import open_workspace

    settings = load_settings(config, overrides)
    result = Stages(open_workspace(settings), settings).sweep_report(sweep, best, out)
    for name, value in result.scalars.items():
        click.echo(f"{name.replace('_', ' ')}: {value:.4g}")
    click.echo(f"leaderboard {result.leaderboard_uri}\nreport {result.report_uri}")
    if out is not None:
        click.echo(f"copy in {out}")
