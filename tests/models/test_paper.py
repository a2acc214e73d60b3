from collections.abc import Iterator

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from boneseg.errors import SettingsError
from boneseg.models import paper
from boneseg.models.build import AnySize, build_model, count_parameters
from boneseg.models.precision import choose_precision
from boneseg.settings.schema import ModelSettings, PreprocessSettings

# The paper's Table 2, and the networks of its Table 3 counted the same way: all, and those that training adjusts.
COUNTS = {
    ("paper-fcn8", "plain"): (69_736_873, 69_734_953),
    ("paper-fcn32", "plain"): (69_769_603, 69_767_683),
    ("paper-pspnet", "plain"): (3_282_819, 3_275_779),
    ("paper-unet", "plain"): (4_472_323, 4_468_995),
    ("paper-segnet", "plain"): (3_698_179, 3_694_851),
    ("paper-unet", "vgg16"): (12_323_523, 12_321_603),
    ("paper-unet", "resnet50"): (16_374_019, 16_341_507),
}
NETWORKS = sorted(COUNTS)
OWN_SIZE_AT_512 = {
    "paper-fcn8": 520,
    "paper-fcn32": 544,
    "paper-pspnet": 128,
    "paper-unet": 256,
    "paper-segnet": 256,
}


@pytest.fixture
def narrow_fcn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the FCNs light where only their shapes and paths matter."""
    monkeypatch.setattr(paper, "HIDDEN", 64)


def settings(architecture: str, encoder: str, slices: int = 1) -> ModelSettings:
    preprocess = PreprocessSettings.model_validate({"slices": slices})
    return ModelSettings(architecture=architecture, encoder=encoder, preprocess=preprocess)


def network(architecture: str, encoder: str, slices: int = 1) -> AnySize:
    torch.manual_seed(0)
    return build_model(settings(architecture, encoder, slices))


@pytest.mark.parametrize("pair", NETWORKS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_network_has_the_paper_s_number_of_parameters(pair: tuple[str, str], channels: int) -> None:
    with torch.device("meta"):
        counts = count_parameters(paper.build(*pair, channels))
    assert (counts.total, counts.trainable) == COUNTS[pair]


@pytest.mark.parametrize("pair", NETWORKS)
@pytest.mark.parametrize("channels", [3, 5, 7])
def test_several_slices_enter_the_first_convolution_as_they_are(pair: tuple[str, str], channels: int) -> None:
    with torch.device("meta"):
        first = next(module for module in paper.build(*pair, channels).modules() if isinstance(module, nn.Conv2d))
    assert first.in_channels == channels


def test_one_slice_is_seen_as_three_equal_channels() -> None:
    torch.manual_seed(0)
    grey = paper.build("paper-unet", "plain", 1).eval()
    colour = paper.build("paper-unet", "plain", 3).eval()
    colour.load_state_dict(grey.state_dict())
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(grey(image), colour(image.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("pair", NETWORKS)
@pytest.mark.parametrize("side", [512, 384])
def test_the_answer_has_the_library_s_size(pair: tuple[str, str], side: int) -> None:
    with torch.device("meta"):
        own = paper.build(*pair, 3).eval()(torch.zeros(1, 3, side, side))
    extra = {"paper-fcn8": 8, "paper-fcn32": 32}
    expected = OWN_SIZE_AT_512[pair[0]]
    if side != 512:
        expected = side + extra[pair[0]] if pair[0] in extra else expected * side // 512
    assert own.shape == (1, 3, expected, expected)


@pytest.mark.parametrize("pair", NETWORKS)
@pytest.mark.parametrize("size", [(33, 50), (101, 70)])
@pytest.mark.usefixtures("narrow_fcn")
def test_labels_of_both_sizes_agree(pair: tuple[str, str], size: tuple[int, int]) -> None:
    trained = network(*pair).eval()
    image = functional.avg_pool2d(torch.rand(1, 1, size[0] + 8, size[1] + 8), 9, stride=1) * 4 - 2
    with torch.inference_mode():
        full, own = trained.both_sizes(image)
        # Centred, so that all three classes occur however the network starts.
        middle = own.mean(dim=(2, 3), keepdim=True)
        full, own = (full - middle).argmax(1)[0], (own - middle).argmax(1)[0]
    assert full.shape == size
    padded = [side + -side % 32 for side in size]
    answer = trained.get_submodule("network")(torch.zeros(1, 1, *padded)).shape[-2:]
    assert own.shape == tuple(round(side * out / whole) for side, out, whole in zip(size, answer, padded, strict=True))
    assert len(own.unique()) > 1
    checked = 0
    for row in range(size[0]):
        for column in range(size[1]):
            around = own[_neighbours(row, answer[0] / padded[0], own.shape[0])][
                :, _neighbours(column, answer[1] / padded[1], own.shape[1])
            ]
            # Between four scores with the same winner, every mixture of them has it, too.
            if around.numel() == 4 and len(around.unique()) == 1:
                checked += 1
                assert full[row, column] == around[0, 0]
    assert checked > 20


def _neighbours(pixel: int, scale: float, size: int) -> list[int]:
    """Return the two places on the other grid between which a pixel's centre lies; fewer at the border."""
    lower = int((pixel + 0.5) * scale - 0.5 + 1) - 1
    return [place for place in (lower, lower + 1) if 0 <= place < size]


@pytest.mark.parametrize("pair", NETWORKS)
@pytest.mark.usefixtures("narrow_fcn")
def test_every_parameter_learns(pair: tuple[str, str]) -> None:
    training = network(*pair).train()
    out = training(torch.rand(2, 1, 64, 64))
    functional.cross_entropy(out, torch.randint(3, (2, 64, 64))).backward()
    _check_gradients(training)


@pytest.mark.slow
@pytest.mark.parametrize("pair", NETWORKS)
@pytest.mark.parametrize("channels", [1, 3])
def test_forward_and_backward_at_512(pair: tuple[str, str], channels: int) -> None:
    # PSPNet normalises a pool of one value an image, so that its batch needs two.
    batch = 2 if pair[0] == "paper-pspnet" else 1
    training = network(*pair, slices=channels).train()
    out = training(torch.rand(batch, channels, 512, 512))
    assert out.shape == (batch, 3, 512, 512)
    functional.cross_entropy(out, torch.randint(3, (batch, 512, 512))).backward()
    _check_gradients(training)
    with torch.inference_mode():
        _, own = training.eval().both_sizes(torch.rand(1, channels, 512, 512))
    assert own.shape == (1, 3, OWN_SIZE_AT_512[pair[0]], OWN_SIZE_AT_512[pair[0]])


def _check_gradients(training: nn.Module) -> None:
    for name, weight in training.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        if weight.ndim > 1:
            assert weight.grad.any(), name


@pytest.mark.parametrize("pair", NETWORKS)
def test_normalisation_has_the_constants_of_keras(pair: tuple[str, str]) -> None:
    with torch.device("meta"):
        norms = [module for module in paper.build(*pair, 3).modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize("pair", NETWORKS)
@pytest.mark.usefixtures("narrow_fcn")
def test_weights_start_as_keras_starts_them(pair: tuple[str, str]) -> None:
    for name, layer in _convolutions(network(*pair)):
        if layer.bias is not None:
            assert not layer.bias.any(), name
        weight = layer.weight
        taps = weight[0, 0].numel()
        fan_in, fan_out = taps * layer.in_channels, taps * layer.out_channels
        if "score" in name or (layer.out_channels == 3 and isinstance(layer, nn.Conv2d)):
            largest, deviation = 2 * (2 / fan_in) ** 0.5 / 0.8796, (2 / fan_in) ** 0.5
        else:
            largest = (6 / (fan_in + fan_out)) ** 0.5
            deviation = largest / 3**0.5
        assert weight.abs().max() <= largest * 1.001, name
        if weight.numel() > 1000:
            assert weight.std().item() == pytest.approx(deviation, rel=0.07), name


def _convolutions(whole: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.ConvTranspose2d]]:
    for name, module in whole.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            yield name, module


def test_vgg16_computes_what_torchvision_s_does() -> None:
    torch.manual_seed(0)
    # Without the three fully connected layers, which hold nine tenths of its weights.
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    encoder = paper.VGG16Encoder(3).eval()
    missing, _ = encoder.features.load_state_dict(layers.state_dict(), strict=False)
    assert missing == []
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        features = encoder(image)
        # The fourth of VGG16's pools is its 24th layer.
        torch.testing.assert_close(features[3], layers[:24](image))
    assert [feature.shape[1] for feature in features] == list(encoder.widths)
    assert [feature.shape[2] for feature in features] == [32, 16, 8, 4]


def test_resnet50_computes_what_torchvision_s_does_with_the_stride_where_version_1_has_it() -> None:
    torch.manual_seed(0)
    reference = torchvision.models.resnet50(weights=None).eval()
    reference.maxpool.padding = 0
    for stage in (reference.layer2, reference.layer3):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
            nn.init.uniform_(module.running_mean)  # type: ignore[arg-type]
    encoder = paper.ResNet50Encoder(3).eval()
    missing, _ = encoder.load_state_dict(reference.state_dict(), strict=False)
    assert missing
    assert all(name.endswith(("conv1.bias", "conv2.bias", "conv3.bias", "downsample.0.bias")) for name in missing)
    image = torch.rand(1, 3, 96, 64)
    with torch.inference_mode():
        features = encoder(image)
        first = reference.conv1(image)
        second = reference.layer1(reference.maxpool(reference.relu(reference.bn1(first))))
        third = reference.layer2(second)
        torch.testing.assert_close(features[0], first)
        torch.testing.assert_close(features[1][..., 1:, 1:], second)
        assert not features[1][..., 0, :].any()
        assert not features[1][..., 0].any()
        torch.testing.assert_close(features[2], third)
        torch.testing.assert_close(features[3], reference.layer3(third))
    assert [tuple(feature.shape[1:]) for feature in features] == [
        (64, 48, 32),
        (256, 24, 16),
        (512, 12, 8),
        (1024, 6, 4),
    ]


def test_the_u_net_normalises_after_the_activation_and_the_seg_net_has_none() -> None:
    features = [torch.rand(1, width, 32 // 2**level, 32 // 2**level) for level, width in enumerate((64, 128, 256, 256))]
    torch.manual_seed(0)
    seen: dict[str, Tensor] = {}
    for name, decoder in (
        ("unet", paper.UNetDecoder((64, 128, 256, 256), 3)),
        ("segnet", paper.SegNetDecoder([0] * 3 + [256], 3)),
    ):
        decoder.score.register_forward_hook(lambda _, inputs, __, name=name: seen.update({name: inputs[0]}))
        decoder.train()(features)
    # A ReLU before normalisation piles values up at one level per channel, which is each channel's lowest.
    for name, piled in (("unet", True), ("segnet", False)):
        values = seen[name].flatten(2)[0]
        lowest = (values == values.min(dim=1, keepdim=True).values).float().mean(dim=1)
        assert (values.min(dim=1).values < 0).all()
        assert bool((lowest > 0.1).float().mean() > 0.5) == piled


def test_the_fcn_crops_at_the_bottom_and_on_the_right() -> None:
    decoder = paper.FCN8Decoder((64, 128, 4, 4, 4), 3)
    seen: list[Tensor] = []
    for layer in (decoder.enlarging5, decoder.score4, decoder.enlarging4):
        layer.register_forward_hook(lambda _, __, out: seen.append(out))
    decoder.enlarging4.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features = [torch.rand(1, 4, size, size) for size in (32, 16, 8, 4, 2)]
    with torch.inference_mode():
        decoder.eval()(features)
    enlarged, score, total, _ = seen
    assert enlarged.shape[-2:] == (6, 6)
    torch.testing.assert_close(total, enlarged[..., :4, :4] + score)


def test_the_pyramid_averages_parts_of_the_image() -> None:
    decoder = paper.PSPNetDecoder((0, 0, 0, 0, 8), 3).eval()
    feature = torch.rand(1, 8, 12, 18)
    seen: list[Tensor] = []
    for pool in decoder.pools:
        pool.get_submodule("1").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        decoder([feature] * 5)
    for bins, pooled in zip((1, 2, 3, 6), seen, strict=True):
        expected = feature.reshape(1, 8, bins, 12 // bins, bins, 18 // bins).mean(dim=(3, 5))
        torch.testing.assert_close(pooled, expected)


@pytest.mark.parametrize("pair", NETWORKS)
@pytest.mark.usefixtures("narrow_fcn")
def test_bf16_and_channels_last_change_little(pair: tuple[str, str]) -> None:
    plain = network(*pair).eval()
    image = torch.rand(2, 1, 96, 64)
    precision = choose_precision("cpu", "bf16")
    with torch.inference_mode():
        expected = plain(image)
        fast = precision.place(plain)
        with precision.autocast():
            found = fast(precision.image(image)).float()
    spread = (expected - expected.mean()).abs().max()
    assert (found - expected).abs().max() < 0.1 * spread


@pytest.mark.parametrize(
    ("architecture", "encoder", "way_out"),
    [
        ("paper-fcn8", "resnet18", "paper-fcn8 works with plain;"),
        ("paper-segnet", "vgg16", "paper-segnet works with plain;"),
        ("paper-unet", "resnet18", "paper-unet works with plain, vgg16, resnet50;"),
    ],
)
def test_a_pair_the_paper_does_not_have_is_refused(architecture: str, encoder: str, way_out: str) -> None:
    with pytest.raises(SettingsError, match=way_out):
        paper.build(architecture, encoder)
