"""Trials of several workers each: one after another, each on the whole cluster.

Nested in Tune they would wait for each other: a trial's driver holds what the workers of another one need. So here the
driver is this process, which needs no resources of the cluster, and a trial is an ordinary training of several workers.
"""

from __future__ import annotations

import logging

from boneseg.errors import BonesegError
from boneseg.models.card import EpochRecord
from boneseg.ray_cluster.connect import cluster
from boneseg.train.task import TrainingStopped
from boneseg.tune.conductor import Conductor, Order
from boneseg.tune.cost import Cost
from boneseg.tune.trial import is_want_of_memory, train_trial

log = logging.getLogger(__name__)


def run_trials(conductor: Conductor) -> None:
    """Run a sweep's trials one after another; one that fails does not stop the others.

    Raises:
        SettingsError: another driver took the sweep over, or there is a budget of GPU hours and no GPU.
    """
    settings = conductor.sweep.settings
    workers = settings.train.workers
    least, most = settings.train.workers_range
    if conductor.settings.parallel > 1:
        log.info("trials of %s workers run one after another; tune.parallel plays no part", workers)
    with cluster(least, conductor.sweep.workspace):
        import ray

        from boneseg.tune.ray import check_gpu_budget

        check_gpu_budget(conductor)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        has_gpus = settings.train.device != "cpu" and resources.get("GPU", 0.0) > 0
        while (order := conductor.next()) is not None:
            conductor.begun(order.number, float(most), has_gpus)
            _train(conductor, order)


def _train(conductor: Conductor, order: Order) -> None:
    fault: list[BonesegError] = []

    def tell(record: EpochRecord, cost: Cost) -> None:
        try:
            stops = conductor.heard(order.number, record, cost.parameters, cost.ms_per_slice)
        except BonesegError as error:
            fault.append(error)
            stops = True
        if stops:
            raise TrainingStopped

    try:
        train_trial(conductor.sweep, order, tell)
    except TrainingStopped:
        if fault:
            raise fault[0] from None
        return
    except Exception as error:
        if is_want_of_memory(error):
            conductor.ran_out_of_memory(order.number)
        elif isinstance(error, BonesegError) and error.transient:
            conductor.lost(order.number, str(error))
        elif isinstance(error, BonesegError):
            conductor.failed(order.number, str(error))
        else:
            conductor.failed(order.number, f"{type(error).__name__}: {str(error).strip().splitlines()[-1:]}")
        return
    conductor.finished(order.number)
