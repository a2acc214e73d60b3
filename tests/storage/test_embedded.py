import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from boneseg.errors import StoreError
from boneseg.settings.schema import StoreSettings
from boneseg.storage import embedded
from boneseg.storage.client import Credentials, ObjectStore
from boneseg.storage.embedded import ports, process


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "work"
    embedded.stop(tmp_path / "work")


def test_store_keeps_objects_and_credentials_over_a_restart(folder: Path) -> None:
    first = embedded.start(folder)
    secret = embedded.credentials(folder)
    store = ObjectStore(first.endpoint, "bucket", secret)
    store.ensure_bucket()
    store.write("a/b.txt", b"kept")
    assert embedded.stop(folder)
    assert embedded.status(folder) is None
    second = embedded.start(folder)
    assert embedded.credentials(folder) == secret
    assert second.endpoint == first.endpoint
    assert ObjectStore(second.endpoint, "bucket", secret).read("a/b.txt") == b"kept"


def test_restart_works_when_its_ports_are_taken(folder: Path) -> None:
    first = embedded.start(folder)
    store = ObjectStore(first.endpoint, "bucket", embedded.credentials(folder))
    store.ensure_bucket()
    store.write("a/b.txt", b"kept")
    embedded.stop(folder)
    with ExitStack() as taken:
        for port in json.loads((folder / "store" / "state.json").read_text())["ports"].values():
            blocker = taken.enter_context(socket.socket())
            blocker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            blocker.bind(("127.0.0.1", port))
            blocker.listen()
        second = embedded.start(folder)
        assert second.endpoint != first.endpoint
        moved = ObjectStore(second.endpoint, "bucket", embedded.credentials(folder))
        assert moved.read("a/b.txt") == b"kept"
        embedded.stop(folder)


def test_start_is_idempotent_also_for_callers_at_the_same_time(folder: Path) -> None:
    pids = []
    threads = [threading.Thread(target=lambda: pids.append(embedded.start(folder).pid)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 4
    assert len(set(pids)) == 1


def test_stop_leaves_no_process_and_no_socket(folder: Path) -> None:
    running = embedded.start(folder)
    assert sockets(ports_of(folder))
    assert embedded.stop(folder)
    assert not embedded.stop(folder)
    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, 0)
    assert sockets(ports_of(folder)) == []


def sockets(ports: Iterable[int]) -> list[Path]:
    return [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*{port}*")]


def ports_of(folder: Path) -> list[int]:
    return list(json.loads((folder / "store" / "state.json").read_text())["ports"].values())


def test_a_server_ended_by_others_leaves_no_socket_once_its_store_is_used_again(folder: Path) -> None:
    """It removes but some of its sockets where it is told to end; those of S3 and filer lie in its own folder."""
    running = embedded.start(folder)
    for service in ("s3", "filer"):
        port = json.loads((folder / "store" / "state.json").read_text())["ports"][service]
        assert not Path(f"/tmp/seaweedfs-{service}-{port}.sock").exists()
        assert (folder / "store" / f"{service}.sock").is_socket()
    os.kill(running.pid, signal.SIGTERM)
    os.waitpid(running.pid, 0)
    embedded.stop(folder)
    assert sockets(ports_of(folder)) == []
    assert embedded.start(folder).pid != running.pid


def test_a_killed_store_is_noticed_leaves_no_socket_and_starts_again(folder: Path) -> None:
    running = embedded.start(folder)
    os.kill(running.pid, signal.SIGKILL)
    os.waitpid(running.pid, 0)
    assert embedded.status(folder) is None
    assert sockets(ports_of(folder))
    assert not embedded.stop(folder)
    assert sockets(ports_of(folder)) == []
    assert embedded.start(folder).pid != running.pid


def test_a_running_store_is_found_whatever_became_of_its_note(folder: Path) -> None:
    running = embedded.start(folder)
    note = folder / "store" / "state.json"
    # The starter was killed before it noted the new process, and the old number is another's by now.
    foreign = json.dumps(json.loads(note.read_text()) | {"pid": os.getpid()})
    for damaged in ("", "{", "[]", '{"endpoint": 1, "pid": "x", "ports": {}}', foreign):
        note.write_text(damaged)
        assert embedded.status(folder) == running
    note.unlink()
    assert embedded.start(folder) == running
    assert embedded.stop(folder)
    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, 0)


def test_a_store_whose_starter_was_killed_is_taken_over(folder: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from boneseg.storage.embedded import process\n"
        "process.wait_until_ready = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"from boneseg.storage import embedded; embedded.start(Path({str(folder)!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    running = embedded.start(folder)
    ObjectStore(running.endpoint, "bucket", embedded.credentials(folder)).ensure_bucket()


def test_a_store_that_hangs_is_killed_and_started_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "HUNG_SECONDS", 0.2)
    monkeypatch.setattr(process, "STOP_SECONDS", 0.2)
    first = embedded.start(folder)
    os.kill(first.pid, signal.SIGSTOP)
    second = embedded.start(folder)
    assert second.pid != first.pid
    os.kill(second.pid, signal.SIGSTOP)
    assert embedded.stop(folder)


def test_ports_taken_at_the_last_moment_are_chosen_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.start(folder)
    embedded.stop(folder)
    with socket.socket() as blocker:
        # On another address: the server wants its ports on no interface to be taken.
        blocker.bind(("127.0.0.2", ports_of(folder)[0]))
        blocker.listen()
        really = ports.free
        answers = iter([True])
        monkeypatch.setattr(ports, "free", lambda *asked: next(answers, None) or really(*asked))
        assert embedded.start(folder).endpoint.endswith(str(ports_of(folder)[0]))
        assert blocker.getsockname()[1] not in ports_of(folder)


def test_stale_state_never_leads_to_a_foreign_process(folder: Path) -> None:
    embedded.start(folder)
    embedded.stop(folder)
    state = folder / "store" / "state.json"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as foreign:
        state.write_text(json.dumps(json.loads(state.read_text()) | {"pid": foreign.pid}))
        assert embedded.status(folder) is None
        assert not embedded.stop(folder)
        assert foreign.poll() is None
        foreign.communicate(b"\n")


def test_store_outlives_the_process_that_started_it(folder: Path) -> None:
    code = f"from pathlib import Path; from boneseg.storage import embedded; embedded.start(Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)
    running = embedded.status(folder)
    assert running is not None
    assert os.getsid(running.pid) != os.getsid(0)  # Ctrl-C in this terminal does not reach it
    assert ObjectStore(running.endpoint, "bucket", embedded.credentials(folder)).exists("x") is False


def test_everything_listens_on_loopback_only(folder: Path) -> None:
    running = embedded.start(folder)
    net = Path(f"/proc/{running.pid}/net/tcp")
    if not net.exists():
        pytest.skip("needs /proc")
    sockets = {str(link.readlink()) for link in Path(f"/proc/{running.pid}/fd").iterdir() if link.is_symlink()}
    lines = [line.split() for table in ("tcp", "tcp6") for line in net.with_name(table).read_text().splitlines()[1:]]
    listening = {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}
    assert {address.split(":")[0] for address in listening} == {"0100007F"}
    assert {int(address.split(":")[1], 16) for address in listening} <= set(ports_of(folder))


def test_credentials_are_random_private_and_needed(folder: Path, tmp_path: Path) -> None:
    running = embedded.start(folder)
    secret = embedded.credentials(folder)
    assert stat.S_IMODE((folder / "store" / "s3.json").stat().st_mode) == 0o600
    assert secret.secret_key not in (folder / "store" / "store.log").read_text()
    assert secret.secret_key not in repr(secret)
    for wrong in (Credentials(secret.access_key, "wrong"), Credentials("nobody", "wrong")):
        with pytest.raises(StoreError, match=r"refuses the credentials.*AWS_ACCESS_KEY_ID"):
            ObjectStore(running.endpoint, "bucket", wrong).ensure_bucket()


def test_many_buckets_fit(folder: Path) -> None:
    running = embedded.start(folder)
    for number in range(12):
        store = ObjectStore(running.endpoint, f"bucket-{number}", embedded.credentials(folder))
        store.ensure_bucket()
        store.write("x", b"1" * 1000)
    assert sum(1 for _ in store.list()) == 1


def test_failed_start_quotes_the_log(folder: Path) -> None:
    (folder / "store").mkdir(parents=True)
    (folder / "store" / "s3.json").write_text("{ not a config")
    with pytest.raises(StoreError, match=r"ended while starting: .*\(log: .*store.log\)"):
        embedded.start(folder)
    assert embedded.status(folder) is None


def test_full_disk_is_told_before_starting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "MIN_FREE_BYTES", 2**70)
    with pytest.raises(StoreError, match="free some space"):
        embedded.start(folder)


def test_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot keep the object store there"):
        embedded.start(tmp_path / "file")


def test_open_store_without_a_store_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(embedded.ENDPOINT_VARIABLE, raising=False)
    with pytest.raises(StoreError, match="boneseg store start"):
        embedded.open_store(StoreSettings(), tmp_path)


def test_open_store_prefers_the_endpoint_given(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(embedded.ENDPOINT_VARIABLE, raising=False)
    running = embedded.status(store_folder)
    assert running is not None
    assert embedded.open_store(StoreSettings(), store_folder).endpoint == running.endpoint
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "two")
    monkeypatch.setenv(embedded.ENDPOINT_VARIABLE, "http://127.0.0.1:9")
    opened = embedded.open_store(StoreSettings(), store_folder)
    assert (opened.endpoint, opened.credentials) == ("http://127.0.0.1:9", Credentials("one", "two"))
    settings = StoreSettings(endpoint="https://127.0.0.1:10")
    assert embedded.open_store(settings, store_folder).endpoint == "https://127.0.0.1:10"


def test_open_store_needs_credentials_for_an_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID is not set"):
        embedded.open_store(StoreSettings(endpoint="http://127.0.0.1:9"), tmp_path)


def test_endpoint_without_scheme_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(embedded.ENDPOINT_VARIABLE, "s3.example.org")
    with pytest.raises(StoreError, match="must start with http"):
        embedded.open_store(StoreSettings(), tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address of every Linux machine")
def test_store_listens_where_it_is_told_and_nowhere_else(folder: Path) -> None:
    first = embedded.start(folder, "127.0.0.2")
    assert first.endpoint.startswith("http://127.0.0.2:")
    store = ObjectStore(first.endpoint, "bucket", embedded.credentials(folder))
    store.ensure_bucket()
    store.write("a/b.txt", b"kept")
    assert embedded.start(folder) == first
    with pytest.raises(StoreError, match=r"listens on 127\.0\.0\.2: stop it"):
        embedded.start(folder, "127.0.0.1")
    with pytest.raises(StoreError, match="credentials"):
        ObjectStore(first.endpoint, "bucket", Credentials("somebody", "else")).read("a/b.txt")
    ours = json.loads((folder / "store" / "state.json").read_text())["ports"].values()
    for port in ours:
        with socket.socket() as elsewhere, pytest.raises(ConnectionRefusedError):
            elsewhere.connect(("127.0.0.3", port))  # the server itself also listens on 127.0.0.1
    (folder / "store" / "state.json").unlink()  # its process tells the address too
    assert embedded.status(folder) == first
    embedded.stop(folder)
    second = embedded.start(folder)
    assert second.endpoint.startswith("http://127.0.0.1:")
    assert ObjectStore(second.endpoint, "bucket", embedded.credentials(folder)).read("a/b.txt") == b"kept"


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "::", "head", ""])
def test_store_listens_on_no_address_that_others_could_not_name(folder: Path, address: str) -> None:
    with pytest.raises(StoreError, match="--listen"):
        embedded.start(folder, address)
    assert not folder.exists()
