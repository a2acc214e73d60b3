"""What another user of the machine gets of an embedded store: nothing.

The tests start a store as root and try everything as the user 65534, in a child that gave up its rights.
"""

import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from boneseg.storage import embedded
from boneseg.storage.cache import Cache
from boneseg.storage.client import ObjectStore
from boneseg.storage.embedded import certificates, process
from boneseg.storage.workspace import Workspace

NOBODY = 65534
PATIENT = b"Doe^Jane born 1950"
WORD = PATIENT.decode().split("^")[0]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to become another user, and /proc"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a store with a patient in it, made under an umask that forbids nothing, that anybody can reach."""
    top = tmp_path_factory.mktemp("machine")
    for parent in (top, *top.parents[:-1]):
        if parent.stat().st_uid == os.geteuid() and "pytest" in str(parent):
            parent.chmod(0o755)
    before = os.umask(0)
    try:
        running = embedded.start(top / "work")
        store = ObjectStore(running.endpoint, "hospital", embedded.credentials(top / "work"))
        store.ensure_bucket()
        store.write(f"raw/{WORD}/scan.dcm", PATIENT)
        cache = Cache(Workspace(store, top / "work").cache, store)
        item = store.stat(f"raw/{WORD}/scan.dcm")
        assert item is not None
        fetched, _ = cache.fetch_new(item)
        store.upload(fetched, "copy")
        yield top / "work"
    finally:
        os.umask(before)
        embedded.stop(top / "work")


def as_another_user(action: Callable[[], object]) -> Any:
    """Return what an action (that gives what JSON can hold) gives to the user 65534."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            signal.alarm(60)
            os.write(writing, json.dumps(action()).encode())
            os._exit(0)
        except BaseException as error:
            os.write(writing, f"child failed: {error!r}".encode())
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0, text
    return json.loads(text)


def ports(folder: Path) -> dict[str, int]:
    running = process.find(folder / "store")
    assert running is not None
    return running.ports


def ask(url: str, method: str = "GET", data: bytes | None = None, context: ssl.SSLContext | None = None) -> str:
    """Return status and body of an answer, or the name of what went wrong."""
    secured = urllib.request.HTTPSHandler(context=context) if context else urllib.request.HTTPSHandler()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), secured)
    try:
        with opener.open(urllib.request.Request(url, data, method=method), timeout=5) as response:
            return f"{response.status} {response.read(2000)!r}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read(2000)!r}"
    except OSError as error:
        return type(error).__name__


def without_certificate() -> ssl.SSLContext:
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def with_an_own_certificate(place: Path) -> ssl.SSLContext:
    """Return what somebody presents who makes a certificate in the same way, with an authority of his own."""
    place.mkdir(exist_ok=True)
    certificates.make_certificates(place)
    own = certificates.client_context(place)
    own.check_hostname = False
    own.verify_mode = ssl.CERT_NONE
    return own


PATHS = (
    "/", "/dir/status", "/dir/assign", "/dir/lookup?volumeId=1", "/vol/status", "/vol/grow?count=1", "/cluster/status",
    "/col/delete?collection=hospital", "/submit", "/stats/health", "/stats/memory", "/status", "/ui/index.html",
    "/metrics", "/debug/pprof/", "/debug/vars", "/buckets/", "/buckets/hospital/?limit=10", "/etc/iam/identity.json",
    f"/buckets/hospital/raw/{WORD}/scan.dcm", "/1,01", "/2,01", "/3,01637037d6", "/api/plugin/status", "/health",
    "/object-store/users", "/api/users", "/api/s3/buckets",
)  # fmt: skip


def test_no_port_but_s3_answers_without_the_certificate(folder: Path, tmp_path: Path) -> None:
    found = ports(folder)
    foreign = with_an_own_certificate(tmp_path / "own")
    inner = {name: port for name, port in found.items() if name != "s3"}
    assert len(inner) == 9

    def tries() -> list[str]:
        answers = set()
        for port in inner.values():
            for path in PATHS:
                answers.add(ask(f"http://127.0.0.1:{port}{path}"))
                answers.add(ask(f"https://127.0.0.1:{port}{path}", context=without_certificate()))
            for method in ("DELETE", "POST", "PUT"):
                url = f"https://127.0.0.1:{port}/buckets/hospital/"
                answers.add(ask(url, method, b"x", without_certificate()))
                answers.add(ask(url.replace("https", "http"), method, b"x"))
                answers.add(ask(url, method, b"x", foreign))
            answers.add(grpc(port, without_certificate()))
            answers.add(grpc(port, foreign))
        return list(answers)

    answers = as_another_user(tries)
    refusals = (
        r"400 .*HTTP request to an HTTPS server|SSLError|URLError|RemoteDisconnected|ConnectionResetError|refused"
    )
    assert [answer for answer in answers if not re.search(refusals, answer)] == []
    # The same questions are answered to who has the certificate: it is that which others lack.
    ours = certificates.client_context(folder / "store")
    assert ask(f"https://127.0.0.1:{found['master']}/dir/status", context=ours).startswith("200")
    assert WORD in ask(f"https://127.0.0.1:{found['filer']}/buckets/hospital/raw/{WORD}/scan.dcm", context=ours)
    ours.set_alpn_protocols(["h2"])
    assert grpc(found["filer.grpc"], ours) == "answers"


def grpc(port: int, context: ssl.SSLContext) -> str:
    """Say whether a gRPC port takes an HTTP/2 connection."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            return "answers" if secured.recv(9) else "refused: closed"
    except OSError as error:
        return f"refused: {type(error).__name__}"


def test_the_servers_own_shell_gets_no_keys_and_no_names(folder: Path) -> None:
    found = ports(folder)
    program = os.open(process._weed(), os.O_RDONLY)
    master = f"127.0.0.1:{found['master']}.{found['master.grpc']}"
    filer = f"127.0.0.1:{found['filer']}.{found['filer.grpc']}"
    given = f"s3.configure\nfs.ls /buckets/hospital\nfs.cat /buckets/hospital/raw/{WORD}/scan.dcm\nvolume.list\n"
    environment = {"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"}
    arguments = ["weed", "shell", f"-master={master}", f"-filer={filer}"]

    def shell() -> str:
        reading, writing = os.pipe()
        asked, asking = os.pipe()
        child = os.fork()
        if child == 0:
            os.chdir("/tmp")
            os.dup2(asked, 0)
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            os.set_inheritable(program, True)
            os.execve(program, arguments, environment)
        os.close(writing)
        os.write(asking, given.encode())
        os.close(asking)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        signal.alarm(4)  # it goes on trying
        with os.fdopen(reading, "rb") as pipe:
            return pipe.read().decode(errors="replace")

    told = as_another_user(shell)
    secret = embedded.credentials(folder)
    for word in (secret.access_key, secret.secret_key, WORD, "hospital\\n", "scan.dcm"):
        assert word not in told
    os.close(program)


def test_s3_refuses_whoever_has_no_credentials(folder: Path) -> None:
    endpoint = f"http://127.0.0.1:{ports(folder)['s3']}"
    key = f"{endpoint}/hospital/raw/{WORD}/scan.dcm"

    def tries() -> list[str]:
        asked = [("GET", endpoint), ("GET", f"{endpoint}/hospital"), ("GET", f"{endpoint}/hospital?list-type=2")]
        asked += [(method, key) for method in ("GET", "HEAD", "DELETE")]
        asked += [(method, f"{endpoint}/hospital") for method in ("PUT", "DELETE")]
        asked += [
            ("GET", f"{key}?X-Amz-Signature=0"),
            ("GET", f"{endpoint}/metrics"),
            ("GET", f"{endpoint}/debug/pprof/"),
        ]
        answers = [ask(url, method) for method, url in asked] + [ask(key, "PUT", b"x")]
        answers += [ask(f"{key}?uploads", "POST", b""), ask(f"{endpoint}/hospital?delete", "POST", b"<Delete/>")]
        return [*answers, ask(endpoint, "POST", b"Action=CreateAccessKey&UserName=boneseg")]

    answers = as_another_user(tries)
    assert [answer for answer in answers if not re.match("40[0-9] ", answer)] == []
    assert sum(answer.startswith("403") for answer in answers) >= len(answers) - 2
    assert not any(PATIENT.decode() in answer for answer in answers)
    store = ObjectStore(endpoint, "hospital", embedded.credentials(folder))
    assert store.read(f"raw/{WORD}/scan.dcm") == PATIENT


def test_no_file_and_no_socket_can_be_opened(folder: Path) -> None:
    inside = list(folder.rglob("*"))
    assert any(path.suffix == ".dat" for path in inside)
    assert any("objects" in path.parts for path in inside)
    sockets = [path for port in ports(folder).values() for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]
    assert len(sockets) >= 4
    running = embedded.status(folder)
    assert running is not None

    def tries() -> list[str]:
        opened = []
        for path in [folder, *inside, Path(f"/proc/{running.pid}/environ"), Path(f"/proc/{running.pid}/fd")]:
            try:
                list(path.iterdir()) if path.is_dir() else path.read_bytes()
                opened.append(str(path))
            except OSError:
                continue
        for path in sockets:
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(path))
                    opened.append(str(path))
                except PermissionError:
                    continue
        return opened

    assert as_another_user(tries) == []
    open_to_others = [path for path in [folder, *inside, *sockets] if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    # The server gives this note on a volume rights of its own; the next start takes them away.
    assert [path for path in open_to_others if path.suffix != ".vif"] == []
    secret = embedded.credentials(folder).secret_key
    assert secret not in Path(f"/proc/{running.pid}/cmdline").read_text()


def test_a_store_of_an_earlier_version_is_shut_and_keeps_its_objects(tmp_path: Path) -> None:
    """An earlier version started its server without certificates, and left its files to the umask."""
    home = tmp_path / "work" / "store"
    home.mkdir(parents=True)
    key = {"accessKey": "old", "secretKey": "secret"}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "boneseg", "credentials": [key], "actions": actions}
    (home / process.CREDENTIALS).write_text(json.dumps({"identities": [identity]}))
    chosen = embedded.port_numbers.choose() | {"admin.grpc": embedded.port_numbers.choose()["s3.grpc"]}
    before = os.umask(0o022)
    live = (home / "live.lock").open("ab")
    try:
        process.fcntl.flock(live, process.fcntl.LOCK_EX)
        (home / "data").mkdir()
        with (home / "store.log").open("wb") as log:
            old = subprocess.Popen(
                process._command(home, chosen, process.LOOPBACK),
                cwd=tmp_path,
                stdout=log,
                stderr=log,
                pass_fds=[live.fileno()],
            )
        live.close()
        os.umask(before)
        note = {"endpoint": f"http://127.0.0.1:{chosen['s3']}", "pid": old.pid, "ports": chosen}
        (home / "state.json").write_text(json.dumps(note | {"folder": str(home.parent)}))
        store = ObjectStore(note["endpoint"], "bucket", embedded.credentials(home.parent))
        assert process._within(30, lambda: ask(f"{note['endpoint']}/healthz").startswith("200"))
        store.ensure_bucket()
        store.write("kept", b"object")
        assert ask(f"http://127.0.0.1:{chosen['filer']}/buckets/bucket/kept") == "200 b'object'"  # as it was: open

        running = embedded.start(home.parent)
        assert old.wait(30) == 0
        assert running.endpoint != note["endpoint"]
        assert ObjectStore(running.endpoint, "bucket", embedded.credentials(home.parent)).read("kept") == b"object"
        assert ask(f"http://127.0.0.1:{ports(home.parent)['filer']}/buckets/bucket/kept").startswith("400")
        assert not [path for path in home.parent.rglob("*") if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    finally:
        os.umask(before)
        embedded.stop(home.parent)
