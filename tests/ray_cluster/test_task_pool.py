"""Two Ray nodes on this machine: prepare and evaluate there give what they give here, whatever is killed meanwhile."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ray.cluster_utils import Cluster

from boneseg.dataset.prepare import PrepareResult, prepare
from boneseg.dataset.shards import load_dataset
from boneseg.errors import StoreError
from boneseg.evaluate.measure_series import ShardMeasurer, measure_shards
from boneseg.ingest.pull import pull
from boneseg.models.build import build_model
from boneseg.models.checkpoint import save_model, upload_model
from boneseg.pool import Need, Outcome
from boneseg.ray_cluster.task_pool import TaskPool
from boneseg.settings.schema import (
    EvaluateSettings,
    ModelSettings,
    PrepareSettings,
    PullSettings,
    StoreSettings,
    TrainSettings,
)
from boneseg.storage import embedded
from boneseg.storage.client import ObjectStore
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace
from tests.dataset.test_prepare import case
from tests.evaluate.given import history
from tests.ray_cluster import on_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def started() -> Cluster:
    """Start a node; Ray gives its processes half a minute, which a busy machine may need a second time."""
    arguments = {"num_cpus": 1, "include_dashboard": False}
    try:
        return Cluster(initialize_head=True, head_node_args=arguments)
    except Exception as error:  # Ray has no type for this one
        if "timed out during startup" not in str(error):
            raise
        return Cluster(initialize_head=True, head_node_args=arguments)


@dataclass(frozen=True)
class Bench:
    """A bucket of six sound series and a damaged one, and what became of them on this machine."""

    workspace: Workspace
    catalogue: str
    here: PrepareResult
    objects: dict[str, str]

    def listed(self) -> dict[str, str]:
        """Return what prepare wrote: key -> ETag."""
        store = self.workspace.store
        return {item.key: item.etag for place in ("shards/", "datasets/") for item in store.list(place)}

    def forget(self) -> None:
        """Remove what was made of the raw data, in the bucket and on this machine."""
        for key in self.listed():
            self.workspace.store.delete(key)
        shutil.rmtree(self.workspace.folder)


@pytest.fixture(scope="module")
def cluster(bench: Bench) -> Iterator[Cluster]:
    """Two nodes of one CPU each; the driver belongs to the first, so the second may be killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BONESEG_HOME", str(bench.workspace.folder))  # both nodes are this machine, and work in one folder
        given = started()
        try:
            given.add_node(num_cpus=1)
            patch.setenv("RAY_ADDRESS", given.address)
            yield given
        finally:
            given.shutdown()


@pytest.fixture(scope="module")
def bench(store_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Prepare on this machine; asked for before the cluster."""
    data = tmp_path_factory.mktemp("cases")
    for seed in range(6):
        case(data / f"case{seed}", seed)
    case(data / "damaged", 6, label_value=7)
    state = embedded.status(store_folder)
    assert state is not None
    store = ObjectStore(state.endpoint, "on-nodes", embedded.credentials(store_folder))
    store.ensure_bucket()
    workspace = Workspace(store, tmp_path_factory.mktemp("work") / "home")
    upload_folder(store, data, "raw/")
    catalogue = pull(workspace, StoreSettings(bucket="on-nodes"), PullSettings()).catalogue_uri
    made = Bench(workspace, catalogue, prepare(workspace, catalogue, PrepareSettings(parallel=1)), {})
    assert made.here.made == 6
    made.objects.update(made.listed())
    return made


def need(item: str) -> Need:
    return Need(1 << 20)


def mapped(items: list[str]) -> dict[str, Outcome[str, str]]:
    outcomes = list(TaskPool().map(on_nodes.node_of, items, need))
    assert sorted(outcome.item for outcome in outcomes) == sorted(items)
    return {outcome.item: outcome for outcome in outcomes}


def begun(folder: Path, word: str) -> dict[int, str]:
    """Return process -> node of all that began an item."""
    parts = [path.name.split("-") for path in folder.glob(f"{word}-*")]
    return {int(process): node for _, process, node in parts}


def alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + on_nodes.LONGEST_WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def test_a_dataset_is_the_same_shard_for_shard(bench: Bench, cluster: Cluster) -> None:
    bench.forget()
    there = prepare(bench.workspace, bench.catalogue, PrepareSettings())
    assert there == bench.here
    assert bench.listed() == bench.objects
    (damaged,) = (problem for problem in there.problems if problem.fatal)
    assert "label values 1, 2, 7 are unknown" in damaged.reason


def test_what_fails_goes_to_the_other_node_and_what_always_dies_costs_only_itself(
    cluster: Cluster, tmp_path: Path
) -> None:
    plain = [f"x{number}" for number in range(8)]
    once, always, refused, away = (f"{word} {tmp_path}" for word in ("once", "always", "refused", "away"))
    found = mapped([once, always, refused, away, *plain, "nested"])
    assert found["nested"].result == "False"
    assert found[always].lost == "its process was killed twice, on two nodes, probably for want of memory"
    assert {found[item].lost for item in (once, *plain)} == {""}
    assert all(found[item].result for item in plain)
    for word in ("once", "always", "refused", "away"):
        first, second = begun(tmp_path, word).values()
        assert first != second
    assert found[once].result is not None
    assert found[refused].result is not None
    assert isinstance(found[away].error, StoreError)


def test_an_interrupt_ends_the_tasks(cluster: Cluster, tmp_path: Path) -> None:
    def interrupt() -> None:
        until(lambda: len(begun(tmp_path, "hold*")) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        mapped([f"hold{number} {tmp_path}" for number in range(5)])
    sender.join()
    until(lambda: not any(alive(process) for process in begun(tmp_path, "hold*")))
    first, second = begun(tmp_path, "hold*").values()  # a task for each CPU, and no other was begun
    assert first != second


def test_a_model_is_measured_the_same(bench: Bench, cluster: Cluster, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ModelSettings(architecture="unet", encoder="mobilenet_v2")
    save_model(
        tmp_path,
        build_model(model),
        model=model,
        train=TrainSettings(),
        dataset_hash="d" * 16,
        fingerprint="f" * 16,
        run="r",
        best_epoch=2,
        history=history(),
    )
    uri = upload_model(bench.workspace, tmp_path)
    dataset = load_dataset(bench.workspace, bench.here.dataset_uri)
    shards = [entry.shard for entry in dataset.entries][:4]
    measurer = ShardMeasurer(bench.workspace, uri, dataset.scheme, EvaluateSettings())
    there = measure_shards(measurer, shards)
    for item in list(bench.workspace.store.list("evaluations/")):
        bench.workspace.store.delete(item.key)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS")
        assert measure_shards(measurer, shards) == there
    assert [series.content for series in there[0]] == [shard.shard for shard in shards]


def test_a_killed_process_and_a_lost_node_cost_no_series(
    bench: Bench, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one: it leaves one node."""
    bench.forget()
    folder = bench.workspace.folder
    folder.mkdir()
    (second,) = cluster.worker_nodes

    def kill() -> None:
        until(lambda: second.node_id in begun(folder, "held").values())
        cluster.remove_node(second, allow_graceful=False)
        (folder / "go").touch()

    monkeypatch.setattr("boneseg.dataset.make_shards.prepare_series", on_nodes.prepare_held)
    killer = threading.Thread(target=kill)
    killer.start()
    there = prepare(bench.workspace, bench.catalogue, PrepareSettings())
    killer.join()
    assert (folder / "died").exists()
    assert there == bench.here
    assert bench.listed() == bench.objects
