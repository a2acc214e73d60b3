"""Work folders: made, earlier ones, and those that hold other things too."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from boneseg.atomic_write import atomic_write_bytes
from boneseg.storage.permissions import make_private, protect_work_folder, shut_tree
from boneseg.storage.workspace import Workspace


@pytest.fixture(autouse=True, params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def made(path: Path, rights: int = 0o755) -> Path:
    path.mkdir()
    path.chmod(rights)
    return path


def test_what_is_made_is_the_owners_only(tmp_path: Path) -> None:
    atomic_write_bytes(make_private(tmp_path / "a" / "b") / "file", b"x", private=True)
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/file")] == [0o700, 0o700, 0o600]
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_a_work_folder_is_shut_whether_new_empty_or_of_an_earlier_version(workspace: Workspace, tmp_path: Path) -> None:
    earlier = made(tmp_path / "earlier")
    made(earlier / "cache")
    (earlier / "latest-boneseg.json").write_text("{}")
    for folder in (tmp_path / "new", made(tmp_path / "empty"), earlier):
        Workspace(workspace.store, folder)
        assert mode(folder) == 0o700


def test_of_a_folder_with_other_things_only_ours_are_shut(tmp_path: Path) -> None:
    folder = made(tmp_path / "home")
    (folder / "thesis.txt").write_text("")
    (folder / "thesis.txt").chmod(0o644)
    made(folder / "runs")
    (folder / "mlflow-boneseg.db").write_text("")
    protect_work_folder(folder)
    assert mode(folder) == 0o755
    assert mode(folder / "thesis.txt") == 0o644
    assert {mode(folder / name) for name in ("cache", "models", "ray", "runs", "store")} == {0o700}
    assert mode(folder / "mlflow-boneseg.db") & 0o077 == 0


def test_a_tree_is_shut_and_links_out_of_it_are_not_followed(tmp_path: Path) -> None:
    outside = made(tmp_path / "outside")
    tree = made(tmp_path / "tree")
    (made(tree / "deep") / "file").write_text("")
    (tree / "link").symlink_to(outside)
    (tree / "dead").symlink_to(tmp_path / "nothing")
    shut_tree(tree)
    assert [mode(path) & 0o077 for path in (tree, tree / "deep", tree / "deep" / "file")] == [0, 0, 0]
    assert mode(outside) == 0o755
