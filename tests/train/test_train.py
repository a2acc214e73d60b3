import resource
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from boneseg.dataset.manifest import Dataset
from boneseg.dataset.shards import load_dataset
from boneseg.errors import DataError, ModelError, RecordError, SettingsError, StoreError
from boneseg.geometry import axial
from boneseg.inference import predict_volume
from boneseg.models.card import EpochRecord
from boneseg.models.checkpoint import fetch_model, load_model
from boneseg.settings.schema import RunSettings
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace
from boneseg.train.runs import alone
from boneseg.train.train import train, train_run
from tests.train.data import make_patient, put_dataset, without_time


def changed(settings: RunSettings, name: str | None = "quick", **train_settings: Any) -> RunSettings:
    return settings.model_copy(update={"name": name, "train": settings.train.model_copy(update=train_settings)})


def test_a_network_learns_and_its_card_tells_how(workspace: Workspace, dataset_uri: str, quick: RunSettings) -> None:
    settings = changed(quick, epochs=3, steps_per_epoch=40, learning_rate=2e-3)
    result = train(workspace, dataset_uri, settings)
    network, card = load_model(fetch_model(workspace, result.model_uri))
    assert card.model_hash == result.model_hash
    data = load_dataset(workspace, dataset_uri)
    assert (card.run, card.dataset_hash, card.fingerprint) == ("quick", data.dataset_hash, data.fingerprint)
    assert (card.model, card.train) == (settings.model, settings.train)
    assert [record.epoch for record in card.history] == [1, 2, 3]
    best = max(card.history, key=lambda record: record.validation_mean_iou)
    assert (card.best_epoch, result.best_mean_iou) == (best.epoch, best.validation_mean_iou)
    assert set(card.versions) >= {"torch", "boneseg", "python"}

    hu, label = make_patient(np.random.default_rng(9), 4, 96)
    bone = predict_volume(network, card.model.preprocess, hu, axial(hu.shape, (3, 1, 1))) == 2
    assert 2 * (bone & (label == 2)).sum() / (bone.sum() + (label == 2).sum()) > 0.9


def test_the_same_seed_trains_the_same_network_whatever_the_threads(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    first = train(workspace, dataset_uri, changed(quick, "a", loader_threads=0))
    second = train(workspace, dataset_uri, changed(quick, "b", loader_threads=2))
    assert first.model_hash == second.model_hash
    assert first.model_hash != train(workspace, dataset_uri, changed(quick, "c", seed=1)).model_hash


def test_a_finished_run_is_used_again(workspace: Workspace, dataset_uri: str, quick: RunSettings) -> None:
    first = train(workspace, dataset_uri, quick)
    again = train(workspace, dataset_uri, quick)
    assert (first.reused, again.reused) == (False, True)
    assert again.model_copy(update={"reused": False}) == first


@pytest.mark.parametrize("damage", ["half a card", "half the weights", "a bit of the weights", "no weights"])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_model_that_is_damaged_in_the_bucket_is_made_whole_by_training_again(
    workspace: Workspace, dataset_uri: str, quick: RunSettings, damage: str, where: str
) -> None:
    first = train(workspace, dataset_uri, quick)
    store = workspace.store
    key = layout.model(first.model_hash, "card.json" if damage == "half a card" else "model.safetensors")
    whole = store.read(key)
    if damage == "no weights":
        store.delete(key)
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        store.write(key, flipped if damage == "a bit of the weights" else whole[:middle])
    place = workspace if where == "here" else Workspace(store, workspace.folder.with_name("elsewhere"))
    again = train(place, dataset_uri, quick)
    assert (again.model_hash, again.reused) == (first.model_hash, where == "here")
    load_model(fetch_model(Workspace(store, workspace.folder.with_name("third")), again.model_uri))


def test_a_model_of_before_its_files_were_noted_is_read_to_be_sure(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    first = train(workspace, dataset_uri, quick)
    key = layout.run("quick", "result.json")
    workspace.store.write(key, first.model_copy(update={"files": ()}).to_json())
    assert train(workspace, dataset_uri, quick).reused
    workspace.store.write(layout.model(first.model_hash, "model.safetensors"), b"half")
    elsewhere = Workspace(workspace.store, workspace.folder.with_name("elsewhere"))
    assert not train(elsewhere, dataset_uri, quick).reused


def test_a_damaged_record_of_a_run_is_no_obstacle_where_the_name_says_the_same(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    first = train(workspace, dataset_uri, changed(quick, None))
    for name in (first.run, "given"):
        workspace.store.write(layout.run(name, "run.json"), b"{half")
    assert train(workspace, dataset_uri, changed(quick, None)).model_hash == first.model_hash
    with pytest.raises(RecordError, match=r"give this run another name, or .*store remove runs/given/run.json"):
        train(workspace, dataset_uri, changed(quick, "given"))


def test_a_run_without_a_name_is_found_by_its_content(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    first = train(workspace, dataset_uri, changed(quick, None))
    elsewhere = Workspace(workspace.store, workspace.folder.with_name("elsewhere"))
    assert train(elsewhere, dataset_uri, changed(quick, None, backend="local")).reused
    assert train(workspace, dataset_uri, changed(quick, None, learning_rate=0.01)).run != first.run


def test_a_name_with_other_settings_is_refused_and_says_which(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    train(workspace, dataset_uri, quick)
    with pytest.raises(SettingsError, match=r"train.learning_rate 0.5 \(was 0.001\).*another name"):
        train(workspace, dataset_uri, changed(quick, learning_rate=0.5))
    other_uri = put_dataset(workspace, seed=1)
    before, after = (load_dataset(workspace, uri).dataset_hash for uri in (dataset_uri, other_uri))
    with pytest.raises(SettingsError, match=rf"dataset_hash {after} \(was {before}\)"):
        train(workspace, other_uri, quick)


def test_a_run_interrupted_in_an_epoch_continues_on_another_machine_as_if_nothing_had_happened(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    settings = changed(quick, epochs=4)
    whole = train(workspace, dataset_uri, changed(quick, "whole", epochs=4))

    interrupt_after(2, workspace, load_dataset(workspace, dataset_uri), settings)
    other_machine = Workspace(workspace.store, workspace.folder.with_name("elsewhere"))
    resumed = train(other_machine, dataset_uri, settings)

    assert [without_time(record) for record in resumed.history] == [without_time(record) for record in whole.history]
    assert resumed.model_hash == whole.model_hash


def test_a_finished_trial_leaves_no_state_behind(workspace: Workspace, dataset_uri: str, quick: RunSettings) -> None:
    train_run(workspace, load_dataset(workspace, dataset_uri), quick.model, quick.train, "quick")
    assert {item.key for item in workspace.store.list(layout.run("quick"))} == {
        layout.run("quick", "run.json"),
        layout.run("quick", "result.json"),
    }


def test_a_damaged_state_is_not_used(workspace: Workspace, dataset_uri: str, quick: RunSettings) -> None:
    interrupt_after(1, workspace, load_dataset(workspace, dataset_uri), quick)
    (workspace.run_folder("quick") / "state.pt").write_bytes(b"half")
    assert len(train(workspace, dataset_uri, quick).history) == 2


def test_a_disk_that_is_full_is_named_and_leaves_no_half_state(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing too much then fails as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, limit[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot write the training state.*free some space"):
            train(workspace, dataset_uri, quick)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name for path in workspace.run_folder("quick").iterdir()} == {"lock", "tensorboard"}
    assert len(train(workspace, dataset_uri, quick).history) == 2


def test_two_processes_do_not_train_one_run(workspace: Workspace, dataset_uri: str, quick: RunSettings) -> None:
    with (
        alone(workspace.run_folder("quick"), "quick"),
        pytest.raises(SettingsError, match="being trained by another process"),
    ):
        train(workspace, dataset_uri, quick)


def test_a_loss_that_is_not_a_number_ends_the_run_with_advice(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    with pytest.raises(ModelError, match="lower train"):
        train(workspace, dataset_uri, changed(quick, learning_rate=1e30, steps_per_epoch=6))


def test_an_unknown_model_is_refused_before_anything_is_written(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    model = quick.model.model_copy(update={"encoder": "resnet19"})
    with pytest.raises(SettingsError, match="did you mean resnet18"):
        train(workspace, dataset_uri, quick.model_copy(update={"model": model}))
    assert not list(workspace.store.list("runs/"))


def test_a_dataset_without_validation_is_refused_with_the_fix(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    dataset = load_dataset(workspace, dataset_uri)
    alone_training = dataset.model_copy(update={"entries": dataset.entries[:2]})
    with pytest.raises(DataError, match=r"no validation series.*prepare.splits"):
        train_run(workspace, alone_training, quick.model, quick.train)


def test_local_backend_refuses_several_workers(workspace: Workspace, dataset_uri: str, quick: RunSettings) -> None:
    with pytest.raises(SettingsError, match="in one process, not in 2"):
        train(workspace, dataset_uri, changed(quick, backend="local", workers=2))


class PowerCutError(Exception):
    """Ends a run between two epochs, as a failing machine would."""


def interrupt_after(epochs: int, workspace: Workspace, dataset: Dataset, settings: RunSettings) -> None:
    with pytest.raises(PowerCutError):
        train_run(workspace, dataset, settings.model, settings.train, settings.name, stop_after(epochs))


def stop_after(epochs: int) -> Callable[[EpochRecord], None]:
    def report(record: EpochRecord) -> None:
        # The epoch before this one is in the bucket for certain; this one may still be on its way.
        if record.epoch == epochs:
            raise PowerCutError

    return report
