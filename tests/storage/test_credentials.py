"""Credentials from everywhere a pod or a machine keeps them."""

import datetime
import http.server
import json
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from boneseg.errors import StoreError
from boneseg.storage import credentials as lookup
from boneseg.storage.client import Credentials, ObjectStore
from boneseg.storage.credentials import look_up
from boneseg.storage.workspace import Workspace

SECRET_TOKEN = "eyJ-the-pods-own-token"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which nothing names credentials."""
    import os

    for name in os.environ:
        if name.startswith(("AWS_", "MINIO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


class Issuer:
    """A server that hands out credentials, as STS and as the agent of a container do."""

    def __init__(self) -> None:
        self.status = 200
        self.lifetime = 3600
        self.pair = ("", "")
        self.token: str | None = None
        self.asked: list[str] = []
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                body = issuer.answer(sts=False)
                self._send(body)

            def do_POST(self) -> None:
                issuer.asked.append(self.path)
                self._send(issuer.answer(sts=True))

            def _send(self, body: bytes) -> None:
                self.send_response(issuer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, sts: bool) -> bytes:
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.lifetime)
        until = end.strftime("%Y-%m-%dT%H:%M:%SZ")
        key, secret = self.pair
        if not sts:
            found = {"AccessKeyId": key, "SecretAccessKey": secret, "Token": self.token, "Expiration": until}
            return json.dumps(found).encode()
        return (
            "<AssumeRoleWithWebIdentityResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'>"
            f"<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>"
            f"<SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{self.token or ''}</SessionToken>"
            f"<Expiration>{until}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
            "</AssumeRoleWithWebIdentityResponse>"
        ).encode()


@pytest.fixture
def issuer(workspace: Workspace) -> Iterator[Issuer]:
    made = Issuer()
    keys = workspace.store.credentials
    made.pair = (keys.access_key, keys.secret_key)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_session_tokens_of_the_environment_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "two")
    assert look_up().now() == Credentials("one", "two")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "three")
    assert look_up().now() == Credentials("one", "two", "three")
    assert "two" not in repr(look_up().now())
    assert "three" not in repr(look_up().now())


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_a_pair_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} - {missing}:
        monkeypatch.setenv(name, "x")
    with pytest.raises(StoreError, match=f"{missing} is not set"):
        look_up().now()


def test_none_at_all_says_where_they_may_stand() -> None:
    with pytest.raises(StoreError, match=r"AWS_ACCESS_KEY_ID is not set.*credentials"):
        look_up().now()


def test_profiles_of_the_shared_file_are_read_again_when_they_change(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / ".aws" / "credentials"
    file.parent.mkdir()
    file.write_text("[default]\naws_access_key_id = old\naws_secret_access_key = old\n")
    store = ObjectStore(workspace.store.endpoint, workspace.store.bucket)
    with pytest.raises(StoreError, match="refuses the credentials"):
        store.write("a", b"x")
    keys = workspace.store.credentials
    file.write_text(f"[default]\naws_access_key_id = {keys.access_key}\naws_secret_access_key = {keys.secret_key}\n")
    store.write("a", b"x")
    assert keys.secret_key.encode() not in pickle.dumps(store)
    assert pickle.loads(pickle.dumps(store)).read("a") == b"x"
    monkeypatch.setenv("AWS_PROFILE", "other")
    with pytest.raises(StoreError, match=r"profile other of .*credentials: nothing usable"):
        look_up().now()


def test_a_web_identity_is_exchanged_and_exchanged_again_when_it_ends(
    workspace: Workspace, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(SECRET_TOKEN)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/boneseg")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", issuer.url)
    issuer.lifetime = 5  # minio takes what holds less than ten seconds for expired
    store = ObjectStore(workspace.store.endpoint, workspace.store.bucket)
    store.write("a", b"x")
    asked = len(issuer.asked)
    issuer.lifetime = 3600
    for _ in range(3):
        assert store.read("a") == b"x"
    assert len(issuer.asked) == asked + 1
    given = parse_qs(urlsplit(issuer.asked[0]).query)
    assert given["WebIdentityToken"] == [SECRET_TOKEN]
    assert given["RoleArn"] == ["arn:aws:iam::1:role/boneseg"]


def test_a_refused_web_identity_is_named_without_the_token(
    workspace: Workspace, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(SECRET_TOKEN)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", issuer.url)
    issuer.status = 403
    with pytest.raises(StoreError, match=r"web identity.*status 403.*AWS_ROLE_ARN") as raised:
        ObjectStore(workspace.store.endpoint, workspace.store.bucket).read("a")
    assert raised.value.__suppress_context__
    issuer.server.server_close()
    with pytest.raises(StoreError) as away:
        look_up().now()
    for error in (raised.value, away.value):
        assert SECRET_TOKEN not in str(error) + repr(error.__cause__)


def test_the_role_of_a_container_is_asked_for(
    workspace: Workspace, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{issuer.url}/role")
    store = ObjectStore(workspace.store.endpoint, workspace.store.bucket)
    store.write("a", b"x")
    assert set(issuer.asked) == {"/role"}


def test_the_role_of_the_machine_is_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setattr(lookup, "CONNECT_SECONDS", 0.05)
    monkeypatch.setattr(lookup, "READ_SECONDS", 0.05)
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID is not set, and this machine has no role"):
        look_up().now()


def test_conditional_writes_carry_the_session_token_in_no_address(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            seen.append((self.path, self.headers.get("X-Amz-Security-Token", "")))
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("ETag", '"x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        given = Credentials("one", "two", "session-token")
        assert ObjectStore(f"http://127.0.0.1:{server.server_port}", "bucket", given).write_if("a", b"x", None)
        server.shutdown()
    assert seen == [("/bucket/a", "session-token")]
