"""What a cluster has, and how it is shared."""

from __future__ import annotations

import math
import os

import ray

from boneseg.errors import SettingsError
from boneseg.ray_address import VARIABLE, Way, way_of
from boneseg.storage.workspace import Workspace


def storage_path(workspace: Workspace) -> str:
    """Return where Ray keeps its own notes: this machine, or the bucket for a cluster that was given.

    That may have several machines without a common file system. Ray reaches the bucket through ``AWS_ENDPOINT_URL``
    and the AWS credentials that ``cluster`` puts into the environment of this process and of those on the nodes.
    """
    if way_of(os.environ.get(VARIABLE)) is not Way.OWN:
        return workspace.store.uri("ray")
    return str(workspace.folder / "ray")


def workers_resources(least: int, most: int, gpus_wanted: bool) -> tuple[int, bool]:
    """Share the cluster among workers.

    Args:
        least: how many there must be.
        most: how many there may be; where there is no room for all, as many as there is.
        gpus_wanted: whether to use GPUs if there are any.

    Returns:
        CPUs of each worker, and whether each gets a GPU.

    Raises:
        SettingsError: there are fewer CPUs or GPUs than workers.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cpus, gpus = ([int(node.get(kind, 0)) for node in nodes] for kind in ("CPU", "GPU"))
    use_gpus = gpus_wanted and sum(gpus) > 0
    if use_gpus and sum(gpus) < least:
        raise SettingsError(
            f"train.workers: {least} are wanted, the cluster has {sum(gpus)} GPUs, and each worker needs one; "
            "lower train.workers, or set train.device to cpu"
        )
    places = min(sum(gpus), sum(cpus)) if use_gpus else sum(cpus)
    for wanted in range(min(most, places), least - 1, -1):
        for share in range(max(cpus), 0, -1):
            if _room(cpus, gpus if use_gpus else None, share) >= wanted:
                return share, use_gpus
    raise SettingsError(
        f"train.workers: {least} are wanted, and the cluster has only {sum(cpus)} CPUs"
        f"{' beside its GPUs' if use_gpus else ''}; lower train.workers"
    )


def _room(cpus: list[int], gpus: list[int] | None, share: int) -> int:
    """Return how many workers of so many CPUs, and a GPU each where there are GPUs, the nodes have room for."""
    places = [node // share for node in cpus]
    return sum(places if gpus is None else map(min, places, gpus))


def share(parallel: int) -> dict[str, float]:
    """Divide the cluster among trials that run at the same time: CPUs and GPUs of one, at most one GPU.

    One trial fits into the second largest machine, so that the loss of one does not leave it without a place.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cpus = sorted(node.get("CPU", 0.0) for node in nodes if node.get("CPU"))
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    room = cpus[-2] if len(cpus) > 1 else cpus[-1]
    return {
        "cpu": max(1.0, min(room, sum(cpus) // parallel)),
        "gpu": 0.0 if not gpus else 1.0 if gpus >= parallel else 1 / math.ceil(parallel / gpus),
    }
