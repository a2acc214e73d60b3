"""The training loop in Ray Train's workers: as many processes as asked for, on this machine or on a cluster."""

from __future__ import annotations

import logging
import threading
from functools import partial

import ray.train
import ray.train.torch
from ray.exceptions import RayActorError
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.util.queue import Queue

from boneseg.errors import BonesegError, ModelError
from boneseg.models.card import EpochRecord
from boneseg.ray_cluster.connect import cluster
from boneseg.ray_cluster.resources import storage_path, workers_resources
from boneseg.train.loop import fit
from boneseg.train.process_group import ProcessGroup
from boneseg.train.rendezvous import OneInterface
from boneseg.train.task import Report, Task
from boneseg.train.training_state import StateKeeper, TrainingState

RESTARTS = 3
"""How often lost workers are replaced; each time training continues after the last epoch saved."""


def fit_with_ray(task: Task, report: Report) -> TrainingState:
    """Train with ``task.settings.workers`` processes.

    Args:
        task: what to train.
        report: hears of every epoch, in this process.

    Returns:
        The final state.

    Raises:
        ModelError: the workers were lost more than ``RESTARTS`` times.
        BonesegError: what a worker raised.
    """
    workers = task.settings.workers
    with cluster(least_cpus=workers):
        cpus, use_gpu = workers_resources(workers, gpus_wanted=task.settings.device != "cpu")
        # Not num_cpus=0.01 or the like: a queue that waits for a CPU which the workers hold would never start.
        queue, verdict = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
        trainer = ray.train.torch.TorchTrainer(
            # Not train_loop_config: Ray writes that to its logs, and a workspace knows credentials.
            partial(_work, task, queue, verdict),
            torch_config=OneInterface(),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers, use_gpu=use_gpu, resources_per_worker={"CPU": cpus}
            ),
            run_config=ray.train.RunConfig(
                name=task.run,
                storage_path=storage_path(task.workspace),
                failure_config=ray.train.FailureConfig(max_failures=RESTARTS),
            ),
        )
        listener = threading.Thread(target=_listen, args=(queue, report), daemon=True)
        listener.start()
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _fault(error, task.run) from error
        finally:
            queue.put(None)
            listener.join()
            final = None if verdict.empty() else verdict.get()
            for each in (queue, verdict):
                each.shutdown()
        if final is not None:
            raise final
    return StateKeeper(task.workspace, task.run, task.identity).load()


def _work(task: Task, queue: Queue, verdict: Queue) -> None:
    """Be one worker."""
    logging.basicConfig(level=logging.INFO)
    context = ray.train.get_context()
    group = ProcessGroup(context.get_world_rank(), context.get_world_size(), str(ray.train.torch.get_device()))

    def report(record: EpochRecord) -> None:
        if group.is_rank_zero:
            queue.put(record.model_dump_json())
        ray.train.report({"epoch": record.epoch, "validation_mean_iou": record.validation_mean_iou})

    if not verdict.empty():
        return  # Ray starts workers again whatever they raised; what cannot help ends here
    try:
        fit(task, group, report)
    except BonesegError as error:
        if not error.transient:
            verdict.put(error)
        raise


def _listen(queue: Queue, report: Report) -> None:
    while (text := queue.get()) is not None:
        report(EpochRecord.model_validate_json(text))


def _fault(error: TrainingFailedError, run: str) -> BonesegError:
    """Find the sentence for the user among what the workers raised."""
    failures = list(error.worker_failures.values()) if isinstance(error, WorkerGroupError) else []
    causes = [getattr(failure, "_base_exc", failure) for failure in failures]
    for cause in causes:
        if isinstance(cause, BonesegError):
            return cause
    died = any(isinstance(cause, RayActorError) for cause in causes)
    reason = "one of them died every time" if died else str(error).strip().splitlines()[-1]
    return ModelError(
        f"run {run}: training failed in its workers {RESTARTS + 1} times ({reason}): look for want of memory, or try "
        "train.precision = fp32; start it again to continue after the last epoch"
    )
