"""Ports of the embedded server, and the sockets that it names by them in the folder for temporary files."""

from __future__ import annotations

import os
import random
import socket
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from boneseg.errors import StoreError

SERVICES = ("s3", "master", "volume", "filer", "admin")
GRPC_OFFSET = 10_007
"""From a service's port to its gRPC port. Not 10,000, where the server's maintenance worker looks for the admin's:
while that is connected, every stop takes ten seconds, and the master compacts without it."""
_PORTS = range(12_000, 32_000 - GRPC_OFFSET)  # all below the ports the kernel gives to outgoing connections
_SOCKETS = Path("/tmp")  # the server knows no other place
_OLD_SECONDS = 60.0


def choose(address: str = "127.0.0.1") -> dict[str, int]:
    """Choose ports for all services, free on an address of this machine: ``s3``, ``s3.grpc`` and so on.

    Raises:
        StoreError: there are not enough.
    """
    chosen: dict[str, int] = {}
    names = list(SERVICES)
    for port in random.SystemRandom().sample(_PORTS, 400):
        pair = {names[0]: port, f"{names[0]}.grpc": port + GRPC_OFFSET}
        if free(pair, address):
            chosen |= pair
            names.pop(0)
        if not names:
            return chosen
    raise StoreError(f"no {2 * len(SERVICES)} free ports between {_PORTS.start} and 32000 on {address}")


def free(ports: dict[str, int], address: str = "127.0.0.1") -> bool:
    """Say whether the server can take these ports; it wants them on no interface to be taken."""
    return all(_bindable(port, address) and not _taken_in_temporary_folder(port) for port in ports.values())


def remove_dead_sockets(ports: Iterable[int]) -> None:
    """Remove the sockets of a server that is gone, and what other servers of this user left when they were killed.

    Args:
        ports: of the server that is gone.
    """
    known = tuple(f"-{port}.sock" for port in ports)
    for path in _SOCKETS.glob("seaweedfs-*.sock"):
        with suppress(OSError):
            found = path.lstat()
            ours = stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()
            # A server that is just starting has a socket before it listens on it.
            old = time.time() - found.st_mtime > _OLD_SECONDS
            if ours and (old or path.name.endswith(known)) and _is_dead(path):
                path.unlink()


def _bindable(port: int, address: str) -> bool:
    places = [(socket.AF_INET, address), (socket.AF_INET, "")]
    if socket.has_ipv6:
        places.append((socket.AF_INET6, "::"))
    for family, place in places:
        try:
            probe = socket.socket(family)
        except OSError:  # built with IPv6, but the machine has none
            continue
        with probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((place, port))
            except OSError:
                return family == socket.AF_INET6 and not Path("/proc/net/if_inet6").exists()
    return True


def _taken_in_temporary_folder(port: int) -> bool:
    """Say whether another user has a socket where the server would put its own."""
    for path in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
        with suppress(FileNotFoundError):
            if path.lstat().st_uid != os.geteuid():
                return True
    return False


def _is_dead(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
