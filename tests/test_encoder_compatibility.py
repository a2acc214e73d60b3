import subprocess
import sys

import pytest

from boneseg.encoder_compatibility import ARCHITECTURES, refusal
from boneseg.errors import SettingsError
from boneseg.settings.loading import parse_settings


@pytest.mark.parametrize(
    ("architecture", "encoder", "works"),
    [
        ("unetplusplus", "mit_b0", "mit_b0 works with unet, manet, fpn"),
        ("deeplabv3", "vgg16", "vgg16 works with unet"),
        ("dpt", "resnet18", "dpt works with tu-vit_tiny_patch16_224"),
        ("paper-fcn8", "resnet50", "paper-fcn8 works with plain;"),
        ("paper-unet", "resnet18", "paper-unet works with plain, vgg16, resnet50;"),
        ("unet", "plain", "plain works with paper-fcn8"),
    ],
)
def test_a_pair_that_cannot_work_is_refused_with_what_can_when_settings_are_made(
    architecture: str, encoder: str, works: str
) -> None:
    sentence = refusal(architecture, encoder)
    assert sentence is not None
    assert sentence.startswith(f"{architecture} does not work with encoder {encoder}: ")
    assert works in sentence
    with pytest.raises(SettingsError, match=works):
        parse_settings({"model": {"architecture": architecture, "encoder": encoder}})


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [("unet", "resnet18"), ("paper-unet", "vgg16"), ("segnet", "mit_b0")],
)
def test_a_pair_that_works_is_not_refused(architecture: str, encoder: str) -> None:
    assert refusal(architecture, encoder) is None


def test_unknown_names_are_left_to_who_knows_what_they_look_like() -> None:
    assert refusal("unett", "mit_b0") is None
    assert refusal("unet", "resnet19") is None


def test_every_architecture_that_is_offered_exists() -> None:
    from boneseg.models.build import BUILDERS

    assert set(ARCHITECTURES) == set(BUILDERS)


def test_what_a_refusal_offers_is_not_refused_itself() -> None:
    for architecture in ARCHITECTURES:
        for encoder in ("mit_b0", "vgg16", "plain", "resnet50", "inceptionv4"):
            sentence = refusal(architecture, encoder)
            if sentence is not None:
                offered = sentence.split(f"; {architecture} works with ")[1].split(";")[0].removesuffix(", ...")
                assert all(refusal(architecture, name) is None for name in offered.split(", "))


def test_settings_are_made_without_a_heavy_library() -> None:
    heavy = "{'torch', 'timm', 'segmentation_models_pytorch'}"
    code = f"import sys, boneseg.settings.schema; assert not {heavy} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
