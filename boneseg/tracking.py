"""A training run as it goes on, on an MLflow server: where one is set for the registry."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

from boneseg.errors import BonesegError
from boneseg.identity import flattened, stable_hash
from boneseg.models.card import EpochRecord
from boneseg.registry.server import tracking_server
from boneseg.settings.schema import PublishSettings
from boneseg.train.listeners import Listener
from boneseg.train.scalars import scalars
from boneseg.train.task import Task

if TYPE_CHECKING:
    from boneseg.registry.client import Registry

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 20.0
"""How long the end of a run waits for a server that has not yet heard all of it."""
_RUN_TAG, _PLACE = "boneseg_training_run", "mlflow"


def trackers(settings: PublishSettings) -> tuple[Listener, ...]:
    """Return who tells an MLflow server of a run; nobody where the registry is the bucket's own file."""
    uri = tracking_server(settings)
    return (MlflowRun(uri),) if uri else ()


class MlflowRun:
    """Sends a run's settings and scalars to an MLflow server from a thread of its own.

    A server that fails or is slow neither stops nor slows the training: the log says so once, and what it has not heard
    is sent with the next epoch. A run that goes on goes on there too.

    Args:
        uri: tracking URI.
        patience: seconds that the end of a run waits for the server at most.
    """

    def __init__(self, uri: str, patience: float = PATIENCE_SECONDS) -> None:
        self.uri = uri
        self.patience = patience

    def begin(self, task: Task) -> None:
        """Start to send; connecting to the server takes place in the thread too."""
        self._news: queue.Queue[EpochRecord | bool] = queue.Queue()
        sender = _Sender(self.uri, task)
        self._thread = threading.Thread(target=sender.work, args=(self._news,), name="mlflow", daemon=True)
        self._thread.start()

    def epoch(self, record: EpochRecord) -> None:
        """Send an epoch."""
        self._news.put(record)

    def end(self, finished: bool) -> None:
        """Send that the run is over, and wait a little until the server has heard it."""
        self._news.put(finished)
        self._thread.join(self.patience)


class _Sender:
    """The thread's side: one run on the server, and what it has not heard yet."""

    def __init__(self, uri: str, task: Task) -> None:
        self._uri = uri
        self._task = task
        self._classes = tuple(item.name for item in task.labelling.scheme.classes)
        self._unsent: list[EpochRecord] = []
        self._run: tuple[Registry, str] | None = None
        self._heard = 0
        self._warned = False

    def work(self, news: queue.Queue[EpochRecord | bool]) -> None:
        """Send what comes, until the run is over."""
        while True:
            item = news.get()
            if isinstance(item, EpochRecord):
                self._unsent.append(item)
            try:
                self._send()
                if isinstance(item, bool) and self._run is not None:
                    registry, run_id = self._run
                    registry.end_run(run_id, item)
            except Exception as error:  # whatever the server or the way to it does
                self._warn(error)
            if isinstance(item, bool):
                return

    def _send(self) -> None:
        from boneseg.registry.client import MetricPoint

        registry, run_id = self._run = self._run or self._open()
        points = [
            MetricPoint(key=name, value=value, step=record.epoch)
            for record in self._unsent
            if record.epoch > self._heard
            for name, value in scalars(record, self._classes).items()
        ]
        registry.log_points(run_id, points)
        if self._unsent:
            self._heard = max(self._heard, self._unsent[-1].epoch)
        self._unsent.clear()

    def _open(self) -> tuple[Registry, str]:
        from boneseg.registry.client import Registry

        task = self._task
        settings = {"model": task.model.model_dump(mode="json"), "train": task.settings.model_dump(mode="json")}
        params = {key: str(value) for key, value in flattened(settings).items()}
        tags = {_RUN_TAG: stable_hash([task.run, task.identity])}
        registry = Registry(self._uri)
        run_id, self._heard = registry.open_run(task.run, params, tags, task.workspace.store.uri(_PLACE))
        return registry, run_id

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            known = isinstance(error, BonesegError)
            told = error if known else f"the MLflow server cannot be told of it ({type(error).__name__})"
            log.warning("run %s is trained, but %s", self._task.run, told)
