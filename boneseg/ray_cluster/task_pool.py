"""Work on many items by Ray tasks: spread over the nodes, and tried on another one where a process or node is lost."""

from __future__ import annotations

import logging
import secrets
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import choice
from typing import Any, Generic

import ray
from ray import ObjectRef
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.experimental import internal_kv
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from boneseg.errors import StoreError
from boneseg.pool import Item, Need, Outcome, Result, attempt
from boneseg.ray_cluster.connect import cluster
from boneseg.storage.workspace import Workspace

AHEAD, LEAST_AHEAD = 2, 16
"""Items handed to Ray for each CPU, and at least: those that wait are what an autoscaler goes by."""
MOST_DEATHS, MOST_NODES_LOST = 2, 3
"""How often the process of an item, or the node under it, may be lost. A lost node is rarely the item's doing."""
LOOK_SECONDS = 10.0
"""How often it is looked whether the nodes changed while nothing is done."""
_SPACE = b"boneseg-tasks"
_RESOURCES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
"""Option of a task -> what nodes call it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Try:
    """An item on its way.

    Attributes:
        index: of the item.
        mark: name under which the cluster knows the node on which it runs.
        deaths: processes that it has cost.
        nodes_lost: under it.
        refused: times that the store failed it.
        out_of_memory: whether a node said that memory was what it lacked.
        nodes: where it failed before.
        asked: of Ray, for the try that is under way.
    """

    index: int
    mark: str = ""
    deaths: int = 0
    nodes_lost: int = 0
    refused: int = 0
    out_of_memory: bool = False
    nodes: frozenset[str] = field(default_factory=frozenset)
    asked: dict[str, float] = field(default_factory=dict)


class TaskPool:
    """The nodes of a Ray cluster, which is left again once the work is done.

    Args:
        workspace: that the work is done in; none = the work needs no store.
        at_once: items at the same time; 0 = as many as the nodes have CPUs and memory for.
    """

    def __init__(self, workspace: Workspace | None = None, at_once: int = 0) -> None:
        self._workspace = workspace
        self._at_once = at_once

    def map(
        self, work: Callable[[Item], Result], items: Sequence[Item], need: Callable[[Item], Need]
    ) -> Generator[Outcome[Item, Result], None, None]:
        """See ``pool.Pool``. A node takes no more items than its CPUs and its memory, as Ray counts them, allow."""
        if not items:
            return
        with cluster(workspace=self._workspace):
            nodes = Nodes.now()
            log.info("%d items go to %d nodes with %d CPUs", len(items), len(nodes.alive), nodes.total("CPU"))
            run = _Run(work, items, need, self._at_once)
            try:
                yield from run.outcomes()
            finally:
                run.cancel()


@dataclass(frozen=True)
class Nodes:
    """The nodes that are alive, each with what it has in all."""

    alive: dict[str, dict[str, float]]

    @classmethod
    def now(cls) -> Nodes:
        """Ask the cluster."""
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        return cls({node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]})

    def total(self, name: str) -> int:
        """Return how much of a resource there is."""
        return int(sum(node.get(name, 0) for node in self.alive.values()))

    def request(self, need: Need, factor: int = 1) -> dict[str, float]:
        """Return Ray's options for what an item needs; at most what the largest node has, or it would wait for ever.

        Args:
            need: of the item.
            factor: of memory, for what has run out of it before.
        """
        cpus = [int(node["CPU"]) for node in self.alive.values() if node.get("CPU", 0) >= 1]
        memory = [int(node.get("memory", 0)) for node in self.alive.values() if node.get("CPU", 0) >= 1]
        wanted = min(need.memory * factor, max(memory, default=need.memory * factor))
        options: dict[str, float] = {"num_cpus": 1, "memory": wanted}
        if need.network and self.total("GPU"):
            options["num_gpus"] = 1
        elif need.network:
            options["num_cpus"] = min(cpus, default=1)
        return options

    def fitting(self, asked: dict[str, float]) -> list[str]:
        """Return the nodes that could ever take a task that asks for this."""
        return [
            name
            for name, node in self.alive.items()
            if all(node.get(_RESOURCES[option], 0) >= amount for option, amount in asked.items())
        ]


class _Run(Generic[Item, Result]):
    """One map over items."""

    def __init__(
        self, work: Callable[[Item], Result], items: Sequence[Item], need: Callable[[Item], Need], at_once: int
    ) -> None:
        self._items, self._need, self._at_once = items, need, at_once
        self._work = ray.put(work)  # once for all tasks
        # Ray's own retries go to the same node, and without end where memory runs out.
        self._task: Any = ray.remote(max_retries=0)(_do)
        self._name = secrets.token_hex(8)
        self._tries = 0
        self._nodes = Nodes.now()
        self._waiting = deque(_Try(index) for index in range(len(items)))
        self._under_way: dict[ObjectRef[Any], _Try] = {}
        self._warned = False

    def outcomes(self) -> Iterator[Outcome[Item, Result]]:
        while self._waiting or self._under_way:
            self._look()
            while self._waiting and len(self._under_way) < self._limit():
                self._submit(self._waiting.popleft())
            done, _ = ray.wait(list(self._under_way), timeout=LOOK_SECONDS)
            for ref in done:
                outcome = self._outcome(ref, self._under_way.pop(ref))
                if outcome is not None:
                    yield outcome

    def cancel(self) -> None:
        """End what is under way; all of it can be done again."""
        for ref, one in self._under_way.items():
            ray.cancel(ref, force=True)
            _forget(one.mark)
        self._under_way.clear()

    def _limit(self) -> int:
        return self._at_once or max(LEAST_AHEAD, AHEAD * self._nodes.total("CPU"))

    def _look(self) -> None:
        """See which nodes there are. What waits for one that is gone asks again, for no more than the others have."""
        before, self._nodes = self._nodes, Nodes.now()
        if not self._nodes.fitting({"num_cpus": 1}) and not self._warned:
            self._warned = True
            log.warning("no node of the cluster has a CPU to offer; waiting for one to join")
        if before.alive.keys() <= self._nodes.alive.keys():
            return
        for ref, one in list(self._under_way.items()):
            if not self._nodes.fitting(one.asked) and _node_of(one.mark) is None:
                ray.cancel(ref, force=True)
                del self._under_way[ref]
                self._waiting.appendleft(one)

    def _submit(self, one: _Try) -> None:
        item = self._items[one.index]
        asked = self._nodes.request(self._need(item), 2 if one.out_of_memory else 1)
        others = [name for name in self._nodes.fitting(asked) if name not in one.nodes]
        strategy: Any = "SPREAD"
        if one.nodes and others:
            # Should that one be lost too, the task goes wherever there is room.
            strategy = NodeAffinitySchedulingStrategy(choice(others), soft=True)
        self._tries += 1
        one = replace(one, mark=f"{self._name}/{self._tries}", asked=asked)
        ref = self._task.options(scheduling_strategy=strategy, **asked).remote(self._work, item, one.mark)
        self._under_way[ref] = one

    def _outcome(self, ref: ObjectRef[Any], one: _Try) -> Outcome[Item, Result] | None:
        """Return what became of an item; none = it is tried once more."""
        item, node = self._items[one.index], _node_of(one.mark)
        _forget(one.mark)
        nodes = one.nodes | ({node} if node is not None else set())
        try:
            result, error = ray.get(ref)
        except (NodeDiedError, ObjectLostError, LocalRayletDiedError):
            return self._again(replace(one, nodes=nodes, nodes_lost=one.nodes_lost + 1))
        except (WorkerCrashedError, OutOfMemoryError) as died:
            short = one.out_of_memory or isinstance(died, OutOfMemoryError)
            return self._again(replace(one, nodes=nodes, deaths=one.deaths + 1, out_of_memory=short))
        except RayTaskError as failed:  # raised around the work, such as by an import
            return Outcome(item, error=failed.cause if isinstance(failed.cause, Exception) else failed)
        if isinstance(error, StoreError) and not one.refused and self._nodes.alive.keys() - nodes:
            # Its disk may be full, or its network bad. Not the error's own words: they may name an object.
            log.warning("a node could not read or write the bucket; what it worked on is tried again on another one")
            self._waiting.appendleft(replace(one, nodes=nodes, refused=1))
            return None
        return Outcome(item, result, error)

    def _again(self, one: _Try) -> Outcome[Item, Result] | None:
        if one.deaths < MOST_DEATHS and one.nodes_lost < MOST_NODES_LOST:
            what = "a node was lost" if one.nodes_lost else "a process was killed"
            log.warning("%s; what it worked on is tried again on another node if there is one", what)
            self._waiting.appendleft(one)
            return None
        item = self._items[one.index]
        if one.deaths < MOST_DEATHS:
            return Outcome(item, lost=f"the nodes that worked on it were lost, {one.nodes_lost} in a row")
        where = ", on two nodes" if len(one.nodes) > 1 else ""
        why = "for want of memory" if one.out_of_memory else "probably for want of memory"
        return Outcome(item, lost=f"its process was killed twice{where}, {why}")


def _do(work: Callable[[Item], Result], item: Item, mark: str) -> tuple[Result | None, Exception | None]:
    """Do the work on one item; runs on a node."""
    internal_kv._internal_kv_put(mark.encode(), ray.get_runtime_context().get_node_id(), namespace=_SPACE)
    result, error = attempt(work, item)
    if error is not None:  # the traceback itself stays here; its places say where without words of the file
        error.add_note("".join(traceback.format_tb(error.__traceback__)))
    return result, error


def _node_of(mark: str) -> str | None:
    """Return the node on which a try began; Ray itself does not say where a process was that died."""
    found = internal_kv._internal_kv_get(mark.encode(), namespace=_SPACE)
    return found.decode() if found is not None else None


def _forget(mark: str) -> None:
    internal_kv._internal_kv_del(mark.encode(), namespace=_SPACE)
