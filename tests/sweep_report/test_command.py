"""The command of a row trains what the row was: it goes back through the command line's own parser."""

import shlex
from typing import Any

import pytest
from click.testing import CliRunner

from boneseg.cli import cli
from boneseg.settings.loading import load_settings
from boneseg.settings.schema import ModelSettings, RunSettings, TrainSettings
from boneseg.sweep_report.command import train_command
from boneseg.sweep_report.trials import trials_of
from boneseg.train.runs import RunRecord
from tests.sweep_report.given import sweep


def told(command: str, monkeypatch: pytest.MonkeyPatch) -> RunSettings:
    """Give a command to the command line and return the settings that training would get."""
    seen: list[RunSettings] = []

    class StoppedError(Exception):
        pass

    def opened(settings: RunSettings) -> Any:
        seen.append(settings)
        raise StoppedError

    monkeypatch.setattr("boneseg.storage.open.open_workspace", opened)
    words = shlex.split(command)
    assert words[:2] == ["boneseg", "train"]
    result = CliRunner().invoke(cli, words[1:])
    assert isinstance(result.exception, StoppedError), result.output
    return seen[0]


def value(settings: RunSettings, name: str) -> Any:
    found: Any = settings.model_dump(mode="json")
    for part in name.split("."):
        found = found[part]
    return found


def test_the_command_of_every_row_trains_what_the_row_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_settings(overrides=("train.epochs=60", "train.crop=128", "store.bucket=pelvis", "train.workers=2"))
    trials = trials_of(sweep(30), {}, base)
    for trial in trials:
        settings = told(trial.command, monkeypatch)
        assert {name: value(settings, name) for name in trial.settings} == trial.settings
        assert (settings.train.epochs, settings.train.crop, settings.train.workers) == (60, 128, 2)
        assert settings.store.bucket == "pelvis"


@pytest.mark.parametrize(
    ("overrides", "choice"),
    [
        (("recipe=paper",), {"model.encoder": "plain", "train.optimizer": "adamw", "train.learning_rate": 1e-5}),
        (("recipe=paper",), {"model.preprocess.spacing_mm": 1.25}),
        ((), {"model.preprocess.size": 256, "train.crop": 192}),
        ((), {"model.preprocess.window": [-200.0, 800.5], "train.gradient_norm": None}),
        (("model.weights=imagenet", "train.told_share=0.5"), {"train.loss": "dice"}),
        ((), {"train.epochs": 3}),
    ],
)
def test_settings_survive_the_shell(
    overrides: tuple[str, ...], choice: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_settings(overrides=overrides)
    settings = told(train_command(base, choice, None), monkeypatch)
    assert {name: value(settings, name) for name in choice} == choice
    changed = {name.split(".")[0] for name in choice}
    for section in {"model", "train"} - changed:
        assert getattr(settings, section) == getattr(base, section)
    assert settings.recipe == base.recipe


def test_what_a_run_noted_of_itself_counts_whatever_the_settings_are_now(monkeypatch: pytest.MonkeyPatch) -> None:
    was = TrainSettings(epochs=4, crop=64, batch_size=4, augmentation="none")
    record = RunRecord.of("d" * 16, ModelSettings(architecture="fpn"), was)
    now = load_settings(overrides=("train.epochs=60", "train.crop=256", "train.told_share=0.3", "train.workers=3"))
    settings = told(train_command(now, {"train.loss": "dice"}, record), monkeypatch)
    assert settings.model.architecture == "fpn"
    assert (settings.train.crop, settings.train.batch_size, settings.train.augmentation) == (64, 4, "none")
    assert settings.train.told_share == 0.8, "a setting that the run did not note was as it meant before"
    assert (settings.train.epochs, settings.train.workers) == (60, 3), "as long and wide as the user trains"


def test_a_command_names_the_data_and_no_folder_of_this_machine() -> None:
    base = load_settings(
        overrides=("train.weights_mirror=/home/somebody/mirror", "prepare.splits.override=/home/x.csv")
    )
    command = train_command(base, {"model.encoder": "resnet34"}, None, "s3://b/datasets/1/dataset.json")
    assert "/home" not in command
    assert shlex.split(command)[2:4] == ["--dataset", "s3://b/datasets/1/dataset.json"]
