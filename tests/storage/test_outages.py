"""A store that is away: waited for when it answered before, told at once when it never did."""

import logging
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from boneseg.errors import SettingsError, StoreError
from boneseg.storage import retry
from boneseg.storage.client import PART_BYTES, Credentials, ObjectStore
from boneseg.storage.retry import StoreAwayError
from boneseg.storage.workspace import Workspace


class Proxy:
    """A TCP way to the store that can be cut: refusing, or breaking off after so many bytes of answers."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.allowed: int | None = None
        """Bytes of answers until connections are broken; none = all."""
        self.swallow_answers = 0
        """How many answers to requests that start with PUT are lost."""
        self.away = False
        self.met = 0
        """Connections while it was away."""
        self.open: set[socket.socket] = set()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.away:
                self.met += 1
                client.close()
                continue
            server = socket.create_connection(self.target)
            self.open |= {client, server}
            state: dict[str, bytes] = {}
            threading.Thread(target=self._requests, args=(client, server, state), daemon=True).start()
            threading.Thread(target=self._answers, args=(server, client, state), daemon=True).start()

    def _requests(self, source: socket.socket, sink: socket.socket, state: dict[str, bytes]) -> None:
        try:
            while data := source.recv(65536):
                if data[:4] in (b"PUT ", b"GET ", b"HEAD", b"POST"):
                    state["method"] = data[:4]
                sink.sendall(data)
        except OSError:
            pass
        _close(source, sink)

    def _answers(self, source: socket.socket, sink: socket.socket, state: dict[str, bytes]) -> None:
        try:
            while data := source.recv(65536):
                if self.swallow_answers and state.get("method") == b"PUT ":
                    self.swallow_answers -= 1
                    break
                if self.allowed is not None:
                    data, self.allowed = data[: self.allowed], max(self.allowed - len(data), 0)
                    sink.sendall(data)
                    if self.allowed == 0:
                        self.allowed = None
                        break
                else:
                    sink.sendall(data)
        except OSError:
            pass
        _close(source, sink)

    def cut(self) -> None:
        self.away = True
        for end in list(self.open):
            _close(end)
        self.open.clear()

    def mend_after(self, connections: int) -> None:
        """Let through again once so many connections were refused."""

        def watch() -> None:
            while self.met < connections:
                time.sleep(0.005)
            self.away = False

        threading.Thread(target=watch, daemon=True).start()


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@pytest.fixture
def proxy(workspace: Workspace) -> Iterator[Proxy]:
    parts = urlsplit(workspace.store.endpoint)
    made = Proxy((str(parts.hostname), int(parts.port or 0)))
    yield made
    made.listener.close()
    made.cut()


@pytest.fixture
def store(workspace: Workspace, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The bucket by way of the proxy, which answered once."""
    monkeypatch.setattr(retry, "LONGEST_PAUSE_SECONDS", 0.05)
    found = ObjectStore(f"http://127.0.0.1:{proxy.port}", workspace.store.bucket, workspace.store.credentials)
    found.write("here", b"content")
    return found


VERBS: dict[str, Callable[[ObjectStore, Path], object]] = {
    "read": lambda store, _: store.read("here"),
    "read_versioned": lambda store, _: store.read_versioned("here"),
    "stat": lambda store, _: store.stat("here"),
    "list": lambda store, _: list(store.list()),
    "write": lambda store, _: store.write("new", b"x"),
    "write_if": lambda store, _: store.write_if("new", b"x", None),
    "update": lambda store, _: store.update("new", lambda _: b"x"),
    "delete": lambda store, _: store.delete("here"),
    "upload": lambda store, path: store.upload(path, "new"),
    "download": lambda store, path: store.download("here", path.with_name("copy")),
    "ensure_bucket": lambda store, _: store.ensure_bucket(),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_waits_and_goes_on(store: ObjectStore, proxy: Proxy, tmp_path: Path, verb: str) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    expected = VERBS[verb](ObjectStore(store.endpoint, store.bucket, store.credentials), tmp_path / "file")
    store.delete("new")
    if verb == "delete":
        store.write("here", b"content")
    proxy.cut()
    proxy.mend_after(6)
    assert VERBS[verb](store, tmp_path / "file") == expected
    assert proxy.met >= 6


def test_a_listing_that_breaks_off_goes_on_after_the_last_key(store: ObjectStore, proxy: Proxy) -> None:
    keys = [f"many/{number:04d}" for number in range(1010)]
    for key in keys:
        store.write(key, b"")
    found = []
    for item in store.list("many/"):
        found.append(item.key)
        if len(found) == 500:  # the second page is still to come
            proxy.cut()
            proxy.mend_after(3)
    assert found == keys


def test_a_download_that_breaks_off_fetches_the_rest(store: ObjectStore, proxy: Proxy, tmp_path: Path) -> None:
    data = os.urandom(6 * 2**20)
    store.write("big", data)
    proxy.allowed = 4 * 2**20
    info = store.download("big", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    assert info.size == len(data)


def test_a_download_of_what_changes_meanwhile_is_of_one_version(
    store: ObjectStore, workspace: Workspace, proxy: Proxy, tmp_path: Path
) -> None:
    old, new = b"o" * 6 * 2**20, b"n" * 5 * 2**20
    store.write("big", old)
    proxy.allowed = 3 * 2**20

    def change() -> None:
        while proxy.allowed is not None:
            time.sleep(0.001)
        proxy.away = True
        workspace.store.write("big", new)
        proxy.away = False

    changing = threading.Thread(target=change)
    changing.start()
    info = store.download("big", tmp_path / "copy")
    changing.join()
    content = (tmp_path / "copy").read_bytes()
    assert content in (old, new)
    now = workspace.store.stat("big")
    assert now is not None
    assert (info.etag == now.etag) == (content == new)


def test_an_upload_in_parts_that_breaks_off_arrives(store: ObjectStore, proxy: Proxy, tmp_path: Path) -> None:
    data = os.urandom(PART_BYTES + 2**20)
    (tmp_path / "big").write_bytes(data)
    proxy.swallow_answers = 2
    store.upload(tmp_path / "big", "big")
    assert store.read("big") == data


def test_a_conditional_write_whose_answer_was_lost_is_known_as_ours(store: ObjectStore, proxy: Proxy) -> None:
    proxy.swallow_answers = 1
    assert store.write_if("new", b"one", None)
    assert store.read("new") == b"one"
    _, etag = store.read_versioned("new")
    proxy.swallow_answers = 1
    assert store.write_if("new", b"two", etag)
    assert not store.write_if("new", b"three", None)


def test_a_conditional_write_that_lost_while_its_answer_was_lost_is_not_ours(
    store: ObjectStore, workspace: Workspace, proxy: Proxy
) -> None:
    workspace.store.write("new", b"theirs")
    proxy.swallow_answers = 1
    assert not store.write_if("new", b"theirs", None)  # the very content, but another's
    assert workspace.store.read("new") == b"theirs"


def test_the_wait_is_said_and_ends(
    store: ObjectStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(retry.LIMIT_VARIABLE, "2.5")
    monkeypatch.setattr(retry, "SAY_FIRST_SECONDS", 0.1)
    proxy.cut()
    with caplog.at_level(logging.WARNING), pytest.raises(StoreAwayError, match="does not answer"):
        store.read("here")
    assert len([line for line in caplog.messages if "waiting for it" in line]) == 1
    assert "here" not in caplog.text  # keys may be names of patients
    proxy.away = False
    with caplog.at_level(logging.WARNING):
        store.read("here")
    assert "answers again" in caplog.text


def test_patience_is_a_number_of_seconds(store: ObjectStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy.cut()
    for wrong in ("soon", "-1", "inf"):
        monkeypatch.setenv(retry.LIMIT_VARIABLE, wrong)
        with pytest.raises(SettingsError, match=retry.LIMIT_VARIABLE):
            store.read("here")


def test_a_store_that_never_answered_is_told_at_once_in_this_process_and_the_next(proxy: Proxy) -> None:
    proxy.cut()
    store = ObjectStore(f"http://127.0.0.1:{proxy.port}", "bucket", Credentials("a", "b"))
    for fresh in (store, pickle.loads(pickle.dumps(store))):
        with pytest.raises(StoreError, match="does not answer"):
            fresh.read("x")


def test_the_memory_of_an_answer_crosses_a_process_border(
    store: ObjectStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = pickle.dumps(store)
    monkeypatch.setattr(retry, "_answered", set())
    proxy.cut()
    proxy.mend_after(4)
    assert pickle.loads(sent).read("here") == b"content"
