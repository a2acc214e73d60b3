"""Fixtures every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from boneseg.ray_cluster.environment import before_ray
from boneseg.storage.workspace import Workspace

# Seconds for each network; tests of the check itself set it otherwise.
os.environ.setdefault("BONESEG_STEP_CHECK", "0")
before_ray()  # some tests import Ray themselves


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
