"""Wrong endpoints of every kind: one cause, one sentence, one fix."""

import datetime
import http.server
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from boneseg.errors import StoreError
from boneseg.storage import client, faults
from boneseg.storage.client import Credentials, ObjectStore
from boneseg.storage.workspace import Workspace
from tests.storage.test_outages import Proxy


def certificate(folder: Path, days: tuple[int, int] = (-1, 30), address: str = "127.0.0.1") -> Path:
    """Write a self-signed certificate and its key, as people make them for a server in a hospital."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    now = datetime.datetime.now(datetime.UTC)
    start, end = (now + datetime.timedelta(days=day) for day in days)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), start, end)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    signed = made.add_extension(alternative, critical=False).sign(key, SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "cert.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + private)
    return path


class TlsProxy(Proxy):
    """A TLS way to the store."""

    def __init__(self, target: tuple[str, int], pem: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self.context = context
        super().__init__(target)

    def _requests(self, source: socket.socket, sink: socket.socket, state: dict[str, bytes]) -> None:
        try:
            secured = self.context.wrap_socket(source, server_side=True)
        except OSError:
            source.close()
            sink.close()
            return
        threading.Thread(target=super()._answers, args=(sink, secured, state), daemon=True).start()
        super()._requests(secured, sink, state)

    def _answers(self, source: socket.socket, sink: socket.socket, state: dict[str, bytes]) -> None:
        """Wait for the handshake; ``_requests`` answers."""


@contextmanager
def tls(workspace: Workspace, pem: Path) -> Iterator[ObjectStore]:
    parts = urlsplit(workspace.store.endpoint)
    proxy = TlsProxy((str(parts.hostname), int(parts.port or 0)), pem)
    try:
        yield store(f"https://127.0.0.1:{proxy.port}", workspace)
    finally:
        proxy.listener.close()
        proxy.cut()


def store(endpoint: str, workspace: Workspace) -> ObjectStore:
    return ObjectStore(endpoint, workspace.store.bucket, workspace.store.credentials)


def told(wrong: ObjectStore) -> str:
    with pytest.raises(StoreError) as raised:
        wrong.require_bucket()
    return str(raised.value)


def test_an_own_certificate_is_named_and_trusted_when_given(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    pem = certificate(tmp_path)
    with tls(workspace, pem) as secured:
        sentence = told(secured)
        assert "certificate" in sentence
        assert "SSL_CERT_FILE" in sentence
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        trusting = store(secured.endpoint, workspace)
        trusting.write("a", b"secured")
        assert trusting.read("a") == b"secured"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing.pem"))
        with pytest.raises(StoreError, match=r"SSL_CERT_FILE=.*nothing\.pem"):
            store(secured.endpoint, workspace)


@pytest.mark.parametrize(
    ("days", "address", "cause", "fix"),
    [
        ((-30, -1), "127.0.0.1", "has expired", "renew"),
        ((1, 30), "127.0.0.1", "does not hold yet", "clock"),
        ((-1, 30), "192.0.2.7", "for another name", "use the name"),
    ],
)
def test_certificates_that_do_not_hold_are_told_apart(
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    days: tuple[int, int],
    address: str,
    cause: str,
    fix: str,
) -> None:
    pem = certificate(tmp_path, days, address)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with tls(workspace, pem) as secured:
        sentence = told(secured)
    assert cause in sentence
    assert fix in sentence


def test_the_wrong_scheme_is_named(workspace: Workspace, tmp_path: Path) -> None:
    assert "write http://" in told(store(workspace.store.endpoint.replace("http", "https"), workspace))
    with tls(workspace, certificate(tmp_path)) as secured:
        assert "write https://" in told(store(secured.endpoint.replace("https", "http"), workspace))


class Page(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    do_HEAD = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("status", [200, 301, 404])
def test_a_server_that_is_no_store_is_named(workspace: Workspace, status: int) -> None:
    handler = type("Page", (Page,), {"status": status})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        sentence = told(store(f"http://127.0.0.1:{page.server_port}", workspace))
        page.shutdown()
    assert "not as an S3 store" in sentence


def test_no_name_no_port_and_no_answer_are_told_apart(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no machine is known by the name" in told(store("http://no-such-machine.invalid:9000", workspace))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        sentence = told(store(f"http://127.0.0.1:{unused.getsockname()[1]}", workspace))
        assert "connection refused" in sentence
        assert "boneseg store start" in sentence
    monkeypatch.setattr(client, "READ_SECONDS", 0.2)
    monkeypatch.setattr(client, "RETRIES", 0)
    monkeypatch.setattr(faults, "PROBE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sentence = told(store(f"http://127.0.0.1:{silent.getsockname()[1]}", workspace))
    assert "says nothing" in sentence


@pytest.mark.parametrize(
    "endpoint",
    ["http://anna@localhost:9", "http://anna:GEHEIM@localhost:9", "https://bad host:9", "http://", "http://host:port"],
)
def test_what_is_no_address_is_named_without_its_password(endpoint: str) -> None:
    with pytest.raises(StoreError, match=r"no address of an S3 store.*https://host:port") as told:
        ObjectStore(endpoint, "bucket", Credentials("one", "two"))
    assert "GEHEIM" not in str(told.value)


def test_wrong_credentials_are_told_apart_from_a_missing_bucket(workspace: Workspace) -> None:
    wrong = ObjectStore(workspace.store.endpoint, workspace.store.bucket, Credentials("nobody", "wrong"))
    assert "refuses the credentials" in told(wrong)
    missing = ObjectStore(workspace.store.endpoint, "no-such-bucket", workspace.store.credentials)
    assert "bucket no-such-bucket does not exist" in told(missing)
