"""The command ``boneseg schemes``."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from boneseg.cli_options import with_settings

if TYPE_CHECKING:
    from boneseg.scheme import LabelScheme

_SHOWN = 20


@click.command(epilog="Example: boneseg schemes, or boneseg schemes series/ --set scheme=mine.yaml")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@with_settings
def schemes(folder: Path | None, config: Path | None, overrides: tuple[str, ...]) -> None:
    """List the label schemes, or say which labels of a FOLDER each of them understands."""
    from boneseg.ingest.understood import labels_of, understood
    from boneseg.scheme import BUILT_IN
    from boneseg.settings.loading import load_settings

    own = load_settings(config, overrides).scheme
    labels = labels_of(folder, own) if folder is not None else []
    for scheme in {**BUILT_IN, own.name: own}.values():
        if folder is None:
            click.echo(f"{scheme.name}: {scheme.size} classes: {_listed(scheme)}")
            continue
        found = understood(labels, scheme)
        click.echo(f"{scheme.name}: understands the labels of {found.whole} of {found.labels} series")
        for name, count in sorted(found.classes.items(), key=lambda item: (-item[1], item[0])):
            click.echo(f"  {name}: {count} series")
        for source, what in list(found.unknown.items())[:_SHOWN]:
            click.echo(f"  not understood: {source}: {what}")


def _listed(scheme: LabelScheme) -> str:
    """Return the names of classes; of a group that follow each other the first and the last."""
    texts = []
    for group, members in groupby(scheme.classes, key=lambda item: item.group):
        names = [item.name for item in members]
        fold = group is not None and len(names) > 3
        texts.append(f"{group} ({len(names)}: {names[0]} to {names[-1]})" if fold else ", ".join(names))
    return ", ".join(texts)
