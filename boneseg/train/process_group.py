"""The processes that train one network together; most often it is one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together; ``ProcessGroup()`` is a process alone.

    Attributes:
        rank: number of this process; 0 saves and reports.
        size: how many there are. For more than one, torch's default process group must exist.
        device: where this process computes; none = as the settings say.
    """

    rank: int = 0
    size: int = 1
    device: str | None = None

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process saves and reports."""
        return self.rank == 0

    def data_parallel(self, network: nn.Module) -> nn.Module:
        """Make gradients averages over the process group; all start from rank 0's weights.

        Buffers are not copied at each step: running statistics are computed from the same sums everywhere.
        """
        if self.size == 1:
            return network
        replica = DistributedDataParallel(network)
        replica.broadcast_buffers = False  # the argument of this name would leave them apart at the start, too
        return replica

    def gradients_stay(self, replica: nn.Module) -> AbstractContextManager[object]:
        """Return the context in which gradients of what ``data_parallel`` returned add up in this process only."""
        return replica.no_sync() if isinstance(replica, DistributedDataParallel) else nullcontext()

    def all_reduce(self, values: Tensor) -> Tensor:
        """Add up a tensor over the process group, in place; returns it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value in every process."""
        if self.size == 1:
            return value
        box = [value if self.is_rank_zero else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def all_gather(self, value: Any) -> list[Any]:
        """Return every process's value, in order of rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


ALONE = ProcessGroup()
