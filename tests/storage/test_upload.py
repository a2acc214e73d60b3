"""A folder goes into the bucket once."""

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from boneseg.cli import cli
from boneseg.errors import DataError, StoreError
from boneseg.storage.cache import Cache
from boneseg.storage.client import PART_BYTES, ObjectInfo, ObjectStore
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace


def test_only_new_and_changed_files_are_sent(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "one").mkdir(parents=True)
    (folder / "one" / "small").write_bytes(b"small")
    (folder / "one" / "empty").write_bytes(b"")
    (folder / ".hidden").write_bytes(b"not sent")
    large = np.random.default_rng(0).bytes(PART_BYTES + 1000)  # sent in two parts
    (folder / "large").write_bytes(large)

    assert upload_folder(workspace.store, folder, "raw/") == 3
    assert workspace.store.read("raw/large") == large
    assert upload_folder(workspace.store, folder, "raw/") == 0
    (folder / "one" / "small").write_bytes(b"SMALL")
    assert upload_folder(workspace.store, folder, "raw/") == 1
    assert workspace.store.read("raw/one/small") == b"SMALL"


@pytest.mark.parametrize("make", [False, True], ids=["missing", "empty"])
def test_a_folder_without_files_is_named(workspace: Workspace, tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "data"
    if make:
        folder.mkdir()
    with pytest.raises(DataError, match=str(folder)):
        upload_folder(workspace.store, folder, "raw/")


NAMES = [
    "with space", "plus+plus", "percent%41%2F", "a&b;c=d,e", "hash#q?x",
    "quote'\"x", "[b]{c}(d)", "ภาษาไทย 患者", "dot.",
    "tilde~^`", "back\\slash", " lead", "..two", "three...", "-dash", "trail ", "new\nline", "e\u0301", "\u00e9",
]  # fmt: skip


def test_files_of_any_name_come_back_as_they_are(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for number, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        (folder / name / f"im {name}.dcm").write_bytes(bytes([number]))
    assert upload_folder(workspace.store, folder, "raw/") == len(NAMES)
    listed = {item.key: item for item in workspace.store.list("raw/")}
    keys = [f"raw/{name}/im {name}.dcm".replace("\\", "/") for name in NAMES]  # a backslash is a slash to the store
    assert set(listed) == set(keys)
    cache = Cache(workspace.cache, workspace.store)
    for number, key in enumerate(keys):
        path, _ = cache.fetch_new(listed[key])
        assert path.read_bytes() == bytes([number])
        assert path.is_relative_to(workspace.cache)
    assert upload_folder(workspace.store, folder, "raw/") == 0


@pytest.mark.parametrize("key", ["raw/../x", "raw/./x", "..", "raw/.."])
def test_keys_that_lead_elsewhere_are_refused_before_they_travel(
    workspace: Workspace, tmp_path: Path, key: str
) -> None:
    with pytest.raises(StoreError, match="give the object another name"):
        workspace.store.write(key, b"x")
    with pytest.raises(StoreError, match="give the object another name"):
        Cache(workspace.cache, workspace.store).fetch_new(ObjectInfo(key, 1, ""))
    assert list(workspace.store.list()) == []


def test_a_file_that_cannot_be_sent_is_named(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b").write_bytes(b"x")
    (folder / "a\\b").write_bytes(b"y")
    with pytest.raises(DataError, match="become one object"):
        upload_folder(workspace.store, folder, "raw/")
    (folder / "a\\b").unlink()
    broken = os.fsencode(folder) + b"/not-utf8-\xff"
    with open(broken, "wb"):  # noqa: PTH123
        pass
    with pytest.raises(DataError, match=r"not-utf8.*rename it"):
        upload_folder(workspace.store, folder, "raw/")


def test_an_upload_that_was_broken_off_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(5):
        (folder / str(number)).write_bytes(bytes(10))

    class Breaking(ObjectStore):
        def upload(self, path: Path, key: str, content_type: str = "") -> str:
            if key.endswith("3"):
                raise KeyboardInterrupt
            return super().upload(path, key)

    breaking = Breaking(workspace.store.endpoint, workspace.store.bucket, workspace.store.credentials)
    with pytest.raises(KeyboardInterrupt):
        upload_folder(breaking, folder, "raw/", parallel=1)
    assert upload_folder(workspace.store, folder, "raw/") in (1, 2)
    assert len(list(workspace.store.list("raw/"))) == 5


def test_upload_makes_the_bucket_of_an_external_endpoint(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BONESEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BONESEG_S3_ENDPOINT", workspace.store.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", workspace.store.credentials.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", workspace.store.credentials.secret_key)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"x")
    settings = ["--set", f"store.bucket={workspace.store.bucket}-new"]
    asked = CliRunner().invoke(cli, ["upload", str(tmp_path / "data"), *settings])
    assert asked.output.endswith(f"1 files sent to s3://{workspace.store.bucket}-new/raw/\n")
    # Any other command takes a bucket that is not there for a wrong name.
    wrong = CliRunner().invoke(cli, ["pull", "--set", "store.bucket=elsewhere"])
    assert isinstance(wrong.exception, StoreError)
    assert "bucket elsewhere does not exist" in str(wrong.exception)
