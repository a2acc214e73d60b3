"""The way of a command onto a Ray cluster, and the commands below ``boneseg jobs``."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from boneseg.cli_options import with_settings
from boneseg.errors import SettingsError
from boneseg.ray_address import VARIABLE, Way, way_of

if TYPE_CHECKING:
    from boneseg.ray_cluster.job_server import JobServer
    from boneseg.settings.schema import RunSettings

Command = TypeVar("Command", bound=Callable[..., Any])
STOP_WAIT_SECONDS = 40.0
_OPTION, _DETACH = "boneseg.ray", "boneseg.detach"
_IN_JOB = "boneseg.in_job"
log = logging.getLogger(__name__)


def with_ray(command: Command) -> Command:
    """Add the options, before any command, that say on which cluster it works."""
    address = click.option(
        "--ray", metavar="ADDRESS", help="Ray cluster: host:6379, ray://host:10001, or http://host:8265 as a job."
    )
    detach = click.option("--detach", is_flag=True, help="With --ray http://...: do not wait for the job.")
    return address(detach(command))


def note_ray(address: str | None, detach: bool) -> None:
    """Keep the options for the command that follows."""
    way_of(address)
    meta = click.get_current_context().meta
    meta[_OPTION], meta[_DETACH] = address, detach


def use_cluster(settings: RunSettings) -> str | None:
    """Decide which cluster a command works on, and put it where Ray looks: the option, the setting, ``RAY_ADDRESS``.

    In a job it is the job's own cluster, whatever the settings say.

    Returns:
        The address of the job server to which the command is to be sent; none = the command runs in this process.
    """
    meta = click.get_current_context().meta
    if not meta.get(_IN_JOB):
        address = meta.get(_OPTION) or settings.ray.address
        if address:
            os.environ[VARIABLE] = address
    address = os.environ.get(VARIABLE)
    return address if way_of(address) is Way.JOB else None


def on_cluster(command: Command) -> Command:
    """Let a stage run as a job where a job server is given; it has the options of ``with_settings``."""

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        from boneseg.settings.loading import load_settings

        context = click.get_current_context()
        settings = load_settings(given["config"], given["overrides"])
        address = use_cluster(settings)
        if address is None:
            if context.meta.get(_DETACH):
                raise click.UsageError("--detach needs a job server: --ray http://host:8265")
            return command(**given)
        return _send(address, words_of(context), settings, bool(context.meta.get(_DETACH)))

    return run  # type: ignore[return-value]


def here_only(settings: RunSettings) -> None:
    """Prepare a command that is never sent as a job: with the option it is refused, else it works without a cluster."""
    if use_cluster(settings) is None:
        return
    context = click.get_current_context()
    if context.meta.get(_OPTION):
        raise SettingsError(
            f"boneseg {context.info_name} works on this machine and is not sent as a job: leave out --ray, or give "
            "host:6379 on a machine of the cluster"
        )
    os.environ.pop(VARIABLE, None)


def words_of(context: click.Context) -> tuple[str, ...]:
    """Return a command as it is given again on the cluster: its name and options, without those for settings.

    Raises:
        SettingsError: an option names a file or folder of this machine.
    """
    words = [str(context.info_name)]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if parameter.name in ("config", "overrides") or value == parameter.get_default(context) or value is None:
            continue
        option = parameter.opts[0]
        if isinstance(value, Path) or Path(str(value)).is_dir():
            raise SettingsError(
                f"{option} {value}: a folder of this machine, which a job on a Ray cluster does not reach: run this "
                "command without --ray, or give what is in the bucket or the registry"
            )
        words += [option] if value is True else [option, str(value)]
    return tuple(words)


@click.group(epilog="Example: boneseg jobs list --set ray.address=http://host:8265")
def jobs() -> None:
    """Look at, follow and stop commands that run as jobs on a Ray cluster."""


@jobs.command("list", epilog="Example: boneseg jobs list --set ray.address=http://host:8265")
@with_settings
def jobs_list(config: Path | None, overrides: tuple[str, ...]) -> None:
    """Show boneseg's jobs on the cluster, the latest first."""
    for row in _server(config, overrides).jobs():
        started = datetime.fromtimestamp(row.started).isoformat(" ", "seconds") if row.started else ""
        click.echo(f"{row.name:<40} {row.status:<10} {started:<20} {row.command}")


@jobs.command("attach", epilog="Example: boneseg jobs attach boneseg-train-1a2b3c4d --set ray.address=http://host:8265")
@click.argument("name")
@with_settings
def jobs_attach(name: str, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Follow the job NAME until it is over; Ctrl-C leaves it running."""
    server = _server(config, overrides)
    try:
        _follow(server, name)
    except KeyboardInterrupt:
        click.echo(f"job {name} goes on; end it with 'boneseg jobs stop {name}'", err=True)
        sys.exit(130)


@jobs.command("stop", epilog="Example: boneseg jobs stop boneseg-train-1a2b3c4d --set ray.address=http://host:8265")
@click.argument("name")
@with_settings
def jobs_stop(name: str, config: Path | None, overrides: tuple[str, ...]) -> None:
    """End the job NAME; the same command goes on where it was."""
    server = _server(config, overrides)
    running = server.stop(name)
    over = server.wait_until_over(name, STOP_WAIT_SECONDS)
    state = "is over" if over else "was asked to end and has not yet"
    click.echo(f"job {name} {state}" if running else f"job {name} was not running")


@jobs.command("run", hidden=True, epilog="Example: boneseg jobs run")
def jobs_run() -> None:
    """Run, on the cluster, the command that a job was sent with."""
    from boneseg.ray_cluster.commands import handed_command

    with handed_command() as words:
        root = click.get_current_context().find_root()
        root.meta[_IN_JOB] = True
        assert isinstance(root.command, click.Group)
        command = root.command.commands[words[0]]
        with command.make_context(words[0], list(words[1:]), parent=root) as inner:
            command.invoke(inner)


def _server(config: Path | None, overrides: tuple[str, ...]) -> JobServer:
    from boneseg.ray_cluster.job_server import JobServer
    from boneseg.settings.loading import load_settings

    address = use_cluster(load_settings(config, overrides))
    if address is None:
        raise SettingsError("no job server is given: 'boneseg --ray http://host:8265 jobs list', or ray.address")
    return JobServer(address)


def _send(address: str, words: tuple[str, ...], settings: RunSettings, detach: bool) -> None:
    from boneseg.ray_cluster.commands import job_name, to_hand_over
    from boneseg.ray_cluster.job_server import JobServer

    handed = to_hand_over(words, settings)
    server = JobServer(address)
    name, known = server.submit(job_name(words, settings), handed, words[0])
    click.echo(f"job {name}{' runs already' if known else ''}: follow it with 'boneseg jobs attach {name}'", err=True)
    if detach:
        click.echo(name)
        return
    try:
        _follow(server, name)
    except KeyboardInterrupt:
        server.stop(name)
        if not server.wait_until_over(name, STOP_WAIT_SECONDS):
            click.echo(f"job {name} was asked to end and has not yet", err=True)
        raise


def _follow(server: JobServer, name: str) -> None:
    server.follow(name, lambda text: click.echo(text, nl=False))
