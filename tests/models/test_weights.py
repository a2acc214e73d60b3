import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import get_encoder

from boneseg.cli import cli
from boneseg.errors import ModelError
from boneseg.models.build import AnySize, build_model
from boneseg.models.weights import WeightsNote, load_pretrained, mirror_weights, pretrained, upload_mirror
from boneseg.settings.schema import ModelSettings
from boneseg.storage import layout
from boneseg.storage.hashing import sha256_file
from boneseg.storage.workspace import Workspace

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(autouse=True)
def _no_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def settings(architecture: str, encoder: str, slices: int = 1) -> ModelSettings:
    values = {"architecture": architecture, "encoder": encoder, "weights": "imagenet"}
    return ModelSettings.model_validate({**values, "preprocess": {"slices": slices}})


def published(encoder: str, mirror: Path) -> torch.nn.Module:
    """Fill a mirror with an encoder of random weights and statistics, and return the encoder."""
    torch.manual_seed(4)
    if encoder.startswith("tu-"):
        source: torch.nn.Module = timm.create_model(encoder.removeprefix("tu-"), pretrained=False)
    else:
        source = get_encoder(encoder, in_channels=3, weights=None)
    for name, value in source.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)
    file = mirror / encoder / "model.safetensors"
    file.parent.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in source.state_dict().items()}, file)
    note = WeightsNote(sha256=sha256_file(file), source="a test", mean=MEAN, std=STD)
    (file.parent / "weights.json").write_bytes(note.to_json())
    return source.eval()


def loaded(model: ModelSettings, workspace: Workspace, mirror: Path) -> AnySize:
    network = build_model(model)
    file = pretrained(workspace, model, str(mirror))
    assert file is not None
    load_pretrained(network, model, file)
    return network.eval()


@pytest.mark.parametrize("slices", [1, 3, 5, 7])
@pytest.mark.parametrize(
    ("architecture", "encoder"), [("unet", "resnet18"), ("pspnet", "mobileone_s0"), ("fpn", "tu-resnet10t")]
)
def test_equal_slices_give_what_a_normalised_grey_picture_gave(
    architecture: str, encoder: str, slices: int, workspace: Workspace, tmp_path: Path
) -> None:
    source = published(encoder, tmp_path)
    network = loaded(settings(architecture, encoder, slices), workspace, tmp_path)
    grey = torch.rand(1, 1, 128, 128)
    picture = (grey.expand(-1, 3, -1, -1) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.inference_mode():
        given = network.network.get_submodule("encoder")(grey.expand(-1, slices, -1, -1))[1:3]
        expected = (
            source.forward_intermediates(picture, indices=[0, 1], intermediates_only=True)  # type: ignore[operator]
            if encoder.startswith("tu-")
            else source(picture)[1:3]
        )
    for ours, theirs in zip(given, expected, strict=True):
        # Zeros around the image are air for one and mid-grey for the other, so the border differs.
        border = ours.shape[-1] // 4
        inner = (..., slice(border, -border), slice(border, -border))
        assert torch.allclose(ours[inner], theirs[inner], atol=1e-4)


@pytest.mark.parametrize("encoder", ["vgg16", "resnet50"])
def test_the_papers_u_net_starts_from_the_published_stages(encoder: str, workspace: Workspace, tmp_path: Path) -> None:
    source = published(encoder, tmp_path).state_dict()
    own = loaded(settings("paper-unet", encoder), workspace, tmp_path).network.get_submodule("encoder").state_dict()
    first = "features.0.weight" if encoder == "vgg16" else "conv1.weight"
    assert torch.allclose(own[first] * torch.tensor(STD)[:, None, None], source[first], atol=1e-6)
    others = [name for name in own if name in source and not name.startswith(("features.0.", "conv1.", "bn1."))]
    assert len(others) > 15
    assert all(torch.equal(own[name], source[name]) for name in others)
    assert all(not own[name].any() for name in own if name not in source and name != "conv1.bias")


def test_a_vision_transformer_takes_its_weights(workspace: Workspace, tmp_path: Path) -> None:
    source = published("tu-vit_tiny_patch16_224", tmp_path).state_dict()
    own = loaded(settings("dpt", "tu-vit_tiny_patch16_224"), workspace, tmp_path).network.state_dict()
    assert torch.equal(own["encoder.model.blocks.3.mlp.fc1.weight"], source["blocks.3.mlp.fc1.weight"])


def test_no_weights_are_looked_for_where_none_are_wanted(workspace: Workspace) -> None:
    assert pretrained(workspace, ModelSettings(), "nowhere") is None


def test_a_folder_carried_into_the_bucket_serves_training(workspace: Workspace, tmp_path: Path) -> None:
    published("resnet18", tmp_path / "mirror")
    assert upload_mirror(workspace, tmp_path / "mirror") == [workspace.store.uri("weights/resnet18/")]
    shutil.rmtree(tmp_path / "mirror")
    model = settings("unet", "resnet18")
    file = pretrained(workspace, model, None)
    assert file is not None
    load_pretrained(build_model(model), model, file)
    written = file.stat().st_mtime_ns
    assert pretrained(workspace, model, None) == file
    assert file.stat().st_mtime_ns == written
    assert mirror_weights(["resnet18"], workspace) == [workspace.store.uri("weights/resnet18/")]


def test_a_local_copy_that_was_damaged_is_fetched_again(workspace: Workspace, tmp_path: Path) -> None:
    published("resnet18", tmp_path / "mirror")
    upload_mirror(workspace, tmp_path / "mirror")
    file = pretrained(workspace, settings("unet", "resnet18"), None)
    assert file is not None
    file.write_bytes(b"damaged")
    assert pretrained(workspace, settings("unet", "resnet18"), None) == file
    assert sha256_file(file) == json.loads((file.parent / "weights.json").read_bytes())["sha256"]


def test_an_absent_weight_names_the_key_and_the_command(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        pretrained(workspace, settings("unet", "resnet18"), str(tmp_path))
    sentence = str(caught.value)
    assert str(tmp_path / "resnet18" / "model.safetensors") in sentence
    assert workspace.store.uri("weights/resnet18/model.safetensors") in sentence
    assert "boneseg weights mirror --encoder resnet18" in sentence
    assert not (workspace.folder / "weights" / "resnet18" / "model.safetensors").exists()


def test_a_changed_file_is_refused_wherever_it_is(workspace: Workspace, tmp_path: Path) -> None:
    published("resnet18", tmp_path)
    file = tmp_path / "resnet18" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\1\2\3")
    with pytest.raises(ModelError, match=r"not the file that weights\.json"):
        pretrained(workspace, settings("unet", "resnet18"), str(tmp_path))
    with pytest.raises(ModelError, match=r"not the file that weights\.json"):
        upload_mirror(workspace, tmp_path)
    for name in ("model.safetensors", "weights.json"):
        workspace.store.upload(tmp_path / "resnet18" / name, layout.weights("resnet18", name))
    with pytest.raises(ModelError, match=r"not the file that weights\.json"):
        pretrained(workspace, settings("unet", "resnet18"), None)


def test_weights_without_a_hash_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    published("resnet18", tmp_path)
    (tmp_path / "resnet18" / "weights.json").unlink()
    with pytest.raises(ModelError, match=r"weights\.json.* is missing"):
        pretrained(workspace, settings("unet", "resnet18"), str(tmp_path))


@pytest.mark.parametrize(("encoder", "other"), [("resnet18", "resnet34"), ("tu-resnet10t", "tu-resnet14t")])
def test_another_encoders_weights_are_refused(encoder: str, other: str, workspace: Workspace, tmp_path: Path) -> None:
    published(encoder, tmp_path)
    (tmp_path / encoder).rename(tmp_path / other)
    with pytest.raises(ModelError, match=f"does not fit encoder {other}"):
        loaded(settings("unet", other), workspace, tmp_path)


def test_an_encoder_without_published_weights_is_told_so(workspace: Workspace) -> None:
    with pytest.raises(ModelError, match="nobody publishes ImageNet weights"):
        pretrained(workspace, settings("paper-unet", "plain"), None)


def test_mirroring_without_internet_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["weights", "mirror", "--encoder", "resnet18", "--out", str(tmp_path)])
    assert isinstance(result.exception, ModelError)
    assert "where there is internet" in str(result.exception)
    assert not (tmp_path / "resnet18" / "weights.json").exists()
