"""Who is champion, by a table of cases."""

import math

import numpy as np
import pytest

from boneseg.registry.champion import Score, by_hand, decide


def score(reference: str, dice: dict[str, float], test_hash: str = "t1", model_hash: str = "") -> Score:
    return Score(
        reference=reference,
        model_hash=model_hash or reference,
        test_hash=test_hash,
        by_series=dice,
        patients={series: f"p-{series}" for series in dice},
    )


OLD = {"a": 0.80, "b": 0.90, "c": 0.85, "d": 0.83, "e": 0.87, "f": 0.84}


def moved(*gains: float) -> dict[str, float]:
    """The new model's Dice, by gains over the old one's."""
    return {series: dice + gain for (series, dice), gain in zip(OLD.items(), gains, strict=True)}


CASES = [
    ("better with every patient", moved(0.05, 0.06, 0.04, 0.05, 0.06, 0.05), OLD, 0.0, True),
    ("better on average, but it may be chance", moved(0.15, -0.05, 0.1, -0.04, 0.02, 0.0), OLD, 0.0, False),
    ("worse on average", moved(-0.1, 0.05, -0.02, 0.0, -0.03, 0.0), OLD, 0.0, False),
    ("a tie leaves the champion", dict(OLD), OLD, 0.0, False),
    ("a gain that is surely above what is asked", moved(0.08, 0.07, 0.08, 0.075, 0.07, 0.08), OLD, 0.05, True),
    ("a sure gain that may be less than is asked", moved(0.05, 0.06, 0.04, 0.05, 0.06, 0.05), OLD, 0.05, False),
    ("a negative gain lets a slightly worse one pass", moved(*[-0.001] * 5, -0.002), OLD, -0.01, True),
    ("a missed bone counts as nothing", moved(0.1, 0.1, 0.1, 0.1, 0.1, -0.84), OLD, 0.0, False),
    ("only series that both have are compared", moved(*[0.05] * 5, 0.06) | {"z": 0.1}, OLD, 0.0, True),
    ("too few patients that both have", {"a": 0.99, "b": 0.99, "c": 0.99}, OLD, 0.0, False),
    ("a series without a value is left out for both", moved(*[0.05] * 5, math.nan), OLD, 0.0, False),
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


def test_the_reason_names_both_models_their_numbers_and_the_interval() -> None:
    reason = decide(score("bone:2", moved(0.05, 0.06, 0.04, 0.05, 0.06, 0.05)), score("bone:1", OLD)).reason
    for part in ("bone:2 becomes champion", "0.9000", "0.8483", "bone:1", "+0.0517", "95 % interval", "6 test series"):
        assert part in reason, reason


def test_a_person_may_know_better_and_the_reason_keeps_what_was_measured() -> None:
    few = {"a": 0.95, "b": 0.96}
    measured = decide(score("bone:2", few), score("bone:1", OLD))
    assert "2 patients: too few for an interval (6 are needed)" in measured.reason
    assert "'boneseg publish --promote'" in measured.reason
    decision = by_hand("bone:2", measured)
    assert decision.promoted
    assert "a person decided" in decision.reason
    assert measured.reason in decision.reason


@pytest.mark.parametrize("patients", [6, 12])
def test_equal_models_hardly_ever_follow_each_other_and_better_ones_mostly(patients: int) -> None:
    rng = np.random.default_rng(patients)
    risen = {0.0: 0, 0.04: 0}
    for _ in range(300):
        base = np.clip(rng.beta(18, 2, patients), 0, 0.94)
        for gain in risen:
            noise = rng.normal(0, 0.02, (2, patients))
            new, old = (dict(enumerate(base + gain * first + noise[1 - first])) for first in (1, 0))
            named = [{str(key): float(value) for key, value in values.items()} for values in (new, old)]
            risen[gain] += decide(score("bone:2", named[0]), score("bone:1", named[1])).promoted
    assert risen[0.0] / 300 <= 0.05
    assert risen[0.04] / 300 >= 0.6


def test_a_champion_whose_files_are_gone_gives_way() -> None:
    decision = decide(score("bone:2", {"a": 0.2}), None, min_gain=0.5, lost="bone:1")
    assert decision.promoted
    assert "bone:1" in decision.reason
    assert "gone" in decision.reason


def test_the_champions_own_weights_measured_again_stay_champion() -> None:
    decision = decide(score("bone:2", OLD, model_hash="same"), score("bone:1", OLD, model_hash="same"), min_gain=0.5)
    assert decision.promoted
    assert "very model" in decision.reason


@pytest.mark.parametrize("gain", [1e-12, 1e-9])
def test_rounding_is_no_gain(gain: float) -> None:
    champion = score("bone:1", dict.fromkeys("abcdefgh", 0.9))
    candidate = score("bone:2", dict.fromkeys("abcdefgh", 0.9 + gain))
    assert not decide(candidate, champion).promoted
    assert not decide(score("bone:2", dict.fromkeys("abcdefgh", 0.92)), champion, 0.02).promoted
    assert decide(score("bone:2", dict.fromkeys("abcdefgh", 0.921)), champion, 0.02).promoted


def test_different_test_sets_are_never_compared() -> None:
    with pytest.raises(ValueError, match="different test sets"):
        decide(score("bone:2", {"a": 1.0}), score("bone:1", OLD, test_hash="t0"))
