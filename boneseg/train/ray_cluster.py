"""A Ray cluster for the time of a fit or a sweep: the one that ``RAY_ADDRESS`` names, else one on this machine."""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Ray reads these when it is imported. A cluster of our own listens on loopback only and asks for a token that nobody
# else knows; a cluster that is given keeps its own rules, and so do the workers it starts.
if "ray" not in sys.modules and not os.environ.get("RAY_ADDRESS"):
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # despite its name: the node's address is 127.0.0.1
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # reports are taken once an interval
os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its tables ignore that they are not wanted
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from boneseg.errors import SettingsError
from boneseg.machine import cpus
from boneseg.storage.scratch import scratch_folder
from boneseg.storage.workspace import Workspace
from boneseg.train import ray_watchdog

PREFIX = "bsray-"
LONGEST_PARENT = 103 - len(f"/{PREFIX}12345678/r/session_2026-01-01_00-00-00_123456_1234567/sockets/plasma_store")
"""Bytes of the folder in which Ray's is made: the path of a socket may have 103 on macOS, 107 on Linux."""


@contextmanager
def cluster(least_cpus: int = 1) -> Iterator[None]:
    """Connect to a Ray cluster; one that was started here is stopped again.

    Args:
        least_cpus: CPUs that a cluster on this machine offers, even if the machine has fewer.

    Raises:
        SettingsError: ``RAY_ADDRESS`` is set and nothing answers there, or the machine is too busy to start Ray.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise SettingsError(
                f"RAY_ADDRESS = {address}: no Ray cluster answers there; unset it or correct it"
            ) from error
        with _closing():
            yield
        return
    with _private_folder() as folder, _watched(folder) as mark, _closing():
        # Inherited by what Ray starts here, and by what that starts in turn; by nothing that is started later.
        os.environ[ray_watchdog.VARIABLE] = mark
        umask = os.umask(0o077)
        try:
            _start(max(least_cpus, cpus()), folder)
        finally:
            os.umask(umask)
            del os.environ[ray_watchdog.VARIABLE]
        yield


@contextmanager
def _closing() -> Iterator[None]:
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Yield a folder for Ray's logs and sockets that only this user may enter: Ray's own is open to everybody."""
    parent = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    with scratch_folder(Path(parent if len(os.fsencode(parent)) <= LONGEST_PARENT else "/tmp"), PREFIX) as folder:
        yield folder


@contextmanager
def _watched(folder: Path) -> Iterator[str]:
    """Yield a mark for the cluster's processes; they are ended should this one die before it can do so."""
    mark = secrets.token_hex(16)
    watcher = subprocess.Popen(
        # Apart from the terminal's group: Ctrl-C ends the training, not who cleans up after it.
        [sys.executable, "-I", ray_watchdog.__file__, mark, str(os.getpid()), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield mark
    finally:
        ray_watchdog.end(mark, os.getpid(), quiet_rounds=1)
        watcher.communicate(b"done\n")


def _start(cpus: int, folder: Path) -> None:
    """Start a cluster on this machine. Ray waits half a minute for its processes; a busy machine gets a second try."""
    for last in (False, True):
        try:
            ray.init(
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                _temp_dir=str(folder / "r"),  # Ray opens this one to everybody, but not what it lies in
            )
        except Exception as error:  # Ray has no type for this one
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if last:
                raise SettingsError(
                    "Ray did not start on this machine within its time, twice; try again when the machine is less busy"
                ) from error
        else:
            return


def storage_path(workspace: Workspace) -> str:
    """Return where Ray keeps its own notes: this machine, or the bucket for a cluster of several machines.

    Ray reaches the bucket through ``AWS_ENDPOINT_URL`` and the AWS credentials in the environment of its nodes.
    """
    if os.environ.get("RAY_ADDRESS") and os.environ.get("AWS_ENDPOINT_URL"):
        return workspace.store.uri("ray")
    return str(workspace.folder / "ray")


def workers_resources(workers: int, gpus_wanted: bool) -> tuple[int, bool]:
    """Share the cluster among workers.

    Args:
        workers: how many.
        gpus_wanted: whether to use GPUs if there are any.

    Returns:
        CPUs of each worker, and whether each gets a GPU.

    Raises:
        SettingsError: there are more workers than CPUs or GPUs.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus_wanted and 0 < gpus < workers:
        raise SettingsError(
            f"train.workers = {workers}: the cluster has {gpus} GPUs and each worker needs one; "
            "lower train.workers, or set train.device to cpu"
        )
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    for share in range(max(cpus), 0, -1):
        if sum(node // share for node in cpus) >= workers:
            return share, gpus_wanted and gpus > 0
    raise SettingsError(f"train.workers = {workers}: the cluster has only {sum(cpus)} CPUs; lower train.workers")
