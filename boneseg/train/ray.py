"""The training loop in Ray Train's workers: as many processes as asked for, on this machine or on a cluster."""

from __future__ import annotations

import logging
import threading
from functools import partial

import ray.train
import ray.train.torch
from ray.exceptions import RayActorError
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.util.queue import Queue

from boneseg.errors import BonesegError, ModelError
from boneseg.models.card import EpochRecord
from boneseg.ray_cluster.connect import cluster
from boneseg.ray_cluster.resources import storage_path, workers_resources
from boneseg.train.loop import fit
from boneseg.train.process_group import ProcessGroup
from boneseg.train.rendezvous import OneInterface
from boneseg.train.task import Report, Task, TrainingStopped
from boneseg.train.training_state import StateKeeper, TrainingState

RESTARTS = 3
"""How often in a run lost workers are replaced; training continues after the last state saved."""
LOOK_FOR_ROOM_SECONDS = 120.0
"""How often it is looked whether more workers of a range find room: taking them in costs a start and an epoch begun."""


def fit_with_ray(task: Task, report: Report) -> TrainingState:
    """Train with ``task.settings.workers`` processes; of a range, with as many as there is room for at any time.

    Args:
        task: what to train.
        report: hears of every epoch, in this process.

    Returns:
        The final state.

    Raises:
        ModelError: the workers were lost more than ``RESTARTS`` times.
        BonesegError: what a worker raised.
    """
    least, most = task.settings.workers_range
    most = min(most, task.settings.batch_size)
    with cluster(least, task.workspace):
        cpus, use_gpu = workers_resources(least, most, gpus_wanted=task.settings.device != "cpu")
        # Not num_cpus=0.01 or the like: a queue that waits for a CPU which the workers hold would never start.
        queue, answers, verdict = (Queue(actor_options={"num_cpus": 0}) for _ in range(3))
        trainer = ray.train.torch.TorchTrainer(
            # Not train_loop_config: Ray writes that to its logs, and a workspace knows credentials.
            partial(_work, task, queue, answers, verdict),
            torch_config=OneInterface(),
            scaling_config=ScalingConfig(
                num_workers=least if least == most else (least, most),
                use_gpu=use_gpu,
                resources_per_worker={"CPU": cpus},
                elastic_resize_monitor_interval_s=LOOK_FOR_ROOM_SECONDS,
            ),
            run_config=ray.train.RunConfig(
                name=task.run,
                storage_path=storage_path(task.workspace),
                failure_config=ray.train.FailureConfig(max_failures=RESTARTS),
            ),
        )
        faults: list[Exception] = []
        listener = threading.Thread(target=_listen, args=(queue, answers, report, faults), daemon=True)
        listener.start()
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _fault(error, task.run) from error
        finally:
            queue.put(None)
            listener.join()
            final = None if verdict.empty() else verdict.get()
            for each in (queue, answers, verdict):
                each.shutdown()
        if faults:
            raise faults[0]
        if final is not None:
            raise final
    return StateKeeper(task.workspace, task.run, task.identity).load()


def _work(task: Task, queue: Queue, answers: Queue, verdict: Queue) -> None:
    """Be one worker."""
    logging.basicConfig(level=logging.INFO)
    context = ray.train.get_context()
    group = ProcessGroup(context.get_world_rank(), context.get_world_size(), str(ray.train.torch.get_device()))

    def report(record: EpochRecord) -> None:
        stops = False
        if group.is_rank_zero:
            queue.put(record.model_dump_json())
            stops = answers.get()
        ray.train.report({"epoch": record.epoch, "validation_mean_iou": record.validation_mean_iou})
        if group.broadcast(stops):
            raise TrainingStopped

    if not verdict.empty():
        return  # Ray starts workers again whatever they raised; what cannot help ends here
    try:
        fit(task, group, report)
    except TrainingStopped as stopped:
        if group.is_rank_zero:
            verdict.put(stopped)
    except BonesegError as error:
        if not error.transient:
            verdict.put(error)
        raise


def _listen(queue: Queue, answers: Queue, report: Report, faults: list[Exception]) -> None:
    """Hand epochs on to who hears of them; every one gets its answer, for a worker waits for it."""
    while (text := queue.get()) is not None:
        try:
            report(EpochRecord.model_validate_json(text))
        except TrainingStopped:
            answers.put(True)
        except Exception as error:  # whatever it is, it is raised where the workers were started
            faults.append(error)
            answers.put(True)
        else:
            answers.put(False)


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
