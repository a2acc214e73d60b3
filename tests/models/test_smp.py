import pytest
import torch
from segmentation_models_pytorch.encoders import get_encoder_names

from boneseg.encoder_compatibility import PAPER_ENCODERS, refusal
from boneseg.models import smp
from boneseg.models.build import BUILDERS
from boneseg.models.listing import measure

FAMILIES = (
    *("resnet18", "dpn68", "vgg11", "se_resnet50", "densenet121", "inceptionv4", "efficientnet-b0", "mobilenet_v2"),
    *("xception", "timm-efficientnet-b0", "timm-skresnet18", "mit_b0", "mobileone_s0"),
)
GRID = [name for name in BUILDERS if name not in PAPER_ENCODERS]


def really_works(architecture: str, encoder: str) -> bool:
    """Build a pair and send an image through it, without asking the rules."""
    try:
        network = smp.hollow(lambda: smp.build(architecture, encoder)).eval()
        return tuple(network(torch.empty(1, 1, 128, 128, device="meta")).shape) == (1, 3, 128, 128)
    except Exception:
        return False


def check_agreement(architectures: list[str], encoders: list[str]) -> None:
    wrong = [
        (architecture, encoder)
        for architecture in architectures
        for encoder in encoders
        if (refusal(architecture, encoder) is None) != really_works(architecture, encoder)
    ]
    assert wrong == []


@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0", "vgg11"])
def test_rules_and_reality_agree_on_common_encoders(encoder: str) -> None:
    check_agreement(["unet", "unetplusplus", "deeplabv3", "dpt", "fcn8"], [encoder])


@pytest.mark.slow
@pytest.mark.parametrize("encoder", FAMILIES)
def test_rules_and_reality_agree_on_every_family(encoder: str) -> None:
    check_agreement(["unetplusplus", "manet", "pspnet", "pan", "upernet", "dpt", "segnet"], [encoder])


@pytest.mark.slow
@pytest.mark.parametrize("start", range(4))
def test_rules_and_reality_agree_along_a_diagonal_of_the_grid(start: int) -> None:
    # All pairs take a quarter of an hour; every encoder meets one architecture, and every architecture five encoders.
    for number, encoder in enumerate(get_encoder_names()[start::4]):
        check_agreement([GRID[(4 * number + start) % len(GRID)]], [encoder])


def test_a_hollow_network_has_the_shapes_of_a_real_one_and_leaves_random_numbers_alone() -> None:
    state = torch.random.get_rng_state()
    hollow = smp.hollow(lambda: smp.build("unet", "mit_b0"))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(value.is_meta for value in hollow.state_dict().values())
    real = smp.build("unet", "mit_b0").state_dict()
    assert {name: value.shape for name, value in hollow.state_dict().items()} == {
        name: value.shape for name, value in real.items()
    }


def test_measure_counts_one_convolution_as_the_formula_does() -> None:
    # The encoder's first convolution, 7 x 7 and stride 2, costs 64 * 49 * (size / 2)^2 multiply-adds a channel.
    one, three = (measure("unet", "resnet18", size=64, slices=slices) for slices in (1, 3))
    assert one.parameters is not None
    assert three.parameters == one.parameters + 2 * 64 * 49
    assert one.multiply_adds is not None
    assert three.multiply_adds == one.multiply_adds + 2 * 64 * 49 * 32 * 32
