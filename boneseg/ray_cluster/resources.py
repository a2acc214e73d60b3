"""What a cluster has, and how it is shared."""

from __future__ import annotations

import os

import ray

from boneseg.errors import SettingsError
from boneseg.storage.workspace import Workspace


def storage_path(workspace: Workspace) -> str:
    """Return where Ray keeps its own notes: this machine, or the bucket for a cluster of several machines.

    Ray reaches the bucket through ``AWS_ENDPOINT_URL`` and the AWS credentials in the environment of its nodes.
    """
    if os.environ.get("RAY_ADDRESS") and os.environ.get("AWS_ENDPOINT_URL"):
        return workspace.store.uri("ray")
    return str(workspace.folder / "ray")


def workers_resources(workers: int, gpus_wanted: bool) -> tuple[int, bool]:
    """Share the cluster among workers.

    Args:
        workers: how many.
        gpus_wanted: whether to use GPUs if there are any.

    Returns:
        CPUs of each worker, and whether each gets a GPU.

    Raises:
        SettingsError: there are more workers than CPUs or GPUs.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus_wanted and 0 < gpus < workers:
        raise SettingsError(
            f"train.workers = {workers}: the cluster has {gpus} GPUs and each worker needs one; "
            "lower train.workers, or set train.device to cpu"
        )
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    for share in range(max(cpus), 0, -1):
        if sum(node // share for node in cpus) >= workers:
            return share, gpus_wanted and gpus > 0
    raise SettingsError(f"train.workers = {workers}: the cluster has only {sum(cpus)} CPUs; lower train.workers")


def share(parallel: int) -> dict[str, float]:
    """Divide the cluster among trials that run at the same time: CPUs and GPUs of one."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = resources.get("GPU", 0.0)
    return {
        "cpu": max(1.0, resources["CPU"] // parallel),
        "gpu": gpus // parallel if gpus >= parallel else gpus / parallel,
    }
