"""The embedded object store: SeaweedFS' ``weed mini`` as a child on loopback, so that a laptop needs no S3 service.

Everything of a store is in ``store/`` of its folder: objects, credentials, log and state. A store lives until it is
stopped; it outlives the process that started it. Other users of the machine reach its S3 API only, and that wants the
credentials; see ``certificates``.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from boneseg.atomic_write import atomic_write_bytes
from boneseg.errors import StoreError
from boneseg.settings.schema import StoreSettings
from boneseg.storage.client import Credentials, ObjectStore
from boneseg.storage.embedded import ports as port_numbers
from boneseg.storage.embedded import process
from boneseg.storage.embedded.certificates import guarded, make_certificates
from boneseg.storage.permissions import make_private, protect_work_folder, shut_tree

ENDPOINT_VARIABLE = "BONESEG_S3_ENDPOINT"
MIN_FREE_BYTES = 256 * 2**20
ATTEMPTS = 5
HUNG_SECONDS = 20.0
"""After which a server that runs but does not answer, as after its disk was full, is ended and started again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreStatus:
    """A running embedded store."""

    endpoint: str
    pid: int
    folder: Path


def start(folder: Path, listen: str | None = None) -> StoreStatus:
    """Start the store of a folder and wait until it answers; a store that already runs is left as it is.

    One that an earlier version started runs open to the machine's other users: it is started anew.

    Args:
        folder: work folder.
        listen: address of this machine at which other machines reach it too, such as the nodes of a Ray cluster; none
            = where it listens, else 127.0.0.1. Its S3 API asks for the credentials there as well, and the rest of it
            for a certificate; what is sent is signed and not encrypted.

    Raises:
        StoreError: the disk is full, the server is not installed, or it does not come up; the address is none of one
            interface, or the store runs already and listens elsewhere.
    """
    if listen is not None:
        check_listen(listen)
    home = _home(folder)
    try:
        protect_work_folder(home.parent)
        make_private(home)
        with process.one_call_at_a_time(home):
            running = process.find(home)
            if running is not None and listen not in (None, running.address):
                raise StoreError(
                    f"the object store of {home.parent} runs and listens on {running.address}: stop it with 'boneseg "
                    "store stop' first"
                )
            if running is None or not _usable(home, running):
                running = _start(home, listen or (running.address if running else process.LOOPBACK))
            return StoreStatus(running.endpoint, running.pid, home.parent)
    except OSError as error:
        raise StoreError(f"{home}: cannot keep the object store there ({error.strerror or error})") from error


def check_listen(address: str) -> None:
    """Refuse an address that does not say where others find this machine.

    Raises:
        StoreError: it is no IPv4 address, or stands for all interfaces.
    """
    try:
        parsed = ipaddress.IPv4Address(address)
    except ValueError:
        raise StoreError(f"--listen {address}: give an IPv4 address of this machine, such as 10.0.0.5") from None
    if parsed.is_unspecified or parsed.is_multicast:
        raise StoreError(
            f"--listen {address} stands for every interface of this machine: give the one address at which the nodes "
            "of the cluster reach it"
        )


def stop(folder: Path) -> bool:
    """Stop the store of a folder and wait until it is gone.

    Returns:
        Whether one was running.

    Raises:
        StoreError: it does not end.
    """
    home = _home(folder)
    if not home.is_dir():
        return False
    with process.one_call_at_a_time(home):
        running = process.find(home)
        if running is None:
            port_numbers.remove_dead_sockets(process.last_ports(home).values())
            return False
        process.end(home, running)
        return True


def status(folder: Path) -> StoreStatus | None:
    """Return the running store of a folder, or none.

    Raises:
        StoreError: one runs, but nothing tells which process it is.
    """
    home = _home(folder)
    running = process.find(home)
    return None if running is None else StoreStatus(running.endpoint, running.pid, home.parent)


def credentials(folder: Path) -> Credentials:
    """Return the credentials of a folder's store.

    Raises:
        StoreError: no store was ever started there.
    """
    try:
        found = json.loads((_home(folder) / process.CREDENTIALS).read_text())["identities"][0]["credentials"][0]
        return Credentials(found["accessKey"], found["secretKey"])
    except (OSError, ValueError, LookupError) as error:
        raise StoreError(f"{folder} holds no object store: start one with 'boneseg store start'") from error


def open_store(settings: StoreSettings, folder: Path) -> ObjectStore:
    """Open the bucket of the settings.

    Args:
        settings: where the bucket is; without an endpoint ``BONESEG_S3_ENDPOINT`` counts, else the embedded store.
        folder: folder of the embedded store.

    Raises:
        StoreError: no credentials, or the embedded store does not run.
    """
    endpoint = settings.endpoint or named_elsewhere()
    if endpoint:
        if not endpoint.startswith(("http://", "https://")):
            raise StoreError(f"{ENDPOINT_VARIABLE}={endpoint} must start with http:// or https://")
        store = ObjectStore(endpoint, settings.bucket, region=settings.region)
        _ = store.credentials  # now, so that missing ones are told before anything else
        return store
    running = status(folder)
    if running is None:
        raise StoreError(
            f"no object store runs in {folder}: start it with 'boneseg store start', or set store.endpoint to an S3 "
            "endpoint"
        )
    return ObjectStore(running.endpoint, settings.bucket, credentials(folder), settings.region, _home(folder))


def named_elsewhere() -> str | None:
    """Return the endpoint that ``BONESEG_S3_ENDPOINT`` names, if any."""
    return os.environ.get(ENDPOINT_VARIABLE) or None


def _home(folder: Path) -> Path:
    return folder.absolute() / "store"


def _usable(home: Path, running: process.Server) -> bool:
    """Say whether a server that runs can stay; one that cannot is ended."""
    if guarded(home):
        try:
            process.wait_until_ready(home, running, HUNG_SECONDS)
            return True
        except process.NotReadyError as error:
            _log.warning("%s; it is started anew", error)
    process.end(home, running)
    return False


def _start(home: Path, address: str) -> process.Server:
    free = shutil.disk_usage(home).free
    if free < MIN_FREE_BYTES:
        raise StoreError(f"{home}: only {free // 2**20} MB are free, the object store needs more; free some space")
    ports = process.last_ports(home)
    port_numbers.remove_dead_sockets(ports.values())
    shut_tree(home)  # earlier versions left it open
    _ensure_credentials(home)
    make_certificates(home, address)
    (home / "data" / "mini.options").unlink(missing_ok=True)  # the server's note of earlier options, which would count
    for attempt in range(ATTEMPTS):
        if attempt > 0 or not _as_today(ports) or not port_numbers.free(ports, address):
            ports = port_numbers.choose(address)
        running = process.launch(home, ports, address)
        try:
            process.wait_until_ready(home, running)
            return running
        except BaseException as error:
            process.end(home, running)
            if not isinstance(error, process.NotReadyError) or not error.port_taken or attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _as_today(ports: dict[str, int]) -> bool:
    """Say whether ports of an earlier start can be taken again: earlier versions chose others for gRPC."""
    try:
        return all(ports[f"{name}.grpc"] == ports[name] + port_numbers.GRPC_OFFSET for name in port_numbers.SERVICES)
    except KeyError:
        return False


def _ensure_credentials(home: Path) -> None:
    path = home / process.CREDENTIALS
    if path.exists():
        return
    pair = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config = {"identities": [{"name": "boneseg", "credentials": [pair], "actions": actions}]}
    atomic_write_bytes(path, json.dumps(config).encode(), private=True, durable=True)
