"""A registry of MLflow's that takes no seconds to make."""

import shutil
from pathlib import Path

import pytest

from boneseg.registry import database
from boneseg.storage.workspace import Workspace
from tests.registry.factory import write_a_dataset


@pytest.fixture(scope="session")
def empty_registry(store_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an empty SQLite file with MLflow's tables, which take MLflow some seconds to make."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(autouse=True)
def _registry(workspace: Workspace, empty_registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace.folder.mkdir(exist_ok=True)
    if not any(empty_registry.iterdir()):
        with database.opened(Workspace(workspace.store, empty_registry), None):
            pass
    for path in empty_registry.iterdir():
        shutil.copy(path, workspace.folder)


@pytest.fixture
def dataset(workspace: Workspace) -> str:
    return write_a_dataset(workspace)
