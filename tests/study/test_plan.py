"""Which networks a study trains, and with which settings."""

from pathlib import Path

import pytest

from boneseg.errors import SettingsError
from boneseg.study import paper_numbers as printed
from boneseg.study.plan import Budget, make_plan


def test_without_a_word_it_is_the_paper_s_study() -> None:
    plan = make_plan((), Budget())
    found = [(trial.network, trial.settings.train.epochs, trial.tables) for trial in plan.trials]
    assert found == [
        (printed.FCN8, 10, (1,)),
        (printed.FCN32, 10, (1,)),
        (printed.PSPNET, 10, (1,)),
        (printed.UNET, 10, (1,)),
        (printed.UNET, 30, (3,)),
        (printed.SEGNET, 10, (1,)),
        (printed.VGG_UNET, 30, (3,)),
        (printed.RESNET_UNET, 30, (3,)),
    ]
    assert len({trial.key for trial in plan.trials}) == 8
    for trial in plan.trials:
        train = trial.settings.train
        assert (train.optimizer, train.steps_per_epoch, train.batch_size, train.crop) == ("adadelta", 512, 2, 512)
        assert trial.settings.model.preprocess.size == 512
        pretrained = trial.settings.model.weights == "imagenet"
        assert pretrained == (trial.network in (printed.VGG_UNET, printed.RESNET_UNET))


def test_a_budget_makes_it_small_and_trains_the_u_net_once() -> None:
    plan = make_plan((), Budget(epochs=2, steps=30, size=128), weights="none")
    assert len(plan.trials) == 7
    for trial in plan.trials:
        train, model = trial.settings.train, trial.settings.model
        assert (train.epochs, train.steps_per_epoch, train.crop) == (2, 30, 128)
        assert (model.preprocess.size, model.weights) == (128, "none")


def test_the_user_s_settings_stand_above_the_recipe(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("train: {batch_size: 4, epochs: 5}\nmodel: {preprocess: {size: 256}}\n")
    plan = make_plan(("unet/resnet18",), Budget(), config=config, overrides=("train.learning_rate=0.5",))
    (trial,) = plan.trials
    train = trial.settings.train
    assert (train.batch_size, train.learning_rate, train.epochs, train.crop) == (4, 0.5, 5, 256)
    assert (train.optimizer, train.steps_per_epoch) == ("adadelta", 512)
    assert (trial.settings.model.architecture, trial.settings.model.encoder) == ("unet", "resnet18")


@pytest.mark.parametrize(("recipe", "optimizer"), [("paper-tf-keras", "adadelta"), ("boneseg", "adamw")])
def test_another_recipe_may_be_named_in_both_ways(recipe: str, optimizer: str) -> None:
    for plan in (make_plan((), Budget(), recipe), make_plan((), Budget(), overrides=(f"recipe={recipe}",))):
        assert plan.recipe == recipe
        assert {trial.settings.train.optimizer for trial in plan.trials} == {optimizer}


@pytest.mark.parametrize(
    ("networks", "budget", "said"),
    [
        (("unet",), Budget(), "architecture/encoder"),
        (("paper-fcn8/resnet18",), Budget(), "paper-fcn8"),
        ((), Budget(size=100), "take 96"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(networks: tuple[str, ...], budget: Budget, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        make_plan(networks, budget)


def test_weights_may_be_given_in_both_ways() -> None:
    for plan in (
        make_plan(("unet/resnet18",), Budget(), overrides=("model.weights=none",)),
        make_plan(("unet/resnet18",), Budget(), weights="none", overrides=("model.weights=imagenet",)),
    ):
        assert plan.trials[0].settings.model.weights == "none"


def test_a_crop_that_is_given_stays() -> None:
    plan = make_plan(("unet/resnet18",), Budget(size=256), overrides=("train.crop=128",))
    assert (plan.trials[0].settings.train.crop, plan.trials[0].settings.model.preprocess.size) == (128, 256)


@pytest.mark.parametrize(
    "override", ["model.encoder=resnet50", "model.architecture=fpn", "train.workers=2", "train.backend=ray"]
)
def test_what_a_study_decides_by_itself_is_refused(override: str) -> None:
    with pytest.raises(SettingsError, match="a study"):
        make_plan(("unet/resnet18",), Budget(), overrides=(override,))
