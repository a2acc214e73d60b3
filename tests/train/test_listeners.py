"""What hears of a training run while it runs: the log, TensorBoard, MLflow, pictures. None of them can stop it."""

import logging
import struct
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from torch import nn

from boneseg import tracking
from boneseg.dataset.shards import load_dataset
from boneseg.dataset.slices import SliceDataset
from boneseg.models.card import EpochRecord
from boneseg.models.precision import choose_precision
from boneseg.registry.client import Registry
from boneseg.settings.schema import ModelSettings, PublishSettings, Split, TrainSettings
from boneseg.storage.workspace import Workspace
from boneseg.tracking import MlflowRun, trackers
from boneseg.train.listeners import heard_by
from boneseg.train.pictures import draw, is_due, keep_picture, picture_file
from boneseg.train.progress_lines import EpochLines
from boneseg.train.scalars import TensorBoard, scalars
from boneseg.train.task import Task
from tests.train.data import put_dataset

CLASSES = ("background", "patient outline", "bone")


def record(epoch: int, **changed: Any) -> EpochRecord:
    values = {
        "epoch": epoch,
        "train_loss": 1.0 / epoch,
        "train_accuracy": 0.5,
        "validation_loss": 0.25,
        "validation_accuracy": 0.75,
        "validation_iou": (0.5, 0.25, 0.125),
        "validation_dice": (0.75, 0.5, 0.25),
        "validation_mean_iou": 0.3,
        "validation_mean_dice": 0.5,
        "seconds": 10.0,
    }
    return EpochRecord.model_validate(values | changed)


@pytest.fixture
def task(workspace: Workspace) -> Task:
    dataset = load_dataset(workspace, put_dataset(workspace))
    return Task(
        workspace=workspace,
        run="quick",
        identity="0" * 16,
        model=ModelSettings(),
        settings=TrainSettings(epochs=4, pictures_every=2, device="cpu"),
        training=dataset.of(Split.TRAIN),
        validation=dataset.of(Split.VALIDATION),
    )


class Perfect(nn.Module):
    """Says bone wherever the slice is bright."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        body, bone = image[:, :1] > 0.2, image[:, :1] > 0.45
        return torch.cat([~body, body & ~bone, bone], dim=1).float()


def validation(task: Task) -> SliceDataset:
    return SliceDataset(task.workspace, task.validation, task.model.preprocess, task.labelling)


class Broken:
    """A listener that fails whenever it hears something."""

    heard = 0

    def begin(self, task: Task) -> None:
        pass

    def epoch(self, record: EpochRecord) -> None:
        self.heard += 1
        raise ConnectionError("no route")

    def end(self, finished: bool) -> None:
        raise ConnectionError("no route")


class Noting(Broken):
    """A listener that remembers what it heard."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def begin(self, task: Task) -> None:
        self.events.append(task.run)

    def epoch(self, record: EpochRecord) -> None:
        self.events.append(record.epoch)

    def end(self, finished: bool) -> None:
        self.events.append(finished)


def test_a_listener_that_fails_stops_neither_the_run_nor_the_others(
    task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    broken, noting, reported = Broken(), Noting(), []
    with heard_by((broken, noting), task, lambda each: reported.append(each.epoch)) as report:
        for epoch in (1, 2, 3):
            report(record(epoch))
    assert reported == [1, 2, 3]
    assert noting.events == ["quick", 1, 2, 3, True]
    assert broken.heard == 1
    assert len([line for line in caplog.records if "hears no more of run quick" in line.message]) == 1


def test_listeners_hear_of_a_run_that_was_stopped_and_what_stopped_it_goes_on(task: Task) -> None:
    noting = Noting()
    with pytest.raises(KeyboardInterrupt), heard_by((noting,), task, lambda each: None) as report:  # noqa: PT012
        report(record(1))
        raise KeyboardInterrupt
    assert noting.events == ["quick", 1, False]


def test_a_report_that_ends_the_run_is_not_held_back(task: Task) -> None:
    """A sweep ends a trial so."""

    def report(each: EpochRecord) -> None:
        raise SystemExit

    with pytest.raises(SystemExit), heard_by((), task, report) as heard:
        heard(record(1))


def events_of(folder: Path) -> list[Event]:
    """Read event files as TFRecord says: length, its checksum, data, its checksum."""
    events = []
    for file in sorted(folder.glob("*tfevents*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[12 + length + 4 :]
    return events


def points_of(events: list[Event], tag: str) -> list[tuple[int, float]]:
    return [(e.step, v.simple_value) for e in events for v in e.summary.value if v.tag == tag]


def test_tensorboard_has_each_epoch_once_also_where_the_run_was_interrupted(task: Task) -> None:
    folder = task.workspace.run_folder("quick") / "tensorboard"
    first = TensorBoard()
    first.begin(task)
    first.epoch(record(1))
    assert points_of(events_of(folder), "train/loss") == [(1, 1.0)]  # while it runs
    again = TensorBoard()  # the first one was killed
    again.begin(task)
    for epoch in (1, 2):
        again.epoch(record(epoch, images_per_second=50.0, waiting=0.125))
    again.end(True)
    events = events_of(folder)
    assert points_of(events, "train/loss") == [(1, 1.0), (2, 0.5)]
    assert points_of(events, "train/waiting_share") == [(1, 0.125), (2, 0.125)]
    assert points_of(events, "validation_dice/patient_outline") == [(1, 0.5), (2, 0.5)]


@pytest.mark.parametrize("place", ["this machine", "another machine"])
def test_pictures_reach_tensorboard(task: Task, place: str) -> None:
    here = task
    if place == "another machine":
        here = replace(task, workspace=replace(task.workspace, folder=task.workspace.folder.with_name("away")))
    board = TensorBoard()
    board.begin(here)
    board.epoch(record(1))
    keep_picture(task, 2, Perfect(), validation(task), choose_precision("cpu", "fp32"))
    for thread in threading.enumerate():
        if thread.name == "picture":
            thread.join()
    board.epoch(record(2))
    board.end(True)
    shown = [
        (event.step, value.image)
        for event in events_of(here.workspace.run_folder("quick") / "tensorboard")
        for value in event.summary.value
        if value.HasField("image")
    ]
    assert [step for step, _ in shown] == [2]
    with Image.open(task.workspace.run_folder("quick") / picture_file(2)) as picture:
        assert picture.size == (shown[0][1].width, shown[0][1].height)
        assert picture.mode == "RGB"


def test_a_picture_shows_slice_label_and_mask_and_no_text(task: Task) -> None:
    slices = validation(task)
    picture = draw(Perfect(), slices, choose_precision("cpu", "fp32"))
    image, label = slices[int(np.argmax(slices.bone_pixels))]
    rows, columns = label.shape
    assert picture.shape == (rows, 3 * columns, 3)
    grey, labelled, masked = (picture[:, part * columns : (part + 1) * columns] for part in range(3))
    assert np.ptp(grey, axis=2).max() == 0
    np.testing.assert_array_equal(grey[..., 0], np.round(255 * image[0]).astype(np.uint8))
    np.testing.assert_array_equal(np.ptp(labelled, axis=2) > 0, label == 2)
    agree = (np.ptp(masked, axis=2) > 0) == (label == 2)
    assert agree.mean() > 0.95


def test_pictures_come_every_few_epochs_and_at_the_end() -> None:
    settings = TrainSettings(epochs=7, pictures_every=3)
    assert [epoch for epoch in range(1, 8) if is_due(epoch, settings)] == [3, 6, 7]
    assert not any(is_due(epoch, settings.model_copy(update={"pictures_every": 0})) for epoch in range(1, 8))


def test_a_picture_that_cannot_be_kept_is_a_warning(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    folder = task.workspace.run_folder("quick")
    folder.mkdir(parents=True)
    (folder / "pictures").write_text("in the way")
    keep_picture(task, 2, Perfect(), validation(task), choose_precision("cpu", "fp32"))
    assert any("epoch 2 has no picture" in line.message for line in caplog.records)


def test_the_line_of_an_epoch_says_what_a_person_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines = EpochLines(11)
    lines(record(1, images_per_second=312.4, waiting=0.02, memory_bytes=3 * 2**30, gpu_memory_bytes=5 * 2**29))
    lines(record(2))
    assert caplog.messages[0].startswith("epoch 1 of 11: loss 1.0000")
    told = "10 s, 312 images/s, 2% waiting for data, 3.0 GB memory, 2.5 GB of the GPU's, 2 min to go"
    assert caplog.messages[0].endswith(f"({told})")
    assert caplog.messages[1].endswith("(10 s, 2 min to go)")


def test_waiting_is_a_warning_with_the_setting_that_helps_once(caplog: pytest.LogCaptureFixture) -> None:
    lines = EpochLines(9)
    for epoch, hint in enumerate(("", "set train.loader_threads higher", "set train.loader_threads higher"), start=1):
        lines(record(epoch, waiting=0.2, waiting_hint=hint))
    warnings = [line.message for line in caplog.records if line.levelno == logging.WARNING]
    assert warnings == [
        "epoch 2: 20 % of the time of training steps went into waiting for data: set train.loader_threads higher"
    ]


def test_records_of_before_have_no_such_numbers() -> None:
    names = scalars(record(1), CLASSES)
    assert "train/images_per_second" not in names
    assert names["validation/bone_dice"] == 0.25


def mlflow_points(uri: str, key: str) -> list[tuple[int, float]]:
    client = Registry(uri)._client
    experiment = client.get_experiment_by_name("boneseg")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]


def test_mlflow_hears_of_a_run_while_it_runs_and_each_epoch_once(task: Task, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'server.db'}"
    first = MlflowRun(uri, patience=120)
    first.begin(task)
    first.epoch(record(1))
    first.end(False)
    again = MlflowRun(uri, patience=120)
    again.begin(task)
    for epoch in (1, 2):
        again.epoch(record(epoch))
    again.end(True)
    assert mlflow_points(uri, "train/loss") == [(1, 1.0), (2, 0.5)]
    assert mlflow_points(uri, "validation_dice/patient_outline") == [(1, 0.5), (2, 0.5)]


def test_an_mlflow_server_that_fails_or_hangs_neither_stops_nor_slows_a_run(
    task: Task, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, hangs = threading.Event(), threading.Event()

    def hang(self: object) -> None:
        asked.set()
        hangs.wait()
        raise ConnectionError("no route to the server")

    monkeypatch.setattr(tracking._Sender, "_open", hang)
    run = MlflowRun("http://127.0.0.1:1", patience=0)
    run.begin(task)
    for epoch in range(1, 50):
        run.epoch(record(epoch))
    run.end(True)  # returns although the server has not answered once
    assert asked.wait(60)
    assert run._thread.is_alive()
    hangs.set()
    run._thread.join()
    assert len([line for line in caplog.records if "cannot be told" in line.message]) == 1


def test_what_a_server_has_missed_is_sent_when_it_is_back(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'server.db'}"
    whole, failures = Registry.log_points, iter([True, True, False, False, False])

    def failing(self: Registry, run_id: str, metrics: Any) -> None:
        if next(failures):
            raise ConnectionError
        whole(self, run_id, metrics)

    monkeypatch.setattr(Registry, "log_points", failing)
    run = MlflowRun(uri, patience=120)
    run.begin(task)
    for epoch in (1, 2, 3):
        run.epoch(record(epoch))
    run.end(True)
    assert mlflow_points(uri, "train/loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]


def test_without_a_server_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert trackers(PublishSettings()) == ()
    (run,) = trackers(PublishSettings(tracking_uri="http://mlflow.example.org"))
    assert isinstance(run, MlflowRun)
