"""Shards come before they are needed, from a cache that may be smaller than the data; the wait for them is measured."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from boneseg.dataset import open_shards
from boneseg.dataset.feed import AUGMENT, FETCH, READ, Clock, fetched_ahead
from boneseg.dataset.slices import SliceDataset, TrainingBatches, loader_threads
from boneseg.errors import StoreError
from boneseg.settings.schema import TrainSettings
from boneseg.storage.client import ObjectInfo, ObjectStore
from boneseg.storage.workspace import Workspace
from tests.dataset.test_slices import PLAIN, WINDOW, shard
from tests.storage.test_shared_cache import full_disk

PATIENCE = 60


@pytest.fixture
def slices(workspace: Workspace) -> SliceDataset:
    records = [shard(workspace, "s" * number, (4, 100, 120 + number), 2) for number in range(1, 7)]  # no two alike
    return SliceDataset(workspace, records, WINDOW)


def epoch(slices: SliceDataset, number: int = 1, **settings: object) -> list[torch.Tensor]:
    batches = TrainingBatches(slices, PLAIN.model_copy(update={"steps_per_epoch": 6, **settings}))
    return [batch.image for batch in batches.epoch(number)]


def empty(workspace: Workspace) -> None:
    for path in (workspace.cache / "objects").rglob("*"):
        if path.is_file():
            path.unlink()


class Ticking:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize(("making", "training", "share"), [(3.0, 1.0, 0.75), (0.0, 1.0, 0.0), (0.5, 9.5, 0.05)])
def test_the_share_of_waiting_is_the_time_in_which_no_batch_was_there(
    making: float, training: float, share: float
) -> None:
    now = Ticking()
    clock = Clock(now)

    def batches() -> Iterator[int]:
        for step in range(10):
            now.seconds += making
            yield step

    for _ in clock.timed(batches(), [4] * 10, lambda: False):
        now.seconds += training
    assert clock.share == pytest.approx(share)
    assert clock.passed == pytest.approx(10 * (making + training))
    assert clock.images == 40


def test_a_device_that_still_computes_does_not_wait() -> None:
    now = Ticking()
    clock = Clock(now)
    busy = iter([False, True, True, False])

    def batches() -> Iterator[int]:
        for step in range(4):
            now.seconds += 1
            yield step

    for _ in clock.timed(batches(), [1] * 4, lambda: next(busy)):
        now.seconds += 1
    assert clock.share == pytest.approx(2 / 8)


@pytest.mark.parametrize(("fetch", "read", "augment"), [(5.0, 1.0, 1.0), (0.0, 2.0, 1.0), (1.0, 1.0, 4.0)])
def test_what_was_slow_is_told(fetch: float, read: float, augment: float) -> None:
    now = Ticking()
    clock = Clock(now)
    with clock.spending(AUGMENT):
        with clock.spending(READ):
            with clock.spending(FETCH):
                now.seconds += fetch
            now.seconds += read
        now.seconds += augment
    spent = {FETCH: fetch, READ: read, AUGMENT: augment}
    assert clock.slowest == max(spent, key=lambda kind: spent[kind])


def test_shards_are_fetched_in_the_order_of_use_no_further_ahead_than_allowed() -> None:
    fetched: list[int] = []
    came = threading.Condition()

    def fetch(shard: int) -> None:
        with came:
            fetched.append(shard)
            came.notify_all()

    def wait_for(count: int) -> None:
        with came:
            assert came.wait_for(lambda: len(fetched) >= count, PATIENCE)

    wanted = [[0], [1, 1], [0, 2], [3], [4], [5]]
    batches = fetched_ahead(iter(range(6)), wanted, 2, fetch)
    next(batches)
    wait_for(4)  # of steps 0 to 3; shard 0 of step 2 is there already
    assert sorted(fetched) == [0, 1, 2, 3]
    next(batches)
    wait_for(5)
    assert sorted(fetched) == [0, 1, 2, 3, 4]
    batches.close()


def test_a_fetch_that_fails_leaves_it_to_who_opens_the_shard_to_say_so() -> None:
    def fetch(shard: int) -> None:
        raise StoreError("gone")

    assert list(fetched_ahead(iter(range(5)), [[step] for step in range(5)], 9, fetch)) == [0, 1, 2, 3, 4]


def test_the_next_shards_come_while_a_batch_is_made(
    slices: SliceDataset, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch is held up until shards that only later batches need are in the cache."""
    empty(workspace)
    there = threading.Event()
    download, seen = ObjectStore.download, set()

    def noted(self: ObjectStore, key: str, path: Path) -> ObjectInfo:
        info = download(self, key, path)
        seen.add(key)
        if len(seen) == 2 * len(slices.records):
            there.set()
        return info

    monkeypatch.setattr(ObjectStore, "download", noted)
    held = SliceDataset(workspace, slices.records, WINDOW)
    batches = TrainingBatches(held, PLAIN.model_copy(update={"steps_per_epoch": 20, "batch_size": 1})).epoch(1)
    next(batches)
    assert there.wait(PATIENCE)
    batches.close()


def test_data_larger_than_the_cache_trains_the_same(
    slices: SliceDataset, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = epoch(slices)
    whole = sum(record.image.size + record.label.size for record in slices.records)
    empty(workspace)
    monkeypatch.setenv("BONESEG_CACHE_GB", str(whole / 3 / 2**30))
    small = SliceDataset(workspace, slices.records, WINDOW)
    assert not small.fits_cache
    for threads in (0, 2):
        for image, same in zip(expected, epoch(small, loader_threads=threads), strict=True):
            assert torch.equal(image, same)


def test_a_process_holds_no_more_open_than_its_share_of_the_cache(
    slices: SliceDataset, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = slices.records[0].image.size + slices.records[0].label.size
    monkeypatch.setenv("BONESEG_CACHE_GB", str(2.5 * open_shards.CACHE_SHARE * one / 2**30))
    shards = open_shards.OpenShards(workspace, slices.records)
    for number in range(6):
        np.testing.assert_array_equal(shards.get(number).label[0], slices[4 * number][1])
    assert [number for number in range(6) if number in shards] == [4, 5]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    shards.get(0)
    assert [number for number in range(6) if number in shards] == [0]


def test_training_goes_on_where_the_disk_is_full(
    slices: SliceDataset, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = epoch(slices)
    empty(workspace)
    with full_disk(monkeypatch, lambda: True):
        read = epoch(SliceDataset(workspace, slices.records, WINDOW), loader_threads=2)
    for image, same in zip(expected, read, strict=True):
        assert torch.equal(image, same)
    told = [record.message for record in caplog.records if "free some space" in record.message]
    assert len(told) == 1
    assert "into memory" in told[0]


def test_on_a_full_disk_shards_that_nobody_needs_now_are_let_go_of_first(
    slices: SliceDataset, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = open_shards.OpenShards(workspace, slices.records)
    for number in range(5):
        shards.get(number)
    last = slices.records[5]
    for ref in (last.image, last.label):
        (workspace.cache / "objects" / ref.sha256[:2] / ref.sha256).unlink()
    with full_disk(monkeypatch, lambda: 0 in shards):
        assert not shards.get(5).in_memory
    assert [number for number in range(6) if number in shards] == [5]


def test_threads_follow_the_cpus_that_a_worker_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boneseg.machine.cpus", lambda root=None: 32)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    automatic = TrainSettings()
    assert loader_threads(automatic) == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert loader_threads(automatic) == 3
    assert loader_threads(automatic.model_copy(update={"device": "cpu"})) == 1
    assert loader_threads(automatic.model_copy(update={"loader_threads": 5})) == 5
    assert loader_threads(automatic.model_copy(update={"loader_threads": 0})) == 0
