"""What the nodes of a cluster are given: access to store and registry, and the settings of boneseg's environment."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from boneseg.errors import SettingsError
from boneseg.identity import stable_hash
from boneseg.ray_cluster import watchdog
from boneseg.ray_cluster.node import CERTIFICATES, HOOK
from boneseg.ray_cluster.sealed import KEY_VARIABLE, HandedOver, put_sealed, seal
from boneseg.ray_cluster.versions import versions_here
from boneseg.settings.loading import NODE_VARIABLE
from boneseg.storage.client import ObjectStore
from boneseg.storage.embedded import ENDPOINT_VARIABLE
from boneseg.storage.scratch import scratch_folder

PREFIX = "boneseg-handed-over-"
_FAMILIES = ("BONESEG_", "MLFLOW_")
_SINGLE = ("OMP_WAIT_POLICY",)
_OWN = ("BONESEG_HOME", ENDPOINT_VARIABLE, KEY_VARIABLE, NODE_VARIABLE, watchdog.VARIABLE)
"""What each machine has for itself, or is given anew."""
STOP_SECONDS = "30"
"""Between the request to end a job's command and its end by force; Ray's own three are too few to close a store."""


def environment(store: ObjectStore) -> dict[str, str]:
    """Return the variables that processes on other machines get."""
    found = {
        name: value
        for name, value in os.environ.items()
        if (name.startswith(_FAMILIES) or name in _SINGLE) and name not in _OWN
    }
    return {**found, **store.environment(), ENDPOINT_VARIABLE: store.endpoint}


def handed_over(store: ObjectStore, command: tuple[str, ...] = (), files: dict[str, str] | None = None) -> HandedOver:
    """Gather what the processes of a cluster need of this one's surroundings.

    Args:
        store: that they work with.
        command: of a job.
        files: text of files of this machine, by what they are for.

    Raises:
        SettingsError: the file with certificates cannot be read.
    """
    given = dict(files or {})
    certificates = os.environ.get(CERTIFICATES)
    if certificates:
        given[CERTIFICATES] = text_of(Path(certificates), CERTIFICATES)
    return HandedOver(versions_here(), environment(store), given, loopback_name(), command)


@contextmanager
def runtime_env(handed: HandedOver) -> Iterator[dict[str, Any]]:
    """Yield Ray's form of it; the package in it may go once Ray has taken it."""
    key, sealed = seal(handed)
    with scratch_folder(Path(tempfile.gettempdir()), PREFIX) as folder:
        yield {
            "env_vars": {KEY_VARIABLE: key, "RAY_JOB_STOP_WAIT_TIME_S": STOP_SECONDS},
            "py_modules": [str(put_sealed(folder, sealed))],
            "worker_process_setup_hook": HOOK,
        }


def text_of(path: Path, what: str) -> str:
    """Read a file of this machine that a cluster needs.

    Raises:
        SettingsError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{what} = {path}: cannot read the file ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{what} = {path}: not a text file in UTF-8") from None


def on_loopback(endpoint: str) -> bool:
    """Say whether an endpoint is reached from its own machine only."""
    host = urlsplit(endpoint).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def loopback_name() -> str:
    """Return a name for what 127.0.0.1 means here: the same in two processes only if it is the same to both."""
    try:
        parts = [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/net").readlink())]
    except OSError:
        parts = [platform.node()]
    return stable_hash(parts)


def require_reachable(endpoint: str, caller: str, node: str) -> None:
    """Refuse a store that listens on this machine's 127.0.0.1 where a node has another.

    Args:
        endpoint: of the store.
        caller: ``loopback_name`` of the machine that named the store.
        node: that of a node.

    Raises:
        SettingsError: the node cannot reach the store.
    """
    if on_loopback(endpoint) and caller != node:
        raise SettingsError(
            f"the object store at {endpoint} listens on this machine only, and the Ray cluster has others: start it "
            "again with 'boneseg store stop' and 'boneseg store start --listen ADDRESS', an address of this machine "
            "that they reach, or set store.endpoint to a store that they reach"
        )
