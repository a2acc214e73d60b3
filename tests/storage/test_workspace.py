"""A workspace on another machine is that machine's folder on the same bucket."""

import os
import pickle
import stat
from pathlib import Path

import pytest

from boneseg.errors import SettingsError
from boneseg.settings.loading import NODE_VARIABLE, work_folder
from boneseg.storage.client import Credentials, ObjectStore
from boneseg.storage.workspace import Workspace


@pytest.fixture
def sent(tmp_path: Path) -> bytes:
    store = ObjectStore("http://127.0.0.1:1", "pelvis", Credentials("key", "secret"))
    return pickle.dumps(Workspace(store, tmp_path / "caller", "data/"))


def test_a_worker_of_this_machine_keeps_the_callers_folder(sent: bytes, tmp_path: Path) -> None:
    assert pickle.loads(sent).folder == tmp_path / "caller"


def test_a_node_works_in_its_own_folder(sent: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NODE_VARIABLE, "1")
    monkeypatch.setenv("BONESEG_HOME", str(tmp_path / "node"))
    arrived = pickle.loads(sent)
    assert arrived.folder == tmp_path / "node"
    assert (arrived.store.bucket, arrived.raw_prefix) == ("pelvis", "data/")
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o700


def test_a_node_without_one_uses_the_home_and_not_the_folder_in_which_ray_runs_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NODE_VARIABLE, "1")
    monkeypatch.delenv("BONESEG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert work_folder() == tmp_path / ".boneseg"


def test_a_node_without_home_refuses_a_temporary_folder_that_is_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NODE_VARIABLE, "1")
    monkeypatch.delenv("BONESEG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "absent"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    place = tmp_path / f"boneseg-{os.geteuid()}"
    assert work_folder() == place
    (tmp_path / "elsewhere").mkdir()
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="set BONESEG_HOME on the nodes"):
        work_folder()
