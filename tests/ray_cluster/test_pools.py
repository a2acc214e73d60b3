"""Where work on many items is done, and what is asked of a cluster for it; without one."""

import pytest

from boneseg.pool import Need
from boneseg.process_pool import ProcessPool
from boneseg.ray_cluster.environment import on_cluster
from boneseg.ray_cluster.pools import pool
from boneseg.ray_cluster.task_pool import Nodes, TaskPool
from boneseg.storage.workspace import Workspace

GIB = float(1 << 30)
SMALL, LARGE = {"CPU": 2.0, "memory": 4 * GIB}, {"CPU": 16.0, "memory": 64 * GIB}
HEAD, GPU = {"memory": 900 * GIB}, {"CPU": 8.0, "GPU": 2.0, "memory": 32 * GIB}


def test_an_address_decides(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert not on_cluster()
    assert isinstance(pool(workspace, here=2, preload="boneseg.pool"), ProcessPool)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert on_cluster()
    assert isinstance(pool(workspace, here=2, preload="boneseg.pool"), TaskPool)


def test_nothing_to_do_asks_for_no_cluster(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert list(pool(workspace, here=2, preload="boneseg.pool").map(str, [], lambda item: Need(1))) == []


def test_what_only_a_lost_node_had_fits_no_other() -> None:
    with_gpu = Nodes({"small": SMALL, "gpu": GPU})
    asked = with_gpu.request(Need(16 << 30, network=True))
    assert with_gpu.fitting(asked) == ["gpu"]
    alone = Nodes({"small": SMALL})
    assert alone.fitting(asked) == []
    assert alone.fitting(alone.request(Need(16 << 30, network=True))) == ["small"]


@pytest.mark.parametrize(
    ("nodes", "need", "factor", "asked"),
    [
        ([SMALL, LARGE], Need(2 << 30), 1, {"num_cpus": 1, "memory": 2 * GIB}),
        ([SMALL, LARGE], Need(2 << 30), 2, {"num_cpus": 1, "memory": 4 * GIB}),
        ([SMALL, LARGE], Need(99 << 30), 1, {"num_cpus": 1, "memory": 64 * GIB}),
        # A node without CPUs takes no work, however much memory it has.
        ([HEAD, SMALL], Need(99 << 30), 1, {"num_cpus": 1, "memory": 4 * GIB}),
        # Before a node has joined, the request says which kind is wanted.
        ([HEAD], Need(99 << 30), 1, {"num_cpus": 1, "memory": 99 * GIB}),
        # Every node can run the network; on a large one several series are measured at a time.
        ([SMALL, LARGE], Need(1 << 30, network=True), 1, {"num_cpus": 2, "memory": GIB}),
        ([SMALL, GPU], Need(1 << 30, network=True), 1, {"num_cpus": 1, "num_gpus": 1, "memory": GIB}),
        ([SMALL, GPU], Need(1 << 30), 1, {"num_cpus": 1, "memory": GIB}),
    ],
)
def test_an_item_asks_for_what_it_needs_and_no_more_than_a_node_has(
    nodes: list[dict[str, float]], need: Need, factor: int, asked: dict[str, float]
) -> None:
    assert Nodes({str(number): node for number, node in enumerate(nodes)}).request(need, factor) == asked
