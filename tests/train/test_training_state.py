"""The state of a run: in two places, either of which may be damaged, away or somebody else's."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from boneseg.errors import SettingsError, StoreError
from boneseg.models.card import EpochRecord
from boneseg.storage import layout
from boneseg.storage.client import ObjectStore
from boneseg.storage.workspace import Workspace
from boneseg.train.training_state import Progress, StateKeeper, TrainingState


def keeper(workspace: Workspace, machine: str = "here", identity: str = "x", keep_last: int = 2) -> StateKeeper:
    return StateKeeper(replace(workspace, folder=workspace.folder / machine), "run", identity, keep_last)


def keys(workspace: Workspace) -> list[str]:
    """Return the keys of the states in the bucket, oldest first."""
    return [item.key for item in workspace.store.list(layout.run("run", "states/"))]


def positions(workspace: Workspace) -> list[tuple[int, int]]:
    """Return what the record lists, having checked that just that is there."""
    place = layout.run("run", "progress.json")
    listed = Progress.read(workspace.store.read(place), place, "").states
    assert sorted(layout.run("run", each.file) for each in listed) == keys(workspace)
    return [each.position for each in listed]


def state(epoch: int, step: int = 0, best_epoch: int = 1) -> TrainingState:
    records: list[dict[str, Any]] = [
        {
            **dict.fromkeys(("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"), 0.5),
            **dict.fromkeys(("validation_iou", "validation_dice"), (0.5, 0.5, 0.5)),
            **dict.fromkeys(("validation_mean_iou", "validation_mean_dice", "seconds"), 0.5),
            "epoch": number,
        }
        for number in range(1, epoch + 1)
    ]
    history = tuple(EpochRecord.model_validate(record) for record in records)
    weights = {"weight": torch.full((64, 64), epoch + step / 100)}
    optimizer: dict[str, Any] = {"state": {}, "param_groups": []}
    return TrainingState(epoch, history, best_epoch, weights, weights, optimizer, "cpu, fp32", step)


def save(workspace: Workspace, *epochs: int) -> StateKeeper:
    saving = keeper(workspace)
    saving.take_over()
    for epoch in epochs:
        saving.save(state(epoch))
    saving.wait()
    return saving


def flipped(data: bytes) -> bytes:
    """Change one bit among the weights, which torch alone would not notice."""
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES = {
    "flipped": flipped,
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "other": lambda _: b"x",
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_state_is_replaced_by_the_other_copy_or_by_the_one_before(
    workspace: Workspace, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(workspace, 1, 2).path
    (first, second), whole = keys(workspace), path.read_bytes()

    path.write_bytes(DAMAGES[damage](whole))
    assert torch.equal(keeper(workspace).load().weights["weight"], state(2).weights["weight"])
    assert "is damaged" in caplog.text
    assert path.read_bytes() == whole  # healed

    caplog.clear()
    workspace.store.write(second, DAMAGES[damage](whole))
    assert keeper(workspace).load().epoch == 2
    path.unlink()
    assert keeper(workspace).load().epoch == 1
    assert f"{second} is damaged; the state before it is used" in caplog.text
    path.write_bytes(DAMAGES[damage](whole))
    workspace.store.write(first, DAMAGES[damage](whole))
    assert keeper(workspace).load().epoch == 0  # all: anew
    again = keeper(workspace, "elsewhere")
    assert again.take_over().epoch == 0
    again.save(state(1))
    again.wait()
    assert keeper(workspace, "third").load().epoch == 1


def test_a_state_that_is_whole_but_not_the_one_that_was_sent_is_not_used(workspace: Workspace) -> None:
    save(workspace, 1, 2)
    first, second = keys(workspace)
    workspace.store.write(second, workspace.store.read(first))
    other = keeper(workspace, "elsewhere")
    assert other.load().epoch == 1
    workspace.store.delete(second)
    assert keeper(workspace, "third").load().epoch == 1


def test_the_bucket_keeps_the_last_states_and_the_best_one(workspace: Workspace) -> None:
    saving = keeper(workspace, keep_last=3)
    saving.take_over()
    for epoch, step in ((1, 0), (1, 5), (2, 0), (2, 5), (3, 0), (3, 5), (3, 10)):
        saving.save(state(epoch, step, best_epoch=min(epoch, 2)))
        saving.wait()  # or a step that comes at once is not sent
    assert positions(workspace) == [(2, 0), (3, 0), (3, 5), (3, 10)]
    assert keeper(workspace, "elsewhere").load().position == (3, 10)
    for key in keys(workspace)[1:]:
        workspace.store.write(key, b"torn")
    assert keeper(workspace, "third").load().position == (2, 0)
    saving.retire()
    assert positions(workspace) == [(3, 10)]
    assert not saving.path.exists()
    saving.discard()
    assert not list(workspace.store.list(layout.run("run")))


def test_what_was_sent_but_never_listed_is_not_taken_for_a_state_and_removed(workspace: Workspace) -> None:
    save(workspace, 1)
    (first,) = keys(workspace)
    orphan = layout.run("run", "states/00009-000000-00000000.pt")
    workspace.store.write(orphan, workspace.store.read(first)[:99])
    assert keeper(workspace, "elsewhere").take_over().epoch == 1
    assert keys(workspace) == [first]


def test_a_killed_writer_leaves_the_state_before_in_use(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    saving = save(workspace, 1)
    monkeypatch.setattr(ObjectStore, "write_if", lambda *arguments: (_ for _ in ()).throw(StoreError("killed")))
    saving.save(state(2))
    with pytest.raises(StoreError, match="killed"):
        saving.wait()
    monkeypatch.undo()
    assert len(keys(workspace)) == 2
    assert keeper(workspace, "elsewhere").take_over().epoch == 1
    assert positions(workspace) == [(1, 0)]


def test_a_damaged_or_missing_progress_record_loses_nothing(workspace: Workspace) -> None:
    save(workspace, 1, 2)
    key = layout.run("run", "progress.json")
    workspace.store.write(key, workspace.store.read(key)[:9])
    assert keeper(workspace, "elsewhere").load().epoch == 2
    workspace.store.delete(key)
    again = keeper(workspace, "third")
    assert again.take_over().epoch == 2
    again.save(state(3))
    again.wait()
    assert keeper(workspace, "fourth").load().epoch == 3


def test_a_state_of_the_first_version_is_continued(workspace: Workspace) -> None:
    path = keeper(workspace).path
    path.parent.mkdir(parents=True)
    content = {"identity": "x", "epoch": 1, "history": [r.model_dump_json() for r in state(1).history]}
    weights = state(1).weights
    torch.save({**content, "best_epoch": 1, "best_weights": weights, "weights": weights, "optimizer": {}}, path)
    workspace.store.write(layout.run("run", "progress.json"), b'{"epoch": 1}')
    workspace.store.write(layout.run("run", "state.pt"), path.read_bytes())
    continued = keeper(workspace, "elsewhere")
    assert continued.take_over().epoch == 1
    continued.save(state(2))
    continued.wait()
    assert keeper(workspace, "third").load().epoch == 2
    workspace.store.write(keys(workspace)[0], b"torn")
    assert keeper(workspace, "fourth").load().epoch == 1
    continued.save(state(3))
    continued.wait()
    assert not workspace.store.exists(layout.run("run", "state.pt"))
    assert keeper(workspace).load().epoch == 3  # although the first machine still has its own


def test_the_machine_that_started_a_run_last_has_it_and_the_other_stops_with_a_sentence(workspace: Workspace) -> None:
    first, second = save(workspace, 1), keeper(workspace, "there")
    assert second.take_over().epoch == 1
    first.save(state(2))
    with pytest.raises(SettingsError, match=r"'run' was started somewhere else.*stopped after epoch 2.*another name"):
        first.wait()
    second.save(state(2))
    second.save(state(3))
    second.wait()
    assert keeper(workspace, "third").load().epoch == 3


class Away(ObjectStore):
    """A store that refuses uploads for a while."""

    away = False

    def upload(self, path: Path, key: str, content_type: str = "application/octet-stream") -> str:
        if self.away:
            raise StoreError("the store does not answer")
        return super().upload(path, key, content_type)


def test_a_bucket_that_is_away_holds_nothing_up_and_has_the_last_state_in_the_end(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    store = Away(workspace.store.endpoint, workspace.store.bucket, workspace.store.credentials)
    there = Workspace(store, workspace.folder)
    saving = keeper(there)
    saving.take_over()
    store.away = True
    with caplog.at_level(logging.WARNING):
        saving.save(state(1))
        saving.save(state(2))
        saving.save(state(3))
    assert "on this machine only (the store does not answer)" in caplog.text
    with pytest.raises(StoreError, match="does not answer"):
        saving.wait()
    assert keeper(there).load().epoch == 3
    store.away = False
    saving.wait()
    assert keeper(workspace, "elsewhere").load().epoch == 3
    assert Progress.read(store.read(layout.run("run", "progress.json")), "here", "").epoch == 3
