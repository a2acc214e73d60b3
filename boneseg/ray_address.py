"""The forms in which a Ray cluster is named."""

from __future__ import annotations

import re
from enum import StrEnum
from urllib.parse import urlsplit

from boneseg.errors import SettingsError
from boneseg.redaction import holds_password

VARIABLE = "RAY_ADDRESS"
_HOST_AND_PORT = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}")


class Way(StrEnum):
    """How a command gets onto a cluster."""

    OWN = "own"
    """None is given: one is started on this machine for the time of the work."""
    INSIDE = "inside"
    """This machine is a node of the cluster, or the command connects through Ray's client."""
    JOB = "job"
    """From outside, through the cluster's job server: the command itself runs there."""


def way_of(address: str | None) -> Way:
    """Say how an address is used.

    Args:
        address: ``host:6379`` (or ``auto``) on a node, ``ray://host:10001`` for Ray's client, ``http://host:8265`` or
            ``https://...`` for the job server; none, empty or ``local`` = a cluster of our own.

    Raises:
        SettingsError: it has none of these forms, or holds a password.
    """
    if not address or address == "local":
        return Way.OWN
    if "@" in address or holds_password(address):
        raise SettingsError(
            "the Ray address holds a user or password: leave them out; a token goes into RAY_AUTH_TOKEN with "
            "RAY_AUTH_MODE=token"
        )
    scheme, mark, rest = address.partition("://")
    if mark and scheme in ("http", "https") and _host(address):
        return Way.JOB
    if (mark and scheme == "ray" and _HOST_AND_PORT.fullmatch(rest)) or address == "auto":
        return Way.INSIDE
    if not mark and _HOST_AND_PORT.fullmatch(address):
        return Way.INSIDE
    raise SettingsError(
        f"Ray address {address!r}: give host:6379 on a machine of the cluster, ray://host:10001 for Ray's client, or "
        "http://host:8265 to send the command as a job from outside"
    )


def _host(address: str) -> str | None:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname
