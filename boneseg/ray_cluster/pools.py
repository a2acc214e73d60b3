"""Which pool of processes does the work on many items: this machine's, or that of a cluster."""

from __future__ import annotations

import logging

from boneseg.pool import Pool
from boneseg.process_pool import ProcessPool
from boneseg.ray_cluster.environment import before_ray, on_cluster
from boneseg.storage.workspace import Workspace

log = logging.getLogger(__name__)


def pool(workspace: Workspace, here: int, preload: str, at_once: int = 0) -> Pool:
    """Return the pool to use: the Ray cluster that ``RAY_ADDRESS`` names, else processes of this machine.

    Args:
        workspace: that the work is done in; the nodes of a cluster get access to its store.
        here: processes on this machine.
        preload: module that each of those needs.
        at_once: items at the same time on a cluster; 0 = as many as it has room for.
    """
    if not on_cluster():
        return ProcessPool(here, preload)
    before_ray()
    from boneseg.ray_cluster.task_pool import TaskPool

    return TaskPool(workspace, at_once)


def stays_here(what: str) -> None:
    """Tell who asked for a cluster that work on a folder of this machine is done on this machine.

    Args:
        what: the work.
    """
    if on_cluster():
        log.info("%s works on this machine alone: the nodes of a cluster do not see its folders", what)
