"""Who is champion: the first model, then whoever is surely better on the same frozen test set."""

from __future__ import annotations

import math

from boneseg.metrics.statistics import GAINS, SHARES, paired_difference, summarise, too_few
from boneseg.storage.records import Record

BY_HAND = "'boneseg publish --promote'"
ROUNDING = 1e-6
"""A gain of less is rounding, not a gain."""


class Score(Record):
    """A model's Dice of the headline class on the frozen test set, by series (``patient`` protocol)."""

    reference: str
    """What a person writes to mean the model, such as ``bone:3``."""
    model_hash: str
    test_hash: str
    by_series: dict[str, float]
    """Series -> Dice, 0 to 1. A series without a value is absent or NaN."""
    patients: dict[str, str]
    """Series -> keyed hash of the patient."""
    headline: str = "bone"
    """Whose Dice it is."""
    told: bool = True
    """Whether the model tells the headline class apart at all."""


class Decision(Record):
    """Whether a model is champion now, and why, in a sentence."""

    promoted: bool
    reason: str


def decide(candidate: Score, champion: Score | None, min_gain: float = 0.0, lost: str | None = None) -> Decision:
    """Compare the mean Dice of two models over the series on which both have one.

    The new model rises where the 95 % interval of the paired difference, over patients, lies above ``min_gain``: of
    equal models 2 or 3 in 100 do. With too few patients for an interval none does by itself.

    Args:
        candidate: the new model.
        champion: the champion so far, measured on the same test set; none where there is none to compare with.
        min_gain: the interval of the gain must lie above this.
        lost: reference of a champion whose files are gone from the bucket or damaged.

    Raises:
        ValueError: the two were measured on different test sets.
    """
    new = candidate.reference
    own = summarise(
        list(candidate.by_series.values()), _patients(candidate, list(candidate.by_series)), 100, bounds=SHARES
    )
    measured = f"a mean {candidate.headline} Dice of {own.mean:.4f} over {own.series} test series"
    if not own.series:
        return _keep(
            f"{new} stays challenger because no test series gives it a {candidate.headline} Dice to judge it by."
        )
    if lost is not None:
        return _promote(
            f"{new} becomes champion with {measured} because the files of {lost}, champion so far, are gone or damaged."
        )
    if champion is None:
        return _promote(f"{new} becomes champion with {measured} because there was no champion before it.")
    if candidate.test_hash != champion.test_hash:
        raise ValueError(f"{new} and {champion.reference} were measured on different test sets")
    if candidate.model_hash == champion.model_hash:
        return _promote(f"{new} is champion with {measured} because it is the very model that {champion.reference} is.")
    return _compare(candidate, champion, min_gain)


def _compare(candidate: Score, champion: Score, min_gain: float) -> Decision:
    new, old = candidate.reference, champion.reference
    both = [series for series in candidate.by_series if series in champion.by_series]
    first, second = [candidate.by_series[series] for series in both], [champion.by_series[series] for series in both]
    gain = paired_difference(first, second, _patients(candidate, both), bounds=GAINS)
    if not gain.series:
        lack = (
            f"has no {candidate.headline} Dice on the present test set"
            if champion.told
            else f"is of another scheme and does not tell {candidate.headline} apart"
        )
        return _promote(f"{new} becomes champion because {old}, champion so far, {lack}.")
    pairs = [pair for pair in zip(first, second, strict=True) if not any(map(math.isnan, pair))]
    means = [math.fsum(values) / len(pairs) for values in zip(*pairs, strict=True)]
    numbers = (
        f"its mean {candidate.headline} Dice of {means[0]:.4f} against {means[1]:.4f} of {old} on the same "
        f"{len(pairs)} test series ({gain.mean:+.4f}"
    )
    if math.isnan(gain.low):
        return _keep(
            f"{new} stays challenger because {numbers}) may be chance: {too_few(gain.patients)}; if you know better, "
            f"{BY_HAND} makes it champion."
        )
    numbers += f", 95 % interval {gain.low:+.4f} to {gain.high:+.4f})"
    needed = f"a gain that is surely more than {min_gain:.4f}" if min_gain else "a sure gain"
    if gain.low > min_gain + ROUNDING:
        return _promote(f"{new} becomes champion because {numbers} is {needed}.")
    return _keep(f"{new} stays challenger because {numbers} is not {needed}.")


def by_hand(reference: str, measured: Decision) -> Decision:
    """Return the decision of a person who promotes a model whatever was measured, which the reason keeps."""
    if measured.promoted:
        return measured
    return _promote(
        f"{reference} becomes champion because a person decided so ({BY_HAND}); measured: {measured.reason}"
    )


def _patients(score: Score, series: list[str]) -> list[str]:
    return [score.patients[name] for name in series]


def _promote(reason: str) -> Decision:
    return Decision(promoted=True, reason=reason)


def _keep(reason: str) -> Decision:
    return Decision(promoted=False, reason=reason)
