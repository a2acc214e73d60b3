import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from segmentation_models_pytorch.encoders import get_encoder
from torch import nn

from boneseg.dataset.shards import load_dataset
from boneseg.dataset.slices import SliceDataset, TrainingBatches
from boneseg.errors import ModelError, SettingsError
from boneseg.geometry import axial
from boneseg.inference import predict_volume
from boneseg.models.checkpoint import fetch_model, load_model
from boneseg.models.precision import choose_precision
from boneseg.settings.loading import parse_settings
from boneseg.settings.schema import PreprocessSettings, RunSettings, Split, TrainSettings
from boneseg.storage.workspace import Workspace
from boneseg.train.epoch import precise_batch_norm
from boneseg.train.optimisation import build_optimizer, learning_rate
from boneseg.train.train import train, train_run
from tests.train.data import make_patient, put_dataset

QUICK: dict[str, Any] = {
    "epochs": 1,
    "steps_per_epoch": 2,
    "batch_size": 2,
    "crop": 64,
    "loader_threads": 0,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("rate", [1.0, 0.001])
def test_adadelta_steps_as_its_paper_says_with_the_constants_of_keras(rate: float) -> None:
    layer = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    settings = TrainSettings(optimizer="adadelta", learning_rate=rate, weight_decay=0.0)
    optimizer = build_optimizer(layer, settings)
    weight = layer.weight.detach().numpy().copy()
    squares, moves = np.zeros_like(weight), np.zeros_like(weight)
    rng = np.random.default_rng(0)
    for _ in range(5):
        gradient = rng.normal(size=weight.shape)
        squares = 0.95 * squares + 0.05 * gradient**2
        move = np.sqrt((moves + 1e-7) / (squares + 1e-7)) * gradient
        moves = 0.95 * moves + 0.05 * move**2
        weight = weight - rate * move
        layer.weight.grad = torch.from_numpy(gradient)
        optimizer.step()
    np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-9)


def test_the_learning_rate_stays_or_falls_as_its_schedule_says() -> None:
    constant = parse_settings({"recipe": "paper"}).train
    assert {learning_rate(step, 100, constant) for step in range(100)} == {1.0}
    rates = [learning_rate(step, 100, TrainSettings(learning_rate=0.1)) for step in range(100)]
    assert rates.index(max(rates)) == 4  # after a warm-up of 5 %
    assert max(rates) == pytest.approx(0.1)
    assert rates[-1] < 0.002


def test_the_paper_recipe_is_the_papers_and_the_user_stands_above_it() -> None:
    settings = parse_settings({"recipe": "paper", "train": {"epochs": 30}, "model": {"encoder": "resnet50"}})
    chosen = settings.train
    assert (chosen.epochs, chosen.steps_per_epoch, chosen.batch_size) == (30, 512, 2)
    assert (chosen.optimizer, chosen.learning_rate, chosen.schedule) == ("adadelta", 1.0, "constant")
    assert (chosen.loss, chosen.augmentation, chosen.gradient_norm) == ("cross_entropy", "paper", None)
    assert (settings.model.architecture, settings.model.encoder) == ("paper-unet", "resnet50")
    assert settings.model.preprocess.size == 512
    assert parse_settings({"recipe": "paper-tf-keras"}).train.learning_rate == 0.001
    assert parse_settings(settings.model_dump_json()) == settings


def test_the_paper_recipe_trains_and_its_network_labels_a_series(workspace: Workspace, dataset_uri: str) -> None:
    settings = parse_settings({"recipe": "paper", "train": QUICK, "model": {"preprocess": {"size": 64}}})
    result = train(workspace, dataset_uri, settings)
    network, card = load_model(fetch_model(workspace, result.model_uri))
    assert (card.model.architecture, card.train.optimizer) == ("paper-unet", "adadelta")
    hu, _ = make_patient(np.random.default_rng(9), 2, 96)
    assert predict_volume(network, card.model.preprocess, hu, axial(hu.shape, (3, 1, 1))).shape == hu.shape


def test_a_network_trains_on_slices_with_their_neighbours(workspace: Workspace, dataset_uri: str) -> None:
    model = {"architecture": "linknet", "encoder": "mobilenet_v2", "preprocess": {"slices": 3, "spacing_mm": 1.5}}
    result = train(workspace, dataset_uri, parse_settings({"train": QUICK, "model": model}))
    network, card = load_model(fetch_model(workspace, result.model_uri))
    hu, _ = make_patient(np.random.default_rng(9), 4, 96)
    geometry = axial(hu.shape, (3, 1, 1))
    whole = predict_volume(network, card.model.preprocess, hu, geometry)
    np.testing.assert_array_equal(predict_volume(network, card.model.preprocess, hu, geometry, slices=[2]), whole[2:3])
    first = next(network.network.get_submodule("encoder").parameters())
    assert first.shape[1] == 3


@pytest.mark.parametrize(("epoch", "settled"), [(1, True), (250, False)])
def test_early_validation_uses_the_statistics_of_the_epochs_images(
    workspace: Workspace, dataset_uri: str, epoch: int, settled: bool
) -> None:
    records = load_dataset(workspace, dataset_uri).of(Split.TRAIN)
    batches = TrainingBatches(
        SliceDataset(workspace, records, PreprocessSettings(spacing_mm=None)), TrainSettings(**QUICK)
    )
    network = nn.Sequential(nn.Identity(), nn.BatchNorm2d(1, momentum=0.01))
    precise_batch_norm(network, batches, epoch, choose_precision("cpu", "fp32"))
    means = [float(batch.image.mean()) for batch in batches.epoch(epoch)]
    assert float(network[1].running_mean) == pytest.approx(np.mean(means) if settled else 0.0, rel=1e-4)


def pretrained_run(workspace: Workspace, uri: str, mirror: Path | None, **changes: Any) -> dict[str, torch.Tensor]:
    """Train so gently that the weights stay what they were at the start; return the encoder's."""
    model = {"architecture": "unet", "encoder": "resnet18", "weights": "imagenet"}
    train_settings = {**QUICK, "learning_rate": 1e-12, "weight_decay": 0.0, **changes}
    train_settings["weights_mirror"] = None if mirror is None else str(mirror)
    settings: RunSettings = parse_settings({"train": train_settings, "model": model})
    result = train_run(workspace, load_dataset(workspace, uri), settings.model, settings.train)
    network, _ = load_model(fetch_model(workspace, result.model_uri))
    return dict(network.network.get_submodule("encoder").named_parameters())


def test_training_starts_from_the_weights_of_the_mirror(workspace: Workspace, dataset_uri: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    published = get_encoder("resnet18", in_channels=3, weights=None)
    folder = tmp_path / "mirror" / "resnet18"
    folder.mkdir(parents=True)
    safetensors.torch.save_file(published.state_dict(), folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    note = {"sha256": digest, "source": "here", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    (folder / "weights.json").write_text(json.dumps(note))
    trained = pretrained_run(workspace, dataset_uri, folder.parent)
    for name, weight in published.named_parameters():
        if name != "conv1.weight":
            torch.testing.assert_close(trained[name], weight, rtol=0, atol=1e-6)
    assert trained["conv1.weight"].shape[1] == 1


def test_absent_weights_stop_a_run_before_it_starts(workspace: Workspace, dataset_uri: str) -> None:
    with pytest.raises(ModelError, match=r"weights/resnet18/model.safetensors.*boneseg weights mirror"):
        pretrained_run(workspace, dataset_uri, None)
    assert not list(workspace.store.list("runs/"))


@pytest.mark.parametrize(("architecture", "alone"), [("pspnet", True), ("deeplabv3plus", False)])
def test_a_slice_left_over_does_not_end_networks_that_pool_a_whole_image(
    workspace: Workspace, architecture: str, alone: bool
) -> None:
    uri = put_dataset(workspace, slices=9, size=64)
    quick = {**QUICK, "steps_per_epoch": None, "batch_size": 17}  # of 18 slices one is left over
    model = {"architecture": architecture, "encoder": "mobilenet_v2"}
    assert train(workspace, uri, parse_settings({"train": quick, "model": model})).best_epoch == 1
    single = parse_settings({"train": {**QUICK, "batch_size": 1}, "model": model})
    if alone:
        assert train(workspace, uri, single).best_epoch == 1
    else:
        with pytest.raises(SettingsError, match=r"set train.batch_size to 2"):
            train(workspace, uri, single)
