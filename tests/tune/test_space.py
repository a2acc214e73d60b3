import math
import random
from pathlib import Path
from typing import Any

import pytest

from boneseg.errors import SettingsError
from boneseg.settings.schema import RunSettings
from boneseg.tune.space import Choice, Part, Space
from boneseg.tune.space_file import read_space, space_of, with_space
from boneseg.tune.sweep import trial_settings

FILE = """
model.architecture: [unet, fpn, linknet]
model.encoder:
  - when: {model.architecture: [unet, fpn]}
    choice: [resnet18, mobilenet_v2]
  - choice: [resnet34]
train.learning_rate: {loguniform: [1.0e-4, 3.0e-3], points: 3}
train.crop: {int: [64, 128], step: 32}
model.preprocess.slice_distance_mm: {when: {model.preprocess.slices: [3]}, choice: [2.0, 3.0]}
model.preprocess.slices: [1, 3]
"""


def space(text: str, folder: Path, **base: Any) -> Space:
    path = folder / "space.yaml"
    path.write_text(text)
    return space_of(with_space(RunSettings.model_validate(base), path), read_space(path)[1])


def drawn(space: Space, count: int = 200) -> list[Choice]:
    numbers = random.Random(1)

    def pick(name: str, number: int, part: Part) -> Any:
        return numbers.choice(part.values) if part.values else part.at(numbers.random())

    return [space.choose(pick) for _ in range(count)]


def test_every_choice_keeps_its_conditions_ranges_and_steps(tmp_path: Path) -> None:
    choices = drawn(space(FILE, tmp_path))
    assert {choice["model.encoder"] for choice in choices if choice["model.architecture"] == "linknet"} == {"resnet34"}
    others = {choice["model.encoder"] for choice in choices if choice["model.architecture"] != "linknet"}
    assert others == {"resnet18", "mobilenet_v2"}
    # The file names the condition's setting last: it is chosen first all the same.
    assert all(
        ("model.preprocess.slice_distance_mm" in each) == (each["model.preprocess.slices"] == 3) for each in choices
    )
    rates = [choice["train.learning_rate"] for choice in choices]
    assert all(1e-4 <= rate <= 3e-3 for rate in rates)
    assert 0.3 < sum(rate < math.sqrt(1e-4 * 3e-3) for rate in rates) / len(rates) < 0.7  # half lie below the middle
    assert {choice["train.crop"] for choice in choices} == {64, 96, 128}
    settings = trial_settings(RunSettings(), choices[0])
    assert settings.train.crop == choices[0]["train.crop"]
    assert settings.model.preprocess.window == RunSettings().model.preprocess.window


def test_a_grid_has_every_combination_once(tmp_path: Path) -> None:
    choices = list(space(FILE, tmp_path).grid())
    # (2 architectures x 2 encoders + 1) x 3 rates x 3 crops x (1 + 2 distances)
    assert len(choices) == 5 * 3 * 3 * 3
    assert len({str(sorted(choice.items())) for choice in choices}) == len(choices)


def test_a_condition_may_ask_the_runs_own_settings(tmp_path: Path) -> None:
    text = "model.encoder: {when: {model.architecture: unet}, choice: [resnet34]}"
    assert drawn(space(text, tmp_path), 1) == [{"model.encoder": "resnet34"}]
    with pytest.raises(SettingsError, match="never holds"):
        space(text, tmp_path, model={"architecture": "fpn"})


def test_image_size_and_spacing_take_turns(tmp_path: Path) -> None:
    chosen = trial_settings(RunSettings(), {"model.preprocess.size": 256})
    assert (chosen.model.preprocess.size, chosen.model.preprocess.spacing_mm) == (256, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\ntrain.learning_rat: [0.1]", r"line 2: train.learning_rat is no setting .* train.learning_rate"),
        ("model.preprocess: [1]", r"line 1: model.preprocess is no setting"),
        ("evaluate.batch_size: [1]", r"is no setting that a sweep can choose"),
        ("train.device: [cpu]", r"line 1: train.device changes nothing of the outcome"),
        ("train.epochs: [3]", r"tune.epochs says how long"),
        ("train.batch_size: [4, 0]", r"line 1: train.batch_size = 0: input should be greater"),
        ("train.loss: [dice, iou]", r"line 1: train.loss = 'iou'"),
        ("model.architecture: [unett]", r"no such architecture; known are unet"),
        ("train.crop: {int: [64, 128]}", r"train.crop = 65: .*multiple of 32"),
        ("train.crop: 64", r"64 is no choice"),
        ("train.loss: []", r"at least one value"),
        ("train.loss: {choices: [dice]}", r"'choices' is unknown; known are choice"),
        ("train.learning_rate: {loguniform: [1e-4, 3e-3]}", r"such as 1.0e-4 with its dot"),
        ("train.learning_rate: [1e-x]", r"line 1: train.learning_rate = '1e-x'"),
        ("train.learning_rate: {uniform: [0.2, 0.1]}", r"low and high"),
        ("train.learning_rate: {uniform: [0.1, .inf]}", r"low and high"),
        ("train.weight_decay: {loguniform: [0, 0.1]}", r"above 0"),
        ("train.weight_decay: {uniform: [-1, 0.1]}", r"train.weight_decay = -1"),
        ("train.weight_decay: {uniform: [0, 0.1], step: 2}", r"step is of whole numbers"),
        ("train.seed: {int: [0, 9], step: 0}", r"step = 0"),
        ("train.loss: [dice]\ntrain.loss: [dice]", r"line 2: train.loss stands in line 1 already"),
        ("- train.loss", r"a space is a mapping"),
        ("train.loss: [dice", r"not valid YAML"),
        ("model.encoder: {when: {model.architectur: unet}, choice: [resnet18]}", r"when: model.architectur is no"),
        (
            "model.architecture: [fpn]\nmodel.encoder: {when: {model.architecture: unet}, choice: [resnet18]}",
            r"line 2: model.encoder: when model.architecture is unet never holds; model.architecture can be fpn",
        ),
        (
            "train.loss: {when: {train.seed: 1}, choice: [dice]}\ntrain.seed: {when: {train.loss: dice}, choice: [1]}",
            r"in a circle",
        ),
        ("model.encoder: [{choice: [resnet18]}, {choice: [resnet34]}]", r"put it last"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        space(text, tmp_path)
    assert "\n" not in str(caught.value)


def test_without_a_space_the_lists_are_searched() -> None:
    settings = RunSettings.model_validate({"tune": {"architectures": ["fpn"], "losses": ["dice"]}})
    for choice in drawn(space_of(settings), 20):
        assert choice["model.architecture"] == "fpn"
        assert choice["model.encoder"] in settings.tune.encoders
        assert choice["train.loss"] == "dice"
        assert 1e-4 <= choice["train.learning_rate"] <= 3e-3


def test_the_example_in_the_documentation_works(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
    example = space(text.split("```yaml")[1].split("```")[0], tmp_path)
    assert len(example.dimensions) == 9
    for choice in drawn(example, 50):
        trial_settings(RunSettings(), choice)
