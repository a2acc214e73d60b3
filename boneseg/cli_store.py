"""The commands below ``boneseg store``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from boneseg.cli_options import with_settings


@click.group(epilog="Example: boneseg store start")
def store() -> None:
    """Start, stop or look at the embedded object store (SeaweedFS, on 127.0.0.1 as a rule); remove a record."""


@store.command("start", epilog="Example: boneseg store start, or boneseg store start --listen 10.0.0.5")
@click.option("--listen", metavar="ADDRESS", help="Of this machine, for the nodes of a Ray cluster; none = 127.0.0.1.")
def store_start(listen: str | None) -> None:
    """Start the embedded store; nothing happens if it runs already."""
    from boneseg.settings.loading import work_folder
    from boneseg.settings.schema import StoreSettings
    from boneseg.storage import embedded

    status = embedded.start(work_folder(), listen)
    embedded.open_store(StoreSettings(), work_folder()).ensure_bucket()
    click.echo(f"store at {status.endpoint} (PID {status.pid}), data in {status.folder}")


@store.command("stop", epilog="Example: boneseg store stop")
def store_stop() -> None:
    """Stop the embedded store; its data stays."""
    from boneseg.settings.loading import work_folder
    from boneseg.storage import embedded

    click.echo("store stopped" if embedded.stop(work_folder()) else "no store was running")


@store.command("status", epilog="Example: boneseg store status")
def store_status() -> None:
    """Say whether the embedded store runs; exit code 1 if not."""
    from boneseg.settings.loading import work_folder
    from boneseg.storage import embedded

    status = embedded.status(work_folder())
    if status is None:
        click.echo("no store is running; start it with 'boneseg store start'")
        sys.exit(1)
    click.echo(f"store at {status.endpoint} (PID {status.pid}), data in {status.folder}")


@store.command("remove", epilog="Example: boneseg store remove state/splits.json")
@click.argument("key")
@with_settings
def store_remove(key: str, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Remove one of boneseg's own records, by KEY or URI, from the bucket; series and labels are never touched."""
    from boneseg.errors import StoreError
    from boneseg.settings.loading import load_settings
    from boneseg.storage.open import open_workspace
    from boneseg.storage.private import is_own

    workspace = open_workspace(load_settings(config, overrides))
    bucket = workspace.store
    key = bucket.key(key) if key.startswith("s3://") else key
    if not is_own(key, workspace.private):
        raise StoreError(
            f"{bucket.uri(key)} is none of boneseg's own records, and nothing else is removed here; use a client of "
            "the object store"
        )
    if not bucket.exists(key):
        raise StoreError(f"{bucket.uri(key)} is not there; give its key as the message names it")
    bucket.delete(key)
    click.echo(f"removed {bucket.uri(key)}")
