"""What an epoch measured as named numbers, and as events for TensorBoard (the only place that imports tensorboardX)."""

from __future__ import annotations

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from boneseg.errors import StoreError
from boneseg.models.card import EpochRecord
from boneseg.png import size_of_png
from boneseg.storage import layout
from boneseg.storage.permissions import make_private
from boneseg.train.pictures import is_due, picture_file
from boneseg.train.task import Task

FOLDER = "tensorboard"


def scalars(record: EpochRecord, classes: tuple[str, ...]) -> dict[str, float]:
    """Return the numbers of an epoch by name, such as ``validation/bone_dice``; what was not measured is left out.

    Args:
        record: of the epoch.
        classes: names of the scheme's classes.
    """
    named = {
        "train/loss": record.train_loss,
        "train/accuracy": record.train_accuracy,
        "train/images_per_second": record.images_per_second,
        "train/waiting_share": record.waiting,
        "train/memory_bytes": record.memory_bytes,
        "train/gpu_memory_bytes": record.gpu_memory_bytes,
        "train/epoch_seconds": record.seconds,
        "validation/loss": record.validation_loss,
        "validation/accuracy": record.validation_accuracy,
        "validation/mean_iou": record.validation_mean_iou,
        "validation/mean_dice": record.validation_mean_dice,
        "validation/bone_dice": record.bone_dice,
    }
    for name, dice, iou in zip(classes, record.validation_dice, record.validation_iou, strict=True):
        plain = name.replace(" ", "_")
        named |= {f"validation_dice/{plain}": dice, f"validation_iou/{plain}": iou}
    return {name: float(value) for name, value in named.items() if value is not None}


class TensorBoard:
    """Writes a run's scalars and pictures for TensorBoard, into ``tensorboard/`` of the run's folder.

    A run that goes on hears of its earlier epochs again: it writes one new file in place of the old one.
    """

    def begin(self, task: Task) -> None:
        """Start the file of a run."""
        self._task = task
        self._classes = tuple(item.name for item in task.labelling.scheme.classes)
        self._wanted: list[int] = []
        folder = make_private(task.workspace.run_folder(task.run) / FOLDER)
        for earlier in folder.glob("*.tfevents.*"):
            earlier.unlink(missing_ok=True)
        self._writer = EventsWriter(str(folder / "events"))

    def epoch(self, record: EpochRecord) -> None:
        """Write an epoch, and pictures that have come since the last one."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars(record, self._classes).items()]
        self._write(record.epoch, values)
        if is_due(record.epoch, self._task.settings):
            self._wanted.append(record.epoch)
        self._write_pictures()

    def end(self, finished: bool) -> None:
        """Close the file."""
        self._write_pictures()
        self._writer.close()

    def _write(self, epoch: int, values: list[Summary.Value]) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=epoch, summary=Summary(value=values)))
        self._writer.flush()

    def _write_pictures(self) -> None:
        """Write the pictures that are there; a worker on another machine brings them a little later."""
        for epoch in tuple(self._wanted):
            data = self._picture(epoch)
            if data is not None:
                width, height = size_of_png(data)
                image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=data)
                self._write(epoch, [Summary.Value(tag="validation/slice_label_mask", image=image)])
                self._wanted.remove(epoch)

    def _picture(self, epoch: int) -> bytes | None:
        task, file = self._task, picture_file(epoch)
        here: Path = task.workspace.run_folder(task.run) / file
        if here.is_file():
            return here.read_bytes()
        try:
            return task.workspace.store.read_if_there(layout.run(task.run, file))
        except StoreError:
            return None
