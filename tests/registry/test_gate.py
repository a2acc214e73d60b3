"""Who is champion, by a table of cases."""

import math

import pytest

from boneseg.registry.gate import Score, decide


def score(reference: str, dice: dict[str, float], test_hash: str = "t1", model_hash: str = "") -> Score:
    return Score(
        reference=reference,
        model_hash=model_hash or reference,
        test_hash=test_hash,
        by_series=dice,
        patients={series: f"p-{series}" for series in dice},
    )


OLD = {"a": 0.80, "b": 0.90}

CASES = [
    ("better on average", {"a": 0.95, "b": 0.85}, OLD, 0.0, True),
    ("worse on average", {"a": 0.70, "b": 0.95}, OLD, 0.0, False),
    ("a tie leaves the champion", dict(OLD), OLD, 0.0, False),
    ("a gain of just what is asked is too little", {"a": 0.875, "b": 0.5}, {"a": 0.75, "b": 0.375}, 0.125, False),
    ("a gain above what is asked", {"a": 0.95, "b": 0.95}, OLD, 0.05, True),
    ("a negative gain lets a slightly worse one pass", {"a": 0.79, "b": 0.90}, OLD, -0.01, True),
    ("a missed bone counts as nothing", {"a": 1.0, "b": 0.0}, OLD, 0.0, False),
    ("only series that both have are compared", {"a": 0.81, "c": 0.1}, OLD, 0.0, True),
    ("a series without a value is left out for both", {"a": 0.79, "b": math.nan}, OLD, 0.0, False),
    ("a champion without any value", {"a": 0.1}, {"a": math.nan}, 0.0, True),
    ("a candidate without any value", {"a": math.nan, "b": math.nan}, OLD, 0.0, False),
    ("a candidate without any series", {}, OLD, 0.0, False),
    ("the first model", {"a": 0.1}, None, 0.5, True),
    ("the first model without any value", {"a": math.nan}, None, 0.0, False),
]


@pytest.mark.parametrize(
    ("new", "old", "min_gain", "promoted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_the_better_model_on_the_same_test_set_becomes_champion(
    new: dict[str, float], old: dict[str, float] | None, min_gain: float, promoted: bool
) -> None:
    decision = decide(score("bone:2", new), None if old is None else score("bone:1", old), min_gain)
    assert decision.promoted is promoted
    assert decision.reason.startswith("bone:2 ")
    assert decision.reason.endswith(".")
    assert "nan" not in decision.reason


def test_the_reason_names_both_models_and_both_numbers() -> None:
    reason = decide(score("bone:2", {"a": 0.9, "b": 0.96}), score("bone:1", OLD)).reason
    for part in ("bone:2 becomes champion", "0.9300", "0.8500", "bone:1", "+0.0800", "2 test series"):
        assert part in reason


def test_a_champion_whose_files_are_gone_gives_way() -> None:
    decision = decide(score("bone:2", {"a": 0.2}), None, min_gain=0.5, lost="bone:1")
    assert decision.promoted
    assert "bone:1" in decision.reason
    assert "gone" in decision.reason


def test_the_champions_own_weights_measured_again_stay_champion() -> None:
    decision = decide(score("bone:2", OLD, model_hash="same"), score("bone:1", OLD, model_hash="same"), min_gain=0.5)
    assert decision.promoted
    assert "very model" in decision.reason


def test_different_test_sets_are_never_compared() -> None:
    with pytest.raises(ValueError, match="different test sets"):
        decide(score("bone:2", {"a": 1.0}), score("bone:1", OLD, test_hash="t0"))
