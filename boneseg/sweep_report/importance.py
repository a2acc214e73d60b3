"""How much of the spread between trials each setting explains by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_VALUES = 4
"""Numbers of more different values than this are put into as many groups of equal size."""
PERMUTATIONS = 2000


@dataclass(frozen=True)
class Level:
    """The trials that share a value of a setting, or whose value lies in one range."""

    label: str
    trials: int
    mean: float
    """Of their scores."""


@dataclass(frozen=True)
class Importance:
    """What one setting explains."""

    setting: str
    share: float | None
    """0 to 1, see ``explained_share``; none = too few trials to tell."""
    p_value: float | None
    """How often scores dealt out at random look as much explained; none = too few trials."""
    levels: tuple[Level, ...]
    """The best first."""

    @property
    def trials(self) -> int:
        """How many were counted."""
        return sum(level.trials for level in self.levels)


def importances(settings: Sequence[dict[str, Any]], scores: Sequence[float]) -> tuple[Importance, ...]:
    """Judge every setting that varies, the most important first.

    Args:
        settings: of each trial, by dotted name; a setting that a trial has not is not counted there.
        scores: of each trial, higher is better.
    """
    names = list(dict.fromkeys(name for chosen in settings for name in chosen))
    found = []
    for name in names:
        there = [(chosen[name], score) for chosen, score in zip(settings, scores, strict=True) if name in chosen]
        groups, labels = _grouped([value for value, _ in there])
        if len(labels) > 1:
            found.append(_importance(name, groups, labels, np.array([score for _, score in there])))
    return tuple(sorted(found, key=lambda row: (-(row.share if row.share is not None else -1.0), row.setting)))


def advantages(curves: Sequence[Sequence[float]]) -> list[float]:
    """Return how far each trial lay above the others that had the same epochs: so early ends do not count against it.

    The mean over the trial's epochs of its value minus the mean value of all trials that had this epoch.

    Args:
        curves: of each trial, one value an epoch, at least one.
    """
    most = max((len(curve) for curve in curves), default=0)
    usual = [float(np.mean([curve[done] for curve in curves if len(curve) > done])) for done in range(most)]
    return [float(np.mean(np.asarray(curve) - usual[: len(curve)])) for curve in curves]


def explained_share(groups: Sequence[int] | NDArray[np.int64], scores: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the share of the variance of scores that groups explain, corrected for chance.

    epsilon^2 = 1 - (SSW / (n - k)) / (SST / (n - 1)), with the sums of squares within the groups and in total, n scores
    and k groups; below 0 counts as 0. The plain share of variance, 1 - SSW / SST, grows with the number of groups
    although they mean nothing; this one does not (T. L. Kelley, An unbiased correlation ratio measure, PNAS 21, 1935,
    554-559). Each setting is judged by itself: what settings do only together is not seen.

    Args:
        groups: (n,), the group of each score, from 0 on.
        scores: (n,).

    Returns:
        0 to 1; NaN where there are no more scores than groups.
    """
    values, places = np.asarray(scores, dtype=np.float64), np.asarray(groups)
    count, kinds = len(values), len(np.unique(places))
    if count <= kinds or kinds < 2:
        return math.nan
    within, total = _squares(places, values)
    if total <= 0:
        return 0.0
    return max(0.0, 1 - (within / (count - kinds)) / (total / (count - 1)))


def _squares(groups: NDArray[np.int64], scores: NDArray[np.float64]) -> tuple[float, float]:
    """Return the sums of squares within groups and in total; what is rounding counts as 0."""
    sizes = np.maximum(np.bincount(groups), 1)
    means = np.bincount(groups, weights=scores) / sizes
    within, total = float(((scores - means[groups]) ** 2).sum()), float(((scores - scores.mean()) ** 2).sum())
    return within, total if total > 1e-18 * max(1.0, float((scores**2).sum())) else 0.0


def _importance(name: str, groups: NDArray[np.int64], labels: list[str], scores: NDArray[np.float64]) -> Importance:
    share = explained_share(groups, scores)
    levels = [
        Level(label, int((groups == place).sum()), float(scores[groups == place].mean()))
        for place, label in enumerate(labels)
    ]
    levels.sort(key=lambda level: -level.mean)
    if math.isnan(share):
        return Importance(name, None, None, tuple(levels))
    return Importance(name, share, _by_chance(groups, scores), tuple(levels))


def _by_chance(groups: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """Return the p-value of a permutation test: the share of deals of the scores, this one among them, as explained."""
    observed, _ = _squares(groups, scores)
    rng = np.random.default_rng(0)
    as_small = sum(
        _squares(groups, rng.permutation(scores))[0] <= observed + 1e-12 * max(1.0, observed)
        for _ in range(PERMUTATIONS)
    )
    return (as_small + 1) / (PERMUTATIONS + 1)


def _grouped(values: Sequence[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """Return the group of each value, and what the groups are called."""
    different = list(dict.fromkeys(map(repr, values)))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not numbers or len(different) <= MOST_VALUES:
        named = {repr(value): shown(value) for value in values}
        order = sorted(different, key=lambda key: float(key) if numbers else 0.0)
        return np.array([order.index(repr(value)) for value in values], dtype=np.int64), [named[key] for key in order]
    floats = np.array(values, dtype=np.float64)
    inner = np.quantile(floats, np.arange(1, MOST_VALUES) / MOST_VALUES)
    _, groups = np.unique(np.searchsorted(inner, floats, side="right"), return_inverse=True)
    parts = [floats[groups == place] for place in range(int(groups.max()) + 1)]
    return groups.astype(np.int64), [
        f"{shown(float(part.min()))} to {shown(float(part.max()))}"
        if part.min() < part.max()
        else shown(float(part[0]))
        for part in parts
    ]


def shown(value: Any) -> str:
    """Return a setting's value as tables and figures show it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(shown(part) for part in value)
    return str(value)
