import socket

import pytest
import torch

from boneseg.errors import SettingsError
from boneseg.models import paper
from boneseg.models.build import BUILDERS, AnySize, build_model, check_batch_of_one, check_model, count_parameters
from boneseg.settings.loading import parse_settings
from boneseg.settings.schema import ModelSettings

VIT = "tu-vit_tiny_patch16_224"


@pytest.mark.parametrize("architecture", sorted(BUILDERS))
def test_every_architecture_labels_images_of_any_size(architecture: str) -> None:
    encoder = "plain" if architecture in paper.ARCHITECTURES else VIT if architecture == "dpt" else "mobilenet_v2"
    network = build_model(ModelSettings(architecture=architecture, encoder=encoder)).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 1, 50, 71)).shape == (1, 3, 50, 71)


def test_padding_does_not_reach_an_image_of_the_right_size() -> None:
    network = build_model(ModelSettings(encoder="mobilenet_v2")).eval()
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(image), network.get_submodule("network")(image))


def test_same_seed_gives_same_weights() -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(build_model(ModelSettings()))
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[name], second[name]) for name in first)


def with_gradient(network: torch.nn.Module) -> set[str]:
    network.train()(torch.rand(2, 1, 96, 128)).square().mean().backward()
    return {name for name, weight in network.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(
    ("architecture", "encoder", "unused"),
    [
        ("unet", "efficientnet-b0", True),
        ("pspnet", "resnet18", True),
        ("unetplusplus", "vgg16", True),
        ("dpt", VIT, True),
        ("unet", "resnet18", False),
        ("paper-pspnet", "plain", False),
    ],
)
def test_exactly_what_a_step_gives_a_gradient_is_trained_and_counted(
    architecture: str, encoder: str, unused: bool
) -> None:
    network = build_model(ModelSettings(architecture=architecture, encoder=encoder))
    asking = {name for name, weight in network.named_parameters() if weight.requires_grad}
    held = {name for name, _ in network.named_parameters()}
    assert (asking != held) == unused
    for weight in network.parameters():
        weight.requires_grad_(True)
    assert with_gradient(network) == asking
    counted = sum(weight.numel() for name, weight in network.named_parameters() if name in asking)
    again = build_model(ModelSettings(architecture=architecture, encoder=encoder))
    assert count_parameters(again).trainable == counted


def test_running_statistics_count_as_held_but_not_as_trained() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    network.get_parameter("0.bias").requires_grad_(False)
    counts = count_parameters(network)
    assert counts.trainable == 2 * 9 + 2 * 2
    assert counts.total == counts.trainable + 2 + 2 * 2


@pytest.mark.parametrize(
    ("architecture", "encoder", "sentence"),
    [
        ("unett", "resnet18", "did you mean unet"),
        ("unet", "resnet19", "did you mean resnet18"),
        ("unet", "tu-resnet19", "did you mean tu-resnet18"),
        ("unet", "x", "unknown; known are resnet18"),
        ("unetplusplus", "mit_b0", "unetplusplus does not work with encoder mit_b0"),
        ("dpt", "resnet18", "dpt works with tu-vit_tiny_patch16_224"),
        ("unet", VIT, "does not work with encoder"),
        ("paper-unet", "resnet18", "paper-unet works with plain, vgg16, resnet50"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_with_the_way_out(
    architecture: str, encoder: str, sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        check_model(parse_settings({"model": {"architecture": architecture, "encoder": encoder}}).model)


def test_no_name_reaches_for_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("tried to connect")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    check_model(ModelSettings(encoder="resnet18"))
    with pytest.raises(SettingsError, match="unknown"):
        check_model(ModelSettings(encoder="tu-hf_hub:someone/something"))


def test_checking_a_model_leaves_torch_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    check_model(ModelSettings(encoder="mobilenet_v2"))
    assert torch.equal(torch.rand(1), expected)


def test_a_batch_of_one_is_refused_only_where_it_cannot_train() -> None:
    check_batch_of_one(ModelSettings(encoder="mobilenet_v2"), crop=64)
    check_batch_of_one(ModelSettings(architecture="paper-segnet", encoder="plain"), crop=64)
    for architecture, encoder in (("deeplabv3plus", "mobilenet_v2"), ("paper-pspnet", "plain")):
        with pytest.raises(SettingsError, match=r"set train.batch_size to 2"):
            check_batch_of_one(ModelSettings(architecture=architecture, encoder=encoder), crop=64)


def test_a_network_on_a_coarser_grid_is_resized_where_the_image_is() -> None:
    # On a ramp every place tells where it is, and linear resizing is exact off the border.
    network = AnySize(torch.nn.AvgPool2d(2))
    rows, columns = torch.meshgrid(torch.arange(45.0), torch.arange(70.0), indexing="ij")
    ramp = torch.stack([rows, columns])[None]
    full, own = network.both_sizes(ramp)
    assert own.shape == (1, 2, 22, 35)
    torch.testing.assert_close(full[..., 1:43, 1:-1], ramp[..., 1:43, 1:-1])
    torch.testing.assert_close(own[0, 0, :, 0], 2 * torch.arange(22.0) + 0.5)
    torch.testing.assert_close(own[0, 1, 0], 2 * torch.arange(35.0) + 0.5)
    torch.testing.assert_close(network(ramp), full)
