"""Fixtures every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from boneseg.machine import cpus
from boneseg.ray_cluster.environment import before_ray
from boneseg.storage.workspace import Workspace

# Seconds for each network; tests of the check itself set it otherwise.
os.environ.setdefault("BONESEG_STEP_CHECK", "0")
# Where tests run in several processes, each has its share of the cores: threads that wait for each other's turn on a
# core cost several times what the tests compute. Set before anything imports torch, and inherited by child processes.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    threads = max(1, cpus() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
before_ray()  # some tests import Ray themselves

RAY = ("ray_cluster", "tune", "train/test_ray")
"""Tests that start Ray, by the beginning of their path: one after the other, as two clusters do not start in time on
two cores, and one test looks at all folders of Ray's."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Where tests run in several processes, keep a module in one, and all that start Ray in one."""
    item.add_marker(pytest.mark.xdist_group(_group(item)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, begin with what takes longest."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = {_group(item) for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (_group(item) != "ray", _group(item) not in slow))  # stable


def _group(item: pytest.Item) -> str:
    module = item.path.relative_to(Path(__file__).parent).as_posix()
    return "ray" if module.startswith(RAY) else module


@pytest.fixture(scope="session")
def shared_series() -> Path:
    """Folder of real and semi-synthetic series; the test is skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    data = Path(os.environ.get("BONESEG_TEST_DATA", beside))
    series = data / "series" if (data / "series").is_dir() else data
    if not series.is_dir():
        pytest.skip(f"no CT series at {series}; set BONESEG_TEST_DATA to a folder with series/")
    return series


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder in which an embedded object store runs for the whole session."""
    from boneseg.storage import embedded

    folder = tmp_path_factory.mktemp("store")
    embedded.start(folder)
    yield folder
    embedded.stop(folder)


@pytest.fixture
def workspace(store_folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Workspace:
    """Return a workspace on a fresh, empty bucket of the embedded store."""
    from boneseg.identity import stable_hash
    from boneseg.storage import embedded
    from boneseg.storage.client import ObjectStore

    state = embedded.status(store_folder)
    assert state is not None
    bucket = f"t-{stable_hash(request.node.nodeid)}"
    store = ObjectStore(state.endpoint, bucket, embedded.credentials(store_folder))
    store.ensure_bucket()
    return Workspace(store, tmp_path / "work")
