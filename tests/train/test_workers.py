"""Any number of workers, and workers that are lost on the way, make the same training: here without Ray."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from boneseg.dataset.shards import load_dataset
from boneseg.dataset.slices import Batch
from boneseg.errors import SettingsError
from boneseg.models.card import EpochRecord
from boneseg.models.precision import choose_precision
from boneseg.settings.loading import parse_settings
from boneseg.settings.schema import Loss, RunSettings, Split, TrainSettings
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace
from boneseg.train.epoch import training_step
from boneseg.train.loop import fit
from boneseg.train.losses import loss_of
from boneseg.train.process_group import ProcessGroup
from boneseg.train.runs import RUN_FILE, RunRecord, plan
from boneseg.train.task import Task
from boneseg.train.train import train
from boneseg.train.training_state import StateKeeper

MOST = 3


class LostError(Exception):
    """As if Ray ended all workers, since one is gone."""


def leave(record: EpochRecord) -> None:
    raise LostError


def go_on(record: EpochRecord) -> None:
    pass


def member(rank: int, folder: str, task: Task) -> None:
    """Train with one, two and three workers, and with three of which two go on after an epoch."""
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "BONESEG_STEP_CHECK": "0"}
    torch.set_num_threads(1)
    phases = [("1", 1, go_on), ("2", 2, go_on), ("3", 3, go_on), ("lost", 3, leave), ("lost", 2, go_on)]
    for number, (run, size, report) in enumerate(phases):
        meeting = dist.FileStore(f"{folder}/meeting{number}", size)
        if rank >= size:
            continue
        dist.init_process_group("gloo", store=meeting, rank=rank, world_size=size)
        try:
            fit(replace(task, run=run), ProcessGroup(rank, size, "cpu"), report)
        except LostError:
            continue
        finally:
            dist.destroy_process_group()


@pytest.mark.slow
def test_one_two_and_three_workers_agree_although_one_is_lost(
    workspace: Workspace, dataset_uri: str, quick: RunSettings, tmp_path: Path
) -> None:
    dataset = load_dataset(workspace, dataset_uri)
    # AdamW's first steps make much of gradients that only rounding tells from 0: the rate bounds what that leads to.
    settings = quick.train.model_copy(update={"precision": "fp32", "epochs": 3, "learning_rate": 1e-4})
    series = dataset.of(Split.TRAIN), dataset.of(Split.VALIDATION)
    task = Task(workspace, "", "identity", quick.model, settings, *series, labelling=dataset.labelling)
    multiprocessing.spawn(member, (str(tmp_path), task), nprocs=MOST)
    one, *others = (StateKeeper(workspace, run, "identity").load() for run in ("1", "2", "3", "lost"))
    assert [record.epoch for record in one.history] == [1, 2, 3]
    losses = [record.train_loss for record in one.history]
    assert losses[2] < losses[0]
    for other in others:
        assert other.history[0].train_loss == pytest.approx(losses[0], rel=2e-4)
        assert [record.train_loss for record in other.history] == pytest.approx(losses, rel=2e-3)
        assert [record.validation_loss for record in other.history] == pytest.approx(
            [record.validation_loss for record in one.history], rel=1e-2
        )
        accuracy = [record.train_accuracy for record in one.history]
        assert [record.train_accuracy for record in other.history] == pytest.approx(accuracy, abs=2e-2)


@pytest.mark.parametrize("kind", list(Loss))
@pytest.mark.parametrize("micro", [1, 3, 8])
def test_a_batch_computed_piece_by_piece_takes_the_step_of_the_whole(kind: Loss, micro: int) -> None:
    settings = TrainSettings(batch_size=8, crop=32, loss=kind, micro_batch=micro)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((8, 1, 32, 32), generator=generator)
    label = torch.randint(0, 3, (8, 32, 32), generator=generator, dtype=torch.uint8)
    label[:3] = 0  # pieces differ in what they hold
    networks = []
    for _ in range(2):
        torch.manual_seed(1)
        networks.append(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 1)))
    whole, pieces = networks
    loss = loss_of(kind, whole(image), label.long())
    loss.backward()
    nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
    torch.optim.SGD(whole.parameters(), lr=0.5).step()
    optimizer = torch.optim.SGD(pieces.parameters(), lr=0.5)
    found, _ = training_step(pieces, optimizer, Batch(image, label), settings, choose_precision("cpu", "fp32"))
    torch.testing.assert_close(found, loss.detach())
    torch.testing.assert_close(dict(pieces.named_parameters()), dict(whole.named_parameters()))


def test_asking_a_network_twice_for_the_whole_dice_leaves_no_trace() -> None:
    """Dropout draws the same numbers in both passes, and running statistics follow once."""
    settings = TrainSettings(batch_size=8, crop=32, loss=Loss.DICE, micro_batch=4)
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 3, 1))
    image, label = torch.rand((8, 1, 32, 32)), torch.randint(0, 3, (8, 32, 32), dtype=torch.uint8)
    mean = torch.zeros(8)
    for half in image.split(4):
        mean = 0.9 * mean + 0.1 * network[0](half).mean((0, 2, 3))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    torch.manual_seed(2)
    found, _ = training_step(network, optimizer, Batch(image, label), settings, choose_precision("cpu", "fp32"))
    torch.testing.assert_close(network[1].running_mean, mean.detach())
    assert network[1].num_batches_tracked == 2
    torch.manual_seed(2)
    logits = torch.cat([network(half) for half in image.split(4)])
    torch.testing.assert_close(found, loss_of(Loss.DICE, logits, label.long()).detach())


@pytest.mark.parametrize(
    ("given", "found"), [(3, (3, 3)), ("3", (3, 3)), ("2..8", (2, 8)), (" 2 .. 8 ", (2, 8)), ("4..4", (4, 4))]
)
def test_workers_are_a_number_or_a_range(given: object, found: tuple[int, int]) -> None:
    settings = parse_settings({"train": {"workers": given}}).train
    assert settings.workers_range == found
    assert TrainSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("given", [0, "0", "8..2", "0..4", "2-8", "many", "2..", "..8", 1.5, "-1"])
def test_other_workers_are_refused(given: object) -> None:
    with pytest.raises(SettingsError, match="workers"):
        parse_settings({"train": {"workers": given}})


@pytest.mark.parametrize("workers", [2, 7, "2..8"])
def test_a_run_is_the_same_with_any_number_of_workers_and_any_pieces(quick: RunSettings, workers: object) -> None:
    changed = quick.train.model_copy(update={"workers": workers, "micro_batch": 2})
    one, other = (RunRecord.of("d", quick.model, train) for train in (quick.train, changed))
    assert other.default_name() == one.default_name()
    assert not other.differences(one)


def test_a_run_of_batches_that_each_worker_had_is_another_one(workspace: Workspace, quick: RunSettings) -> None:
    record = RunRecord.of("d", quick.model, quick.train)
    earlier = record.model_copy(update={"train": {**record.train, "workers": 2}})
    assert earlier.identity != record.identity
    workspace.store.write(layout.run("old", RUN_FILE), earlier.to_json(), "application/json")
    with pytest.raises(SettingsError, match=r"4 in each of 2.*train.batch_size = 8"):
        plan(workspace, "old", record)


def test_fewer_slices_than_workers_are_refused(workspace: Workspace, dataset_uri: str, quick: RunSettings) -> None:
    settings = quick.model_copy(update={"train": quick.train.model_copy(update={"workers": "5..8"})})
    with pytest.raises(SettingsError, match=r"5\.\.8.*batch_size = 4"):
        train(workspace, dataset_uri, settings)
