"""The shards that a process has open: as many as help, so few that the cache of its machine can still evict others."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from boneseg.dataset.manifest import ShardRecord
from boneseg.dataset.shards import Shard, open_shard
from boneseg.machine import local_processes
from boneseg.storage.cache import Cache
from boneseg.storage.workspace import Workspace

MOST = 128
"""Open shards; each holds two file descriptors."""
CACHE_SHARE = 4
"""All processes of a training together hold at most one part in so many of the cache open for training, and for
validation as much."""
IN_MEMORY_BYTES = 2**30
"""Of shards that a process has in memory because the disk of the cache is full."""


class OpenShards:
    """Shards by number, opened when they are first asked for; those not asked for the longest are let go of.

    Args:
        workspace: where the shards are.
        records: the shards.
    """

    def __init__(self, workspace: Workspace, records: Sequence[ShardRecord]) -> None:
        self.workspace = workspace
        self.records = records
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, number: int) -> bool:
        """Say whether a shard is open."""
        return number in self._open

    def get(self, number: int) -> Shard:
        """Return a shard; it stays readable for as long as the caller holds it.

        Raises:
            StoreError: it is not in the bucket any more, or is not what was written.
        """
        with self._lock:
            shard = self._open.get(number)
            if shard is not None:
                self._open.move_to_end(number)
                return shard
        shard = open_shard(self.workspace, self.records[number], self._let_go_of_all)
        limit = self._limit_bytes()
        with self._lock:
            self._open[number] = shard
            while len(self._open) > 1 and self._too_many(limit):
                self._open.popitem(last=False)
        return shard

    def steps_ahead(self, wanted: Sequence[Sequence[int]]) -> int:
        """Return how many steps ahead shards may be fetched without the cache evicting them before their use.

        Args:
            wanted: the numbers of the shards of each step.
        """
        used = {number for step in wanted for number in step}
        total = sum(self._bytes(number) for number in used)
        limit = self._limit_bytes()
        if total <= limit:
            return len(wanted)
        largest_step = max(sum(self._bytes(number) for number in set(step)) for step in wanted)
        return max(1, limit // largest_step)

    @property
    def fit_cache(self) -> bool:
        """Whether the cache holds all of the shards at once."""
        limit = Cache(self.workspace.cache, self.workspace.store).limit_bytes
        return sum(self._bytes(number) for number in range(len(self.records))) <= limit

    def _bytes(self, number: int) -> int:
        return self.records[number].image.size + self.records[number].label.size

    def _let_go_of_all(self) -> None:
        with self._lock:
            mapped = [number for number, shard in self._open.items() if not shard.in_memory]
            for number in mapped:
                del self._open[number]

    def _too_many(self, limit: int) -> bool:
        in_memory = sum(shard.size for shard in self._open.values() if shard.in_memory)
        return (
            len(self._open) > MOST
            or in_memory > IN_MEMORY_BYTES
            or sum(shard.size for shard in self._open.values()) - in_memory > limit
        )

    def _limit_bytes(self) -> int:
        return Cache(self.workspace.cache, self.workspace.store).limit_bytes // (CACHE_SHARE * local_processes())
