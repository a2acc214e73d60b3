"""The processes that train one network together; most often it is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Team:
    """This process among those that train together; ``Team()`` is a process alone.

    Attributes:
        rank: number of this process; 0 saves and reports.
        size: how many there are. For more than one, torch's default process group must exist.
        device: where this process computes; none = as the settings say.
    """

    rank: int = 0
    size: int = 1
    device: str | None = None

    @property
    def leads(self) -> bool:
        """Whether this process saves and reports."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """Make gradients averages over the team; all start from the leader's weights."""
        return DistributedDataParallel(network) if self.size > 1 else network

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor over the team, in place; returns it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, network: nn.Module) -> None:
        """Give every process the leader's buffers: each has its own running means of batch normalisation."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def share(self, value: Any) -> Any:
        """Return the leader's value in every process."""
        if self.size == 1:
            return value
        box = [value if self.leads else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in order of rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values
