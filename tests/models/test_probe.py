"""What the probe says of a pair, against the very network on the CPU."""

import pytest

from boneseg.encoder_compatibility import TIMM
from boneseg.errors import SettingsError
from boneseg.models.build import check_model
from boneseg.models.probe import fault_of
from boneseg.settings.schema import ModelSettings

ARCHITECTURES = ("unet", "unetplusplus", "deeplabv3", "pspnet", "dpt", "fcn8")
ENCODERS = ("convnext_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "visformer_tiny", "resnet10t")
SLOW = ("regnetx_002", "vgg11", "cait_xxs24_224", "gcvit_xxtiny", "inception_v3", "nasnetalarge", "vitamin_small_224")


def works(architecture: str, encoder: str) -> bool:
    try:
        check_model(ModelSettings(architecture=architecture, encoder=encoder))
    except SettingsError:
        return False
    return True


def check(encoder: str) -> None:
    pairs = [(name, TIMM + encoder) for name in ARCHITECTURES]
    assert [fault_of(*pair) == "" for pair in pairs] == [works(*pair) for pair in pairs]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_probe_is_right_of_timms_models(encoder: str) -> None:
    check(encoder)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", SLOW)
def test_the_probe_is_right_of_timms_odder_models(encoder: str) -> None:
    check(encoder)


def test_some_pairs_work_and_some_do_not() -> None:
    assert fault_of("unet", "tu-resnet10t") == ""
    assert fault_of("dpt", "tu-vit_tiny_patch16_224") == ""
    assert "works" not in fault_of("unet", "tu-vit_tiny_patch16_224")
    assert fault_of("unet", "tu-vit_tiny_patch16_224") != ""


@pytest.mark.parametrize(("architecture", "encoder"), [("unett", "tu-resnet10t"), ("unet", "tu-resnet19")])
def test_unknown_names_have_no_answer(architecture: str, encoder: str) -> None:
    with pytest.raises(SettingsError, match="unknown"):
        fault_of(architecture, encoder)
