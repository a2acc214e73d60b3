"""What Ray reads from the environment when it is imported, and hands on to the processes that it starts."""

from __future__ import annotations

import os
import secrets
import sys

_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # reports are taken once an interval
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # its tables ignore that they are not wanted
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def before_ray() -> None:
    """Set Ray's environment; to be called before anything imports Ray, and without effect afterwards.

    A cluster of our own listens on loopback only and asks for a token that nobody else knows; a cluster that is given
    keeps its own rules, and so do the workers it starts.
    """
    if "ray" in sys.modules:
        return
    if not os.environ.get("RAY_ADDRESS"):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # despite its name: the node's address is 127.0.0.1
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    for name, value in _ALWAYS.items():
        os.environ.setdefault(name, value)
