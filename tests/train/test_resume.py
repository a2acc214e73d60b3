"""A run that is interrupted, at whatever step, ends as if nothing had happened; and a finished one can go on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from boneseg.dataset.shards import load_dataset
from boneseg.errors import SettingsError
from boneseg.models.card import Continuation, EpochRecord
from boneseg.models.checkpoint import fetch_model, load_model, read_card
from boneseg.settings.schema import RunSettings
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace
from boneseg.train.runs import TrainResult
from boneseg.train.train import train, train_run
from boneseg.train.training_state import Progress, StateKeeper, TrainingState
from tests.train.data import without_time


class PowerCutError(Exception):
    """Ends a run, as a failing machine would."""


@pytest.fixture
def quick(quick: RunSettings) -> RunSettings:
    """Return settings of a run that is quicker still, for it is started again and again."""
    return changed(quick, batch_size=2, crop=32, steps_per_epoch=2, precision="fp32")


def changed(settings: RunSettings, name: str | None = "quick", **train_settings: Any) -> RunSettings:
    return settings.model_copy(update={"name": name, "train": settings.train.model_copy(update=train_settings)})


def cut_after_each_save(
    workspace: Workspace, uri: str, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> tuple[TrainResult, int]:
    """Train with the power cut as soon as a state is saved, and again, until the run is finished; count the cuts."""

    class Cut(StateKeeper):
        def save(self, state: TrainingState) -> None:
            super().save(state)
            raise PowerCutError

    cuts = 0
    with monkeypatch.context() as patched:
        patched.setattr("boneseg.train.loop.StateKeeper", Cut)
        while True:
            try:
                return train(workspace, uri, settings), cuts
            except PowerCutError:
                cuts += 1


def final_state(workspace: Workspace, run: str) -> dict[str, Any]:
    """Return what the bucket keeps of a finished run."""
    place = layout.run(run, "progress.json")
    (stored,) = Progress.read(workspace.store.read(place), place, "").states
    path = workspace.folder / "final.pt"
    workspace.store.download(layout.run(run, stored.file), path)
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def assert_equal(one: Any, other: Any) -> None:
    """Compare nested values to the last bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_equal(mine, theirs)
    else:
        assert one == other


@pytest.mark.parametrize(
    "case",
    [
        {"ema": 0.9},
        {"schedule": "one-cycle", "loader_threads": 2},
        {"schedule": "plateau", "plateau_patience": 0, "early_stopping": 9},
        {"schedule": "constant", "optimizer": "adadelta", "architecture": "fpn"},  # which has dropout
    ],
    ids=["ema", "one-cycle", "plateau", "dropout"],
)
def test_a_run_cut_off_after_every_step_is_that_which_was_not(
    workspace: Workspace, dataset_uri: str, quick: RunSettings, monkeypatch: pytest.MonkeyPatch, case: dict[str, Any]
) -> None:
    case = dict(case)
    model = quick.model.model_copy(update={"architecture": case.pop("architecture", quick.model.architecture)})
    settings = quick.model_copy(update={"model": model})
    whole = train(workspace, dataset_uri, changed(settings, "whole", **case))
    often = changed(settings, "often", save_every_steps=1, **case)
    result, cuts = cut_after_each_save(workspace, dataset_uri, often, monkeypatch)
    assert cuts == often.train.epochs * (often.train.steps_per_epoch or 0)
    assert list(map(without_time, result.history)) == list(map(without_time, whole.history))
    assert result.model_hash == whole.model_hash
    one, other = (final_state(workspace, run) for run in ("whole", "often"))
    for part in ("weights", "averaged", "best_weights", "optimizer", "best_epoch"):
        assert_equal(one[part], other[part])


def test_a_state_in_the_middle_of_an_epoch_goes_on_from_the_bucket_and_a_torn_one_from_that_before(
    workspace: Workspace, dataset_uri: str, quick: RunSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = changed(quick, save_every_steps=1, steps_per_epoch=3)
    whole = train(workspace, dataset_uri, changed(quick, "whole", steps_per_epoch=3))
    stopped_with = stop_in_the_middle(workspace, dataset_uri, settings)
    assert stopped_with == [(1, 1), (1, 2)]
    newest = [item.key for item in workspace.store.list(layout.run("quick", "states/"))][-1]
    workspace.store.write(newest, workspace.store.read(newest)[:-1000])
    elsewhere = Workspace(workspace.store, workspace.folder.with_name("elsewhere"))
    result = train(elsewhere, dataset_uri, settings)
    assert f"{newest} is damaged; the state before it is used" in caplog.text
    assert result.model_hash == whole.model_hash
    assert list(map(without_time, result.history)) == list(map(without_time, whole.history))


def stop_in_the_middle(workspace: Workspace, uri: str, settings: RunSettings) -> list[tuple[int, int]]:
    """Stop at step 2 of epoch 2, which has three, when that is in the bucket; return what is there."""

    class Stop(StateKeeper):
        def save(self, state: TrainingState) -> None:
            super().save(state)
            self.wait()
            if state.position == (1, 2):
                raise PowerCutError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("boneseg.train.loop.StateKeeper", Stop)
        with pytest.raises(PowerCutError):
            train(workspace, uri, settings)
    place = layout.run("quick", "progress.json")
    # The state at the end of epoch 1, the best one, is older than the last two.
    return [each.position for each in Progress.read(workspace.store.read(place), place, "").states if each.step]


def test_epochs_are_added_to_a_finished_run_and_its_card_says_so(
    workspace: Workspace, dataset_uri: str, quick: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = changed(quick, schedule="one-cycle")
    first = train(workspace, dataset_uri, changed(quick, epochs=1))
    longer = train(workspace, dataset_uri, changed(quick, epochs=3))
    assert [record.epoch for record in longer.history] == [1, 2, 3]
    assert longer.history[0] == first.history[0]  # it was not trained again
    _, card = load_model(fetch_model(workspace, longer.model_uri))
    assert card.continued == (Continuation(run="quick", epoch=1),)
    assert card.train.epochs == 3
    scratch = train(workspace, dataset_uri, changed(quick, "scratch", epochs=3))
    assert scratch.history[1].train_loss != longer.history[1].train_loss  # its rates were others
    assert load_model(fetch_model(workspace, scratch.model_uri))[1].continued == ()

    assert train(workspace, dataset_uri, changed(quick, epochs=3)).reused
    with pytest.raises(SettingsError, match=r"train.epochs 1 \(was 3\)"):
        train(workspace, dataset_uri, changed(quick, epochs=1))
    further, _ = cut_after_each_save(workspace, dataset_uri, changed(quick, epochs=4), monkeypatch)
    assert [record.epoch for record in further.history] == [1, 2, 3, 4]
    # Not the copy that was fetched before: where no later epoch was better, the model has the same name.
    assert [each.epoch for each in read_card(workspace.run_folder("quick") / "model").continued] == [1, 3]


def test_epochs_added_to_a_run_named_by_its_settings_make_a_run_of_their_own(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    first = train(workspace, dataset_uri, changed(quick, None, epochs=1))
    longer = train(workspace, dataset_uri, changed(quick, first.run, epochs=2))
    assert longer.run != first.run
    assert longer.history[0] == first.history[0]
    scratch = train(workspace, dataset_uri, changed(quick, None, epochs=2))
    assert scratch.run not in (first.run, longer.run)
    assert train(workspace, dataset_uri, changed(quick, None, epochs=1)) == first.model_copy(update={"reused": True})
    assert train(workspace, dataset_uri, changed(quick, longer.run, epochs=2)).reused
    furthest = train(workspace, dataset_uri, changed(quick, longer.run, epochs=3))
    assert [record.epoch for record in furthest.history] == [1, 2, 3]


def test_epochs_cannot_be_added_where_there_is_nothing_to_add_them_to(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    train(workspace, dataset_uri, changed(quick, epochs=1, keep_final=False))
    kept = {item.key for item in workspace.store.list(layout.run("quick")) if not item.key.endswith(".png")}
    assert kept == {
        layout.run("quick", "run.json"),
        layout.run("quick", "result.json"),
    }
    with pytest.raises(SettingsError, match=r"'quick' keeps no state.*another name"):
        train(workspace, dataset_uri, changed(quick, epochs=2))
    assert train(workspace, dataset_uri, changed(quick, epochs=1)).reused  # nothing was changed by asking

    def stop(record: EpochRecord) -> None:
        raise PowerCutError

    dataset, unfinished = load_dataset(workspace, dataset_uri), changed(quick, "unfinished")
    with pytest.raises(PowerCutError):
        train_run(workspace, dataset, unfinished.model, unfinished.train, "unfinished", stop)
    with pytest.raises(SettingsError, match=r"train.epochs 3 \(was 2\); finish it with the old value"):
        train(workspace, dataset_uri, changed(quick, "unfinished", epochs=3))


def test_training_ends_when_nothing_is_gained_and_can_still_be_given_epochs(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    hopeless = {"learning_rate": 1e-12, "early_stopping": 2, "early_stopping_gain": 0.5, "steps_per_epoch": 1}
    result = train(workspace, dataset_uri, changed(quick, epochs=9, **hopeless))
    assert len(result.history) == 3
    assert train(workspace, dataset_uri, changed(quick, epochs=9, **hopeless)).reused
    longer = train(workspace, dataset_uri, changed(quick, epochs=10, **hopeless))
    assert len(longer.history) == 5
