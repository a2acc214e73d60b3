import pickle
import socket
import time
from pathlib import Path

import pytest

from boneseg.errors import StoreError
from boneseg.storage.client import Credentials, ObjectStore
from boneseg.storage.workspace import Workspace


def test_objects_are_written_listed_and_read_back(workspace: Workspace, tmp_path: Path) -> None:
    store = workspace.store
    assert store.write("a/x", b"one") == store.uri("a/x")
    (tmp_path / "file").write_bytes(b"two")
    store.upload(tmp_path / "file", "a/y")
    assert [(item.key, item.size) for item in store.list("a/")] == [("a/x", 3), ("a/y", 3)]
    assert store.key(store.uri("a/x")) == "a/x"
    store.download("a/y", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == b"two"
    store.delete("a/x")
    assert store.read_if_there("a/x") is None
    assert not store.exists("a/x")


def test_missing_object_leaves_no_file(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="a/x is not there"):
        workspace.store.download("a/x", tmp_path / "new" / "copy")
    assert list((tmp_path / "new").iterdir()) == []


def test_many_objects_are_listed_over_pages(workspace: Workspace) -> None:
    for number in range(1050):
        workspace.store.write(f"many/{number:04d}", b"")
    assert [item.key for item in workspace.store.list("many/")] == [f"many/{number:04d}" for number in range(1050)]


def test_store_travels_to_another_process(workspace: Workspace) -> None:
    workspace.store.write("a", b"one")
    assert pickle.loads(pickle.dumps(workspace.store)).read("a") == b"one"


def test_unreachable_endpoint_is_told_within_seconds() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        store = ObjectStore(f"http://127.0.0.1:{unused.getsockname()[1]}", "bucket", Credentials("a", "b"))
        before = time.monotonic()
        with pytest.raises(StoreError, match=r"does not answer .* check store.endpoint"):
            store.ensure_bucket()
        assert time.monotonic() - before < 5


def test_missing_bucket_is_named(workspace: Workspace) -> None:
    other = ObjectStore(workspace.store.endpoint, "no-such-bucket", workspace.store.credentials)
    with pytest.raises(StoreError, match="bucket no-such-bucket does not exist"):
        list(other.list())
    with pytest.raises(StoreError, match="bucket no-such-bucket does not exist"):
        other.require_bucket()


def test_uri_of_another_bucket_is_refused(workspace: Workspace) -> None:
    with pytest.raises(StoreError, match=r"set store\.bucket"):
        workspace.store.key("s3://elsewhere/x")


def test_patient_secret_is_made_once_and_can_be_given(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BONESEG_PATIENT_KEY", raising=False)
    assert workspace.patient_secret() == workspace.patient_secret()
    monkeypatch.setenv("BONESEG_PATIENT_KEY", "given")
    assert workspace.patient_secret() == b"given"
