"""Where the workers of a process group meet: on loopback if all are on this machine, else on the cluster's own network.

Left to itself torch listens on every interface of the machine, for whoever is on the same network.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch.distributed as dist
from ray.train.backend import BackendConfig
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend

PATIENCE = timedelta(minutes=30)
_INTERFACE_ADDRESS = 0x8915
"""Linux's request SIOCGIFADDR."""
_listener: list[socket.socket] = []
"""Rank 0's socket between the two calls that open and use it."""


@dataclass
class OneInterface(TorchConfig):
    """Sets up torch's process group on the one interface through which Ray's nodes speak to each other."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """Who does it."""
        return _OneInterfaceBackend


class _OneInterfaceBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Bring all workers into one process group."""
        backend = "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) > 0 else "gloo"
        address, port = worker_group.execute_single(0, _open)
        worker_group.execute(_set_torch_distributed_env_vars)
        size = len(worker_group)
        joining = [
            worker_group.execute_single_async(rank, join, backend, address, port, rank, size) for rank in range(size)
        ]
        ray.get(joining)


def _own_address() -> str:
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def _open() -> tuple[str, int]:
    """Listen where the others will find rank 0; returns the address and port."""
    address = _own_address()
    _listener[:] = [listen(address)]
    return address, _listener[0].getsockname()[1]


def listen(address: str) -> socket.socket:
    """Return a socket that listens on a free port of one address only."""
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((address, 0))
    listener.listen(128)
    return listener


def join(backend: str, address: str, port: int, rank: int, size: int) -> None:
    """Join torch's process group as one of its members."""
    name = interface_of(_own_address())
    if name is not None:
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, name)
    listener = _listener.pop().detach() if rank == 0 else None
    store = dist.TCPStore(  # type: ignore[attr-defined]
        address, port, size, is_master=rank == 0, timeout=PATIENCE, master_listen_fd=listener
    )
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)


def interface_of(address: str) -> str | None:
    """Return the network interface that has an IPv4 address; none where none has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking, _INTERFACE_ADDRESS, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has no address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
