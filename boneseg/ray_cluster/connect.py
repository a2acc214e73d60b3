"""A Ray cluster for the time of a fit or a sweep: the one that ``RAY_ADDRESS`` names, else one on this machine."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from boneseg.errors import SettingsError
from boneseg.machine import cpus
from boneseg.ray_address import VARIABLE, Way, way_of
from boneseg.ray_cluster import watchdog
from boneseg.ray_cluster.environment import before_ray
from boneseg.ray_cluster.handover import handed_over, loopback_name, require_reachable, runtime_env
from boneseg.ray_cluster.node import received
from boneseg.ray_cluster.sealed import KEY_VARIABLE
from boneseg.ray_cluster.versions import Versions, require_same, versions_here
from boneseg.redaction import redacted
from boneseg.storage.scratch import scratch_folder
from boneseg.storage.workspace import Workspace

PREFIX = "bsray-"
LONGEST_PARENT = 103 - len(f"/{PREFIX}12345678/r/session_2026-01-01_00-00-00_123456_1234567/sockets/plasma_store")
"""Bytes of the folder in which Ray's is made: the path of a socket may have 103 on macOS, 107 on Linux."""


ANSWER_SECONDS = 10.0
NODE_SECONDS = 180.0
"""For a connection to be taken; for a node to start a first process and to say which code it runs."""


@contextmanager
def cluster(least_cpus: int = 1, workspace: Workspace | None = None) -> Iterator[None]:
    """Connect to a Ray cluster; one that was started here is stopped again.

    The processes of a cluster that is given get access to the workspace's store, and work in the folders of their
    nodes. It is refused before any work where it runs another version of boneseg, Ray or Python.

    Args:
        least_cpus: CPUs that a cluster on this machine offers, even if the machine has fewer.
        workspace: that the work is done in.

    Raises:
        SettingsError: ``RAY_ADDRESS`` is set and nothing answers there, its versions differ or its nodes cannot reach
            the store; or the machine is too busy to start Ray.
    """
    before_ray()
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get(VARIABLE)
    if way_of(address) is not Way.OWN:
        with _given(str(address), workspace):
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
def _given(address: str, workspace: Workspace | None) -> Iterator[None]:
    """Connect to the cluster at an address, with what its nodes need."""
    if way_of(address) is Way.JOB:
        raise SettingsError(
            f"{VARIABLE} = {address}: that is a job server, which takes boneseg's stages only; for this command give "
            "host:6379 on a machine of the cluster, or ray://host:10001"
        )
    with ExitStack() as stack:
        given: dict[str, Any] = {}
        if workspace is not None:
            stack.enter_context(_in_environment(workspace.store.environment()))  # Ray here reaches the bucket by it
            if KEY_VARIABLE not in os.environ:  # a job's processes were given all of it
                given["runtime_env"] = stack.enter_context(runtime_env(handed_over(workspace.store)))
                if address.startswith("ray://"):
                    _call_hook_by_variable(given["runtime_env"])
        _require_listener(address)
        _connect(address, given)
        stack.enter_context(_closing())
        check_nodes(workspace.store.endpoint if workspace is not None else None)
        yield


def _call_hook_by_variable(environment: dict[str, Any]) -> None:
    """Name the hook as Ray itself does for its workers: through Ray's client it would not be called."""
    from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

    environment["env_vars"][WORKER_PROCESS_SETUP_HOOK_ENV_VAR] = environment.pop("worker_process_setup_hook")


def _require_listener(address: str) -> None:
    """Refuse an address at which nothing listens: Ray would try for many minutes.

    Raises:
        SettingsError: nothing takes connections there.
    """
    if address == "auto":
        return
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise _no_answer(address) from error


def _no_answer(address: str) -> SettingsError:
    return SettingsError(
        f"{VARIABLE} = {address}: no Ray cluster answers there; unset it or correct it; host:6379 is for the machines "
        "of the cluster ('ray start --address' makes this one of them), from others give http://host:8265"
    )


def _connect(address: str, given: dict[str, Any]) -> None:
    import ray

    logging.getLogger("ray").setLevel(logging.WARNING)  # packages that it uploads
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.WARNING, **given)
    except Exception as error:  # Ray has a type for some of them only
        ray.shutdown()
        text = " ".join(str(error).split())
        if "ersion mismatch" in text or "ersions differ" in text or "ersions are different" in text:
            raise SettingsError(
                f"{VARIABLE} = {address}: {redacted(text.rstrip('.'))}; install the same Ray and Python on both"
            ) from error
        if isinstance(error, ImportError):
            raise SettingsError(f"{VARIABLE} = {address}: {text}; install 'ray[default]'") from error
        if isinstance(error, ConnectionError | TimeoutError | RuntimeError | ValueError):
            raise _no_answer(address) from error
        raise


def check_nodes(endpoint: str | None) -> None:
    """Ask every node which code it runs and whether it can reach the store.

    Args:
        endpoint: of the store; none = there is none.

    Raises:
        SettingsError: one runs other code, has no boneseg, or cannot reach the store.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(of_node)
    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in alive]
    asked = [ask.options(scheduling_strategy=strategy).remote() for strategy in there]
    caller = received()
    versions, loopback = (caller.versions, caller.loopback) if caller else (versions_here(), loopback_name())
    try:
        answers = ray.get(asked, timeout=NODE_SECONDS)
    except (GetTimeoutError, RayError) as error:
        if "No module named 'boneseg" in str(error):
            reason = "a node has no boneseg, or another version"
        else:
            reason = redacted(" ".join(str(error).split())) or type(error).__name__
        raise SettingsError(
            f"a process of ours does not start on the Ray cluster ({reason}): install boneseg {versions.boneseg} on "
            "its nodes, or use boneseg's image"
        ) from error
    for theirs, theirs_loopback in answers:
        require_same(versions, theirs)
        if endpoint is not None:
            require_reachable(endpoint, loopback, theirs_loopback)


def of_node() -> tuple[Versions, str]:
    """Say which code a node runs, and what 127.0.0.1 is there."""
    return versions_here(), loopback_name()


@contextmanager
def _in_environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
