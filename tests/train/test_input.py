"""A run whose loader is too slow says so, in numbers, in the log, in its card; and it shows its slices."""

import logging

import pytest
import torch

from boneseg.dataset import slices as slices_module
from boneseg.dataset.feed import Clock
from boneseg.dataset.slices import Planes, SliceDataset, TrainingBatches
from boneseg.models.checkpoint import fetch_model, read_card
from boneseg.settings.schema import RunSettings, TrainSettings
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace
from boneseg.train.measured import measure
from boneseg.train.pictures import picture_file
from boneseg.train.process_group import ProcessGroup
from boneseg.train.train import train
from tests.dataset.test_feed import Ticking
from tests.dataset.test_slices import WINDOW, shard
from tests.train.test_listeners import events_of, points_of


def slow_reading(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Ticking:
    """Let each slice take some seconds of a clock that nothing else moves."""
    now, whole = Ticking(), SliceDataset._planes

    def planes(self: SliceDataset, index: int, slab_mm: float) -> Planes:
        now.seconds += seconds
        return whole(self, index, slab_mm)

    monkeypatch.setattr(slices_module, "Clock", lambda: Clock(now))
    monkeypatch.setattr(SliceDataset, "_planes", planes)
    return now


def test_a_run_that_waits_for_data_says_so_everywhere(
    workspace: Workspace,
    dataset_uri: str,
    quick: RunSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    slow_reading(monkeypatch, 2.0)
    settings = quick.model_copy(update={"train": quick.train.model_copy(update={"epochs": 1, "pictures_every": 1})})
    result = train(workspace, dataset_uri, settings)
    (record,) = read_card(fetch_model(workspace, result.model_uri)).history
    assert record.waiting == pytest.approx(1.0)
    assert record.images_per_second == pytest.approx(0.5)  # three steps of four slices in 24 s
    assert record.memory_bytes is not None
    assert record.memory_bytes > 2**26
    assert any("100 % of the time of training steps went into waiting for data" in text for text in caplog.messages)
    assert any("set train.loader_threads higher (now 0" in text for text in caplog.messages)
    folder = workspace.run_folder("quick")
    events = events_of(folder / "tensorboard")
    assert points_of(events, "train/waiting_share") == [(1, pytest.approx(1.0))]
    assert [event.step for event in events for value in event.summary.value if value.HasField("image")] == [1]
    stored = workspace.store.read_if_there(layout.run("quick", picture_file(1)))
    assert stored in (None, (folder / picture_file(1)).read_bytes())  # it is sent without anybody waiting


@pytest.mark.parametrize(
    ("spent", "threads", "fits", "hint"),
    [
        ({"fetch": 5.0, "read": 6.0, "augment": 7.0}, 1, False, "BONESEG_CACHE_GB"),
        ({"fetch": 5.0, "read": 6.0, "augment": 7.0}, 1, True, "later epochs"),
        ({"fetch": 0.0, "read": 1.0, "augment": 7.0}, 1, True, "train.loader_threads"),
        ({"fetch": 0.0, "read": 1.0, "augment": 7.0}, 4, True, "train.augmentation to basic"),
        ({"fetch": 0.0, "read": 6.0, "augment": 7.0}, 4, True, "more CPUs"),
    ],
)
def test_the_hint_names_the_setting_that_helps(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    spent: dict[str, float],
    threads: int,
    fits: bool,
    hint: str,
) -> None:
    record = shard(workspace, "a", (4, 64, 64), 2)
    if not fits:
        monkeypatch.setenv("BONESEG_CACHE_GB", "0.00001")
    monkeypatch.setattr("boneseg.train.measured.cpu_share", lambda: 4)
    slices = SliceDataset(workspace, [record], WINDOW)
    batches = TrainingBatches(slices, TrainSettings(loader_threads=threads))
    clock = slices.clock
    clock.images, clock.passed, clock.spent = 80, 40.0, spent
    for waited, told in ((1.9, False), (2.1, True)):  # of 40 s: 5 % is the border
        clock.waited = waited
        measured = measure(batches, torch.device("cpu"), ProcessGroup())
        assert (hint in measured.waiting_hint) == told
        assert bool(measured.waiting_hint) == told
    assert measured.images_per_second == 2.0
