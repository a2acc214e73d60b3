from pathlib import Path

import pytest
import torch

from boneseg.errors import ModelError, StoreError
from boneseg.models import paper
from boneseg.models.build import build_model, count_parameters
from boneseg.models.card import CARD_FILE, WEIGHTS_FILE, ModelCard
from boneseg.models.checkpoint import fetch_model, load_model, save_model, upload_model
from boneseg.settings.schema import ModelSettings, PreprocessSettings, TrainSettings
from boneseg.storage.workspace import Workspace

MODEL = ModelSettings(encoder="mobilenet_v2")


def save(folder: Path, seed: int = 0, model: ModelSettings = MODEL) -> ModelCard:
    torch.manual_seed(seed)
    network = build_model(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return save_model(
        folder,
        network,
        model=model,
        train=TrainSettings(),
        dataset_hash="d",
        fingerprint="f",
        run="r",
        best_epoch=1,
        history=(),
    )


def test_a_loaded_model_computes_what_the_saved_one_did(tmp_path: Path) -> None:
    saved = save(tmp_path)
    torch.manual_seed(0)
    original = build_model(MODEL).eval()
    network, card = load_model(tmp_path)
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(image), original(image))
    assert card == saved
    assert not network.training


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [*((name, "plain") for name in paper.ARCHITECTURES), ("paper-unet", "vgg16"), ("paper-unet", "resnet50")],
)
@pytest.mark.parametrize("slices", [1, 3])
def test_a_loaded_network_of_the_paper_computes_what_the_saved_one_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, encoder: str, slices: int
) -> None:
    monkeypatch.setattr(paper, "HIDDEN", 64)
    preprocess = PreprocessSettings.model_validate({"slices": slices})
    model = ModelSettings(architecture=architecture, encoder=encoder, preprocess=preprocess)
    saved = save(tmp_path, model=model)
    torch.manual_seed(0)
    original = build_model(model).eval()
    network, card = load_model(tmp_path)
    image = torch.rand(1, slices, 50, 71)
    with torch.inference_mode():
        for loaded, expected in zip(network.both_sizes(image), original.both_sizes(image), strict=True):
            assert torch.equal(loaded, expected)
    assert card == saved
    assert card.parameters == count_parameters(original).trainable


def test_the_hash_is_of_weights_and_use(tmp_path: Path) -> None:
    wider = MODEL.model_copy(update={"preprocess": MODEL.preprocess.model_copy(update={"window": (-900.0, 900.0)})})
    hashes = [
        save(tmp_path / "a").model_hash,
        save(tmp_path / "b").model_hash,
        save(tmp_path / "c", seed=1).model_hash,
        save(tmp_path / "d", model=wider).model_hash,
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


@pytest.mark.parametrize("damage", ["cut short", "changed", "no weights", "no card", "half a card", "other settings"])
def test_a_damaged_model_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    save(tmp_path)
    weights, card = tmp_path / WEIGHTS_FILE, tmp_path / CARD_FILE
    content = weights.read_bytes()
    if damage == "cut short":
        weights.write_bytes(content[:-1000])
    elif damage == "changed":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no card":
        card.unlink()
    elif damage == "half a card":
        card.write_bytes(card.read_bytes()[:100])
    else:
        card.write_text(card.read_text().replace("-500.0", "-400.0"))
    with pytest.raises(ModelError, match=tmp_path.name):
        load_model(tmp_path)


def test_a_model_goes_through_the_bucket_unchanged(workspace: Workspace, tmp_path: Path) -> None:
    card = save(tmp_path / "model")
    uri = upload_model(workspace, tmp_path / "model")
    assert uri == f"s3://{workspace.store.bucket}/models/{card.model_hash}/"
    folder = fetch_model(workspace, uri)
    assert load_model(folder)[1] == card
    assert fetch_model(workspace, uri.rstrip("/")) == folder


def test_a_damaged_local_copy_is_fetched_again(workspace: Workspace, tmp_path: Path) -> None:
    save(tmp_path / "model")
    uri = upload_model(workspace, tmp_path / "model")
    folder = fetch_model(workspace, uri)
    (folder / WEIGHTS_FILE).write_bytes(b"half")
    load_model(fetch_model(workspace, uri))


def test_a_model_that_the_bucket_does_not_have_is_named(workspace: Workspace) -> None:
    with pytest.raises(StoreError, match="models/0123"):
        fetch_model(workspace, f"s3://{workspace.store.bucket}/models/0123/")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match=r"file/model: cannot write the model"):
        save(tmp_path / "file" / "model")
