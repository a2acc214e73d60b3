"""What Ray reads from the environment when it is imported, and hands on to the processes that it starts."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from boneseg.ray_address import VARIABLE, Way, way_of

_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # reports are taken once an interval
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # its tables ignore that they are not wanted
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def on_cluster() -> bool:
    """Say whether this process drives work on a cluster that is given, and so may spread it over the cluster's nodes.

    A worker of the cluster does its own part where it is: it would wait for CPUs that it holds itself.
    """
    if not os.environ.get("RAY_ADDRESS"):
        return False
    if "ray" not in sys.modules:
        return True
    import ray

    if not ray.is_initialized():
        return True
    context = ray.get_runtime_context()
    return context.get_task_id() is None and context.get_actor_id() is None


def before_ray() -> None:
    """Set Ray's environment; to be called before anything imports Ray, and without effect afterwards.

    A cluster of our own listens on loopback only and asks for a token that nobody else knows; a cluster that is given
    keeps its own rules, and so do the workers it starts; it is shown the token that this user has for clusters.
    """
    if "ray" in sys.modules:
        return
    if way_of(os.environ.get(VARIABLE)) is Way.OWN:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # despite its name: the node's address is 127.0.0.1
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    elif "RAY_AUTH_MODE" not in os.environ and _has_token():
        os.environ["RAY_AUTH_MODE"] = "token"  # as 'ray start' decides it
    for name, value in _ALWAYS.items():
        os.environ.setdefault(name, value)


def _has_token() -> bool:
    """Say whether there is a token for a cluster that is given, where Ray looks for it."""
    given = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    try:
        return given or (Path.home() / ".ray" / "auth_token").is_file()
    except (OSError, RuntimeError):  # no home
        return given
