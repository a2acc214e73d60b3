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

from boneseg.errors import SettingsError
from boneseg.machine import cpus
from boneseg.ray_cluster import watchdog
from boneseg.ray_cluster.environment import before_ray
from boneseg.storage.scratch import scratch_folder

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
    before_ray()
    import ray

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
        os.environ[watchdog.VARIABLE] = mark
        umask = os.umask(0o077)
        try:
            _start(max(least_cpus, cpus()), folder)
        finally:
            os.umask(umask)
            del os.environ[watchdog.VARIABLE]
        yield


@contextmanager
def _closing() -> Iterator[None]:
    import ray

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
        [sys.executable, "-I", watchdog.__file__, mark, str(os.getpid()), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield mark
    finally:
        watchdog.end(mark, os.getpid(), quiet_rounds=1)
        watcher.communicate(b"done\n")


def _start(cpus: int, folder: Path) -> None:
    """Start a cluster on this machine. Ray waits half a minute for its processes; a busy machine gets a second try."""
    import ray

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
