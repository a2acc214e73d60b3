"""By which class or group models are compared, also models of different schemes."""

import pytest

from boneseg.errors import ModelError
from boneseg.registry.publish import PublishResult, publish
from boneseg.settings.schema import RunSettings
from boneseg.storage.workspace import Workspace
from tests.registry.factory import BAD, BETTER, GOOD, upload_a_model, write_an_evaluation

BONES = {"patient outline": 0.0, "femur left": 0.0, "spine": 0.0, "bone": 0.0}


def publish_one(
    workspace: Workspace,
    dataset: str,
    seed: int,
    dice: dict[str, float],
    regions: dict[str, float] | None,
    headline: str,
) -> PublishResult:
    settings = RunSettings.model_validate({"publish": {"headline": headline}})
    uri, model_hash = upload_a_model(workspace, seed)
    return publish(workspace, uri, write_an_evaluation(workspace, model_hash, dice, regions), dataset, settings)


@pytest.mark.parametrize(
    ("headline", "called"),
    [("femur left", "femur left"), ("Femur_Left", "femur left"), ("spine", "spine"), ("bone", "bone")],
)
def test_a_class_a_group_or_bone_decides_and_the_reason_names_it(
    workspace: Workspace, dataset: str, headline: str, called: str
) -> None:
    better = dict(BONES) | {called: 0.05}
    first = publish_one(workspace, dataset, 1, GOOD, BONES, headline)
    dice = BETTER if called == "bone" else GOOD
    second = publish_one(workspace, dataset, 2, dice, better, headline)
    assert first.promoted
    assert f"a mean {called} Dice" in first.reason
    assert f"its mean {called} Dice of" in second.reason
    assert second.promoted, second.reason


def test_a_gain_elsewhere_does_not_count(workspace: Workspace, dataset: str) -> None:
    publish_one(workspace, dataset, 1, GOOD, BONES, "bone")
    result = publish_one(workspace, dataset, 2, GOOD, dict(BONES) | {"femur left": 0.05}, "bone")
    assert not result.promoted
    assert "its mean bone Dice" in result.reason


def test_an_unknown_headline_is_refused_with_those_that_there_are(workspace: Workspace, dataset: str) -> None:
    with pytest.raises(ModelError) as caught:
        publish_one(workspace, dataset, 1, GOOD, BONES, "tibia")
    assert str(caught.value) == (
        "publish.headline = 'tibia' is not measured for this model; there are bone, patient outline, femur left, spine"
    )


def test_models_of_different_schemes_are_compared_as_bone(workspace: Workspace, dataset: str) -> None:
    assert publish_one(workspace, dataset, 1, GOOD, None, "bone").promoted
    worse = publish_one(workspace, dataset, 2, BAD, BONES, "bone")
    better = publish_one(workspace, dataset, 3, BETTER, BONES, "bone")
    assert (worse.promoted, better.promoted) == (False, True)
    assert "against 0.8475 of bone:1" in better.reason


def test_a_champion_that_does_not_tell_the_headline_gives_way_and_the_reason_says_so(
    workspace: Workspace, dataset: str
) -> None:
    assert publish_one(workspace, dataset, 1, GOOD, None, "bone").promoted
    with pytest.raises(ModelError, match="there are bone"):
        publish_one(workspace, dataset, 2, BETTER, None, "femur left")
    result = publish_one(workspace, dataset, 3, BAD, BONES, "femur left")
    assert result.promoted
    assert "does not tell femur left apart" in result.reason


def test_a_challenger_is_decided_again_by_another_headline_or_gain(workspace: Workspace, dataset: str) -> None:
    def decide(headline: str, gain: float = 0.0) -> PublishResult:
        settings = RunSettings.model_validate({"publish": {"headline": headline, "min_gain": gain}})
        return publish(workspace, *second, dataset, settings)

    publish_one(workspace, dataset, 1, GOOD, BONES, "bone")
    uri, model_hash = upload_a_model(workspace, 2)
    second = (uri, write_an_evaluation(workspace, model_hash, GOOD, dict(BONES) | {"femur left": 0.05}))
    by_bone, too_little, by_femur = decide("bone"), decide("femur left", 0.2), decide("femur left")
    assert [item.promoted for item in (by_bone, too_little, by_femur)] == [False, False, True]
    assert "its mean femur left Dice" in too_little.reason
    assert {item.version for item in (by_bone, too_little, by_femur)} == {"2"}
    assert by_femur.champion == "bone:2"
    assert decide("bone").reason == by_femur.reason  # it is champion: nobody is there to compare it with
