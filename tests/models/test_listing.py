import pytest
from click.testing import CliRunner

from boneseg.cli import cli
from boneseg.errors import SettingsError
from boneseg.models.build import BUILDERS
from boneseg.models.listing import chosen, measure


def test_every_architecture_has_its_line() -> None:
    assert [architecture for architecture, _ in chosen()] == list(BUILDERS)
    assert ("dpt", "tu-vit_tiny_patch16_224") in chosen()


def test_parameters_are_those_of_the_paper() -> None:
    row = measure("paper-unet", "plain", size=64)
    assert row.parameters == 4_468_995


def test_a_table_shows_what_works_and_names_what_does_not() -> None:
    result = CliRunner().invoke(cli, ["models", "--architecture", "paper-unet", "--size", "64", "--slices", "3"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "64 x 64 pixels, 3 slices as channels" in lines[0]
    assert [line.split()[1] for line in lines[2:5]] == ["plain", "vgg16", "resnet50"]
    refused = CliRunner().invoke(cli, ["models", "--architecture", "dpt", "--encoder", "resnet18"])
    assert "refused: dpt does not work with encoder resnet18" in refused.output


def test_timm_models_are_shown_by_pattern() -> None:
    pairs = chosen("unet", pattern="convnext_at*")
    assert ("unet", "tu-convnext_atto") in pairs
    assert all(encoder.startswith("tu-convnext_at") for _, encoder in pairs)
    with pytest.raises(SettingsError, match="timm has no model"):
        chosen("unet", pattern="nothing*")


def test_an_unknown_name_is_told_with_what_it_looks_like() -> None:
    with pytest.raises(SettingsError, match="did you mean unet"):
        chosen("unett")
    with pytest.raises(SettingsError, match="did you mean resnet18"):
        measure("unet", "resnet19")
