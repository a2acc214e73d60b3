"""Means over series with honest intervals.

Patients are resampled, not series: two series of one patient are not independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
EXACT_UP_TO = 16
"""Patients up to which all sign patterns are tried (65 536) rather than a sample of them."""


@dataclass(frozen=True)
class Summary:
    """Mean and spread of one figure over series. What is not defined is NaN."""

    mean: float
    sd: float
    """Sample standard deviation; NaN below two series."""
    low: float
    high: float
    """95 % bootstrap interval of the mean; NaN below two patients."""
    series: int
    patients: int
    left_out: int
    """Series without a value (NaN), not in the mean."""


@dataclass(frozen=True)
class Difference:
    """A paired difference ``first - second`` over the series that have both values."""

    mean: float
    low: float
    high: float
    """95 % bootstrap interval; NaN below two patients."""
    p_value: float
    """Two-sided sign-flip permutation test over patients; NaN without a pair."""
    series: int
    patients: int


def summarise(values: ArrayLike, patients: Sequence[str], resamples: int = RESAMPLES, seed: int = 0) -> Summary:
    """Describe one value a series.

    Args:
        values: (series,); NaN = no value, left out and counted.
        patients: patient of each series.
        resamples: bootstrap resamples.
        seed: of the resampling; equal input gives equal output.
    """
    numbers, names, left_out = _defined(values, patients)
    low, high = _interval(numbers, names, resamples, seed)
    return Summary(
        mean=float(numbers.mean()) if numbers.size else np.nan,
        sd=float(numbers.std(ddof=1)) if numbers.size > 1 else np.nan,
        low=low,
        high=high,
        series=numbers.size,
        patients=len(set(names)),
        left_out=left_out,
    )


def paired_difference(
    first: ArrayLike, second: ArrayLike, patients: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Compare two methods on the same series.

    Args:
        first: (series,); NaN = no value.
        second: (series,), of the same series in the same order.
        patients: patient of each series.
        resamples: bootstrap resamples, and sign patterns where there are too many to try all.
        seed: of the resampling.
    """
    gains = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    numbers, names, _ = _defined(gains, patients)
    low, high = _interval(numbers, names, resamples, seed)
    return Difference(
        mean=float(numbers.mean()) if numbers.size else np.nan,
        low=low,
        high=high,
        p_value=_sign_flip(numbers, names, resamples, seed),
        series=numbers.size,
        patients=len(set(names)),
    )


def _defined(values: ArrayLike, patients: Sequence[str]) -> tuple[NDArray[np.float64], list[str], int]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (len(patients),):
        raise ValueError(f"{numbers.shape} values and {len(patients)} patients: one value a series is needed")
    known = ~np.isnan(numbers)
    names = [name for name, keep in zip(patients, known, strict=True) if keep]
    return numbers[known], names, int((~known).sum())


def _per_patient(numbers: NDArray[np.float64], names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sum and number of the values of each patient."""
    order = sorted(set(names))
    index = np.array([order.index(name) for name in names], dtype=np.intp)
    sums = np.bincount(index, weights=numbers, minlength=len(order)).astype(np.float64)
    return sums, np.bincount(index, minlength=len(order)).astype(np.float64)


def _interval(numbers: NDArray[np.float64], names: Sequence[str], resamples: int, seed: int) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean over series, patients resampled with their series."""
    if len(set(names)) < 2:
        return np.nan, np.nan
    sums, counts = _per_patient(numbers, names)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _sign_flip(gains: NDArray[np.float64], names: Sequence[str], resamples: int, seed: int) -> float:
    """Return the share of sign patterns, one sign a patient, whose mean gain is at least as far from 0."""
    if not gains.size:
        return np.nan
    sums, _ = _per_patient(gains, names)
    if len(sums) <= EXACT_UP_TO:
        bits = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float(_as_far(bits * 2 - 1, sums).mean())
    signs = np.random.default_rng(seed).choice([-1, 1], size=(resamples, len(sums)))
    return float((_as_far(signs, sums).sum() + 1) / (resamples + 1))  # the pattern seen is one of them


def _as_far(signs: NDArray[np.int64], sums: NDArray[np.float64]) -> NDArray[np.bool_]:
    observed = abs(sums.sum())
    far: NDArray[np.bool_] = np.abs(signs @ sums) >= observed - 1e-12 * max(1.0, observed)
    return far
