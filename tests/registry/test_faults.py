"""Publishing that is stopped, doubled or met by damage ends as if nothing had happened."""

import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boneseg.errors import ModelError
from boneseg.registry import database
from boneseg.registry.client import Registry
from boneseg.registry.publish import PublishResult, publish, resolve
from boneseg.settings.schema import RunSettings
from boneseg.storage import layout
from boneseg.storage.client import ObjectStore
from boneseg.storage.workspace import Workspace
from tests.registry.factory import BETTER, GOOD, client_of, upload_a_model, write_an_evaluation

SETTINGS = RunSettings()
Job = Callable[[], PublishResult]


@pytest.fixture
def jobs(workspace: Workspace, dataset: str) -> list[Job]:
    """Publish a good model, then a better one."""

    def job(seed: int, dice: dict[str, float]) -> Job:
        uri, model_hash = upload_a_model(workspace, seed)
        evaluation = write_an_evaluation(workspace, model_hash, dice)
        return lambda: publish(workspace, uri, evaluation, dataset, SETTINGS)

    return [job(1, GOOD), job(2, BETTER)]


def outcome(workspace: Workspace) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """What a person finds in the registry: versions with their models, and aliases."""
    client = client_of(workspace)
    versions = sorted(client.search_model_versions("name = 'bone'"), key=lambda found: int(found.version))
    aliases = {alias: str(version) for alias, version in client.get_registered_model("bone").aliases.items()}
    assert all("decided" in found.tags for found in versions)
    return [(str(found.version), found.source) for found in versions], aliases


STEPS = [
    (Registry, "log_run"),
    (Registry, "create_version"),
    (Registry, "describe"),
    (Registry, "tag"),
    (Registry, "set_alias"),
    (ObjectStore, "write_if"),
    (ObjectStore, "write"),
]


@pytest.mark.parametrize(
    ("first", "before"), [(0, True), (0, False), (1, False)], ids=["before first", "after first", "after second"]
)
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_stopped_at_any_step_and_run_again_it_ends_the_same(
    first: int,
    before: bool,
    owner: type,
    name: str,
    workspace: Workspace,
    jobs: list[Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for job in jobs[:first]:
        job()
    real = getattr(owner, name)

    def stopped(*given: object, **named: object) -> object:
        if not before:
            real(*given, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stopped)
        with pytest.raises(KeyboardInterrupt):
            jobs[first]()
    results = [job() for job in jobs[first:]]
    assert results[-1].champion == "bone:2"
    versions, aliases = outcome(workspace)
    assert [version for version, _ in versions] == ["1", "2"]
    assert aliases == {"challenger": "2", "champion": "2"}
    assert not list(workspace.folder.glob("registry-*/"))


@pytest.mark.parametrize("together", [True, False], ids=["one folder", "two folders"])
def test_two_first_publishes_at_once_both_end_right(
    together: bool, workspace: Workspace, jobs: list[Job], dataset: str, tmp_path: Path
) -> None:
    spaces = [workspace, workspace if together else Workspace(workspace.store, tmp_path / "other")]
    made = []
    for space, (seed, dice) in zip(spaces, ((3, GOOD), (4, BETTER)), strict=True):
        uri, model_hash = upload_a_model(workspace, seed)
        made.append((space, uri, write_an_evaluation(workspace, model_hash, dice)))
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(publish, space, uri, where, dataset, SETTINGS) for space, uri, where in made]
        results = [future.result() for future in running]
    assert sorted(result.version for result in results) == ["1", "2"]
    versions, aliases = outcome(workspace)
    assert len(versions) == 2
    assert dict(versions)[aliases["champion"]] == made[1][1]  # the better one, whoever came first
    assert resolve(workspace, "bone@champion", SETTINGS).is_dir()


DAMAGE = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "no database": lambda data: b"<html>not found</html>",
    "a page overwritten": lambda data: data[:8192] + b"\xff" * 8192 + data[16384:],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_registry_is_healed_from_its_copy(kind: str, workspace: Workspace, jobs: list[Job]) -> None:
    jobs[0]()
    data = workspace.store.read(layout.REGISTRY_STATE)
    workspace.store.write(layout.REGISTRY_STATE, DAMAGE[kind](data))
    assert resolve(workspace, "bone@champion", SETTINGS).is_dir()
    assert jobs[1]().champion == "bone:2"
    assert database.fault_of(workspace.store.read(layout.REGISTRY_STATE), workspace) is None
    assert outcome(workspace)[1]


@pytest.mark.parametrize("kind", DAMAGE)
def test_without_a_copy_the_way_back_is_named_and_nothing_is_overwritten(
    kind: str, workspace: Workspace, jobs: list[Job]
) -> None:
    jobs[0]()
    damaged = DAMAGE[kind](workspace.store.read(layout.REGISTRY_STATE))
    workspace.store.write(layout.REGISTRY_STATE, damaged)
    workspace.store.delete(layout.REGISTRY_COPY)
    for action in (jobs[1], lambda: resolve(workspace, "bone@champion", SETTINGS)):
        with pytest.raises(ModelError, match=r"registry\.db is damaged .*put an older version of it back"):
            action()
    assert workspace.store.read(layout.REGISTRY_STATE) == damaged


def test_what_a_killed_publish_left_is_removed_by_the_next_and_what_is_in_use_stays(
    workspace: Workspace, jobs: list[Job]
) -> None:
    jobs[0]()
    with database.opened(workspace, None) as (_, path):
        left = path.parent.with_name("registry-left")
        shutil.copytree(path.parent, left)
        jobs[1]()
        assert path.is_file()
        assert not left.exists()
    assert not list(workspace.folder.glob("registry-*/"))


def test_the_registry_knows_no_path_of_this_machine(
    workspace: Workspace, jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "Huber_Anna_1950"
    home.mkdir()
    monkeypatch.chdir(home)
    jobs[0]()
    assert b"Huber" not in workspace.store.read(layout.REGISTRY_STATE)
    path = tmp_path / "earlier.db"  # as earlier versions wrote it
    path.write_bytes(workspace.store.read(layout.REGISTRY_STATE))
    with sqlite3.connect(path) as earlier:
        earlier.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", [str(home / "mlruns/0")]
        )
    earlier.close()
    assert b"Huber" in path.read_bytes()
    workspace.store.write(layout.REGISTRY_STATE, path.read_bytes())
    jobs[1]()
    for key in (layout.REGISTRY_STATE, layout.REGISTRY_COPY):
        assert b"Huber" not in workspace.store.read(key)
        assert str(home.parent).encode() not in workspace.store.read(key)


def test_looking_a_model_up_writes_nothing(workspace: Workspace, jobs: list[Job]) -> None:
    jobs[0]()
    before = workspace.store.stat(layout.REGISTRY_STATE)
    resolve(workspace, "bone@champion", SETTINGS)
    assert workspace.store.stat(layout.REGISTRY_STATE) == before


def test_a_registry_that_is_gone_comes_back_from_its_copy(workspace: Workspace, jobs: list[Job]) -> None:
    jobs[0]()
    workspace.store.delete(layout.REGISTRY_STATE)
    assert resolve(workspace, "bone@champion", SETTINGS).is_dir()
    assert jobs[1]().champion == "bone:2"
    assert len(outcome(workspace)[0]) == 2
