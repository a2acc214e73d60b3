"""Commands as jobs of a Ray cluster, from outside: sent, found again by name, followed, stopped."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from boneseg.errors import BonesegError, SettingsError
from boneseg.ray_cluster.environment import before_ray
from boneseg.ray_cluster.follow import Follower, shown_lines
from boneseg.ray_cluster.handover import runtime_env
from boneseg.ray_cluster.sealed import HandedOver
from boneseg.ray_cluster.versions import Versions, require_same
from boneseg.redaction import redacted

PREFIX = "boneseg-"
ENTRYPOINT = "python -m boneseg jobs run"
"""The same for every job: what it runs and with which settings is handed over sealed."""
WAIT_VARIABLE, WAIT_SECONDS = "BONESEG_RAY_WAIT_SECONDS", 900.0
"""How long a job server that does not answer is waited for, while a job is followed."""
STARTING_SECONDS = 60.0
"""For a head that answers to take jobs too."""
LAST_LINES = 10
NOT_FOUND, NO_MODULE = 127, re.compile(r"No module named '?boneseg")
"""A shell's exit code for a program that is not there, and how Python tells of a module."""
_CHATTY = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)
Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


class JobError(BonesegError):
    """A job on a cluster did not end well."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class JobRow:
    """A job as a list shows it."""

    name: str
    status: str
    command: str
    started: float | None
    """Seconds since 1970."""


class JobServer:
    """The job server of a cluster.

    Args:
        address: such as ``http://host:8265``.

    Raises:
        SettingsError: nothing answers there, or it is not a job server.
    """

    def __init__(self, address: str) -> None:
        before_ray()
        from ray.job_submission import JobSubmissionClient

        for name in (
            "ray.dashboard.modules.job.sdk",
            "ray.dashboard.modules.dashboard_sdk",
            "ray._private.runtime_env.packaging",
        ):
            logging.getLogger(name).setLevel(logging.ERROR)  # they tell of packages and of dropped connections
        self.address = address
        verify = os.environ.get("SSL_CERT_FILE") or True
        with _one_address(address):
            self.client = _told(address, lambda: JobSubmissionClient(address, verify=verify))

    @property
    def ray_version(self) -> str:
        """Of the cluster."""
        return str(self.client._server_ray_version)

    def submit(self, name: str, handed: HandedOver, command: str) -> tuple[str, bool]:
        """Run a command as a job, unless the very same one runs already.

        Args:
            name: of the job; one that ended leaves it to the next with a number.
            handed: what it needs.
            command: as lists of jobs show it.

        Returns:
            The name of the job, and whether it ran already.

        Raises:
            SettingsError: the cluster runs another version of Ray, or the server refuses the job.
        """
        caller = handed.versions
        require_same(caller, Versions(caller.boneseg, self.ray_version, caller.python))
        for number in range(1, 1000):
            numbered = name if number == 1 else f"{name}-{number}"
            status = self.status(numbered)
            if status is None:
                if self._sent(numbered, handed, command):
                    return numbered, False
                return numbered, True  # the same command, from elsewhere, was faster
            if not status.is_terminal():
                return numbered, True
        raise SettingsError(f"the Ray cluster at {self.address} has run job {name} a thousand times: restart it")

    def _sent(self, name: str, handed: HandedOver, command: str) -> bool:
        until = time.monotonic() + STARTING_SECONDS
        with runtime_env(handed) as environment:
            while True:
                try:
                    self.client.submit_job(
                        entrypoint=ENTRYPOINT,
                        submission_id=name,
                        runtime_env=environment,
                        metadata={"command": command},
                    )
                    return True
                except RuntimeError as error:
                    if "already exists" in str(error):
                        return False
                    if "try again later" not in str(error) or time.monotonic() > until:
                        raise _refusal(self.address, error) from None
                time.sleep(1.0)

    def status(self, name: str) -> Any | None:
        """Return the status of a job, or none if the cluster does not know it."""
        info = self.info(name)
        return None if info is None else info.status

    def info(self, name: str) -> Any | None:
        """Return what the cluster knows of a job, or none."""
        return _told(self.address, lambda: _unless_missing(lambda: self.client.get_job_info(name)))

    def jobs(self) -> list[JobRow]:
        """Return boneseg's jobs, the latest first."""
        rows = []
        for job in _told(self.address, self.client.list_jobs):
            name, command = job.submission_id or "", (job.metadata or {}).get("command", "")
            if name.startswith(PREFIX):
                rows.append(JobRow(name, str(job.status), command, job.start_time / 1000 if job.start_time else None))
        return sorted(rows, key=lambda row: row.started or 0.0, reverse=True)

    def stop(self, name: str) -> bool:
        """Ask a job to end; its command has ``STOP_SECONDS`` to do so.

        Returns:
            Whether it was running.

        Raises:
            SettingsError: the cluster knows no such job.
        """
        stopped = _told(self.address, lambda: _unless_missing(lambda: self.client.stop_job(name)))
        if stopped is None:
            raise _unknown(name, self.address)
        return bool(stopped)

    def wait_until_over(self, name: str, seconds: float) -> bool:
        """Wait until a job is over; return whether it is."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            status = self.status(name)
            if status is None or status.is_terminal():
                return True
            time.sleep(0.3)
        return False

    def follow(self, name: str, show: Callable[[str], None]) -> None:
        """Show a job's log until it is over, whatever happens to the connection.

        Args:
            name: of the job.
            show: takes pieces of the log, lines with their ends.

        Raises:
            SettingsError: the cluster knows no such job.
            JobError: the job failed or was stopped, or the server is away for too long; the job may go on then.
        """
        if self.info(name) is None:
            raise _unknown(name, self.address)
        patience = float(os.environ.get(WAIT_VARIABLE, WAIT_SECONDS))
        follower = Follower(self.client, name, show, patience)
        end = follower.run()
        if end is None:
            raise JobError(
                f"the Ray cluster at {self.address} has not answered for {patience:.0f} s; job {name} may go on: look "
                f"again with 'boneseg jobs attach {name}'"
            )
        _require_success(name, self.address, end, follower.text)


def _require_success(name: str, address: str, end: Any, text: str) -> None:
    status = str(end.status)
    if status == "SUCCEEDED":
        return
    if status == "STOPPED":
        raise JobError(f"job {name} was stopped; the same command goes on where it was", 130)
    if status == "MISSING":
        raise JobError(
            f"the Ray cluster at {address} knows nothing of job {name} any more, as after its head was lost; the same "
            "command goes on where it was"
        )
    lines = shown_lines(text)
    told = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
    message = str(end.message or "")
    if told is None and (end.driver_exit_code == NOT_FOUND or NO_MODULE.search(text)):
        told = (
            "the 'python' on the PATH of the cluster's head has no boneseg; install the version of this machine there, "
            "or use boneseg's image"
        )
    if told is None:
        last = lines[-LAST_LINES:] or redacted(message).strip().splitlines()[-LAST_LINES:]
        told = f"{end.error_type or 'no reason given'}; its last lines:\n" + "\n".join(last)
    raise JobError(f"job {name} failed: {told}", end.driver_exit_code or 1)


def _unknown(name: str, address: str) -> SettingsError:
    return SettingsError(f"the Ray cluster at {address} knows no job {name}; 'boneseg jobs list' shows those it knows")


def _unless_missing(ask: Callable[[], Answer]) -> Answer | None:
    try:
        return ask()
    except RuntimeError as error:
        if "does not exist" in str(error):
            return None
        raise


def _told(address: str, ask: Callable[[], Answer]) -> Answer:
    """Ask the server; failures are sentences."""
    from ray.exceptions import AuthenticationError

    try:
        return ask()
    except AuthenticationError:
        raise SettingsError(
            f"the Ray cluster at {address} asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        ) from None
    except OSError as error:  # those of requests included
        if getattr(error, "response", None) is not None:
            raise _refusal(address, error) from None
        raise SettingsError(
            f"no Ray job server answers at {address}; correct the address, or start the cluster's head with its "
            "dashboard ('ray start --head' where 'ray[default]' is installed)"
        ) from None
    except (RuntimeError, ValueError) as error:
        raise _refusal(address, error) from None


def _refusal(address: str, error: Exception) -> SettingsError:
    last = redacted(str(error)).strip().splitlines() or [type(error).__name__]
    return SettingsError(f"the Ray job server at {address} does not do it: {last[-1]}")


@contextmanager
def _one_address(address: str) -> Iterator[None]:
    """Ray's client takes the address from these variables whatever it is told."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    before = {name: os.environ.pop(name, None) for name in names}
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
