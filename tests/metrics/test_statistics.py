"""Means, intervals and comparisons over series."""

import numpy as np
import pytest
from scipy import stats

from boneseg.metrics.statistics import SHARES, paired_difference, summarise, too_few


def test_mean_and_spread_by_hand() -> None:
    result = summarise([0.8, 0.9, 1.0], ["a", "b", "c"])
    assert result.mean == pytest.approx(0.9)
    assert result.sd == pytest.approx(0.1)
    assert (result.series, result.patients, result.left_out) == (3, 3, 0)


def test_values_that_are_not_defined_are_left_out_and_counted() -> None:
    result = summarise([0.8, np.nan, 0.9, np.nan], ["a", "b", "c", "c"])
    assert result.mean == pytest.approx(0.85)
    assert (result.series, result.patients, result.left_out) == (2, 2, 2)


def test_the_interval_is_students_where_values_are_many_and_even() -> None:
    values = np.random.default_rng(3).normal(0.9, 0.05, size=200)
    ours = summarise(values, [str(index) for index in range(200)], resamples=20000)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert ours.low == pytest.approx(theirs.low, abs=3e-4)
    assert ours.high == pytest.approx(theirs.high, abs=3e-4)


@pytest.mark.parametrize("patients", [6, 8, 10, 15, 20, 40])
@pytest.mark.parametrize(("high", "low", "series_each"), [(18, 2, 1), (5, 1, 1), (18, 2, 3)])
def test_the_interval_holds_the_true_mean_as_often_as_it_says(
    high: int, low: int, series_each: int, patients: int
) -> None:
    """Simulated with Dice-like values, bounded and skewed; the percentile bootstrap covers 84 % with six patients."""
    rng = np.random.default_rng(patients)
    names = list(np.repeat([str(index) for index in range(patients)], series_each))
    held, runs = 0, 400
    for _ in range(runs):
        values = np.repeat(rng.beta(high, low, patients), series_each)
        found = summarise(values + rng.normal(0, 0.005, len(values)), names, resamples=400)
        held += found.low <= high / (high + low) <= found.high
    assert held / runs >= 0.93


def test_the_interval_ends_where_a_figure_does() -> None:
    values = [1.0, 1.0, 1.0, 1.0, 1.0, 0.4]
    found = summarise(values, list("abcdef"), bounds=SHARES)
    assert found.high == 1.0
    assert 0.0 <= found.low < 0.9


@pytest.mark.parametrize("patients", [1, 2, 3, 5])
def test_too_few_patients_have_a_mean_and_no_interval_whatever_they_bring(patients: int) -> None:
    names = [str(index % patients) for index in range(30)]
    found = summarise(np.linspace(0.7, 0.9, 30), names)
    assert found.mean == pytest.approx(0.8)
    assert np.isnan([found.low, found.high]).all()
    gain = paired_difference(np.full(30, 0.9), np.full(30, 0.1), names)
    assert np.isnan([gain.low, gain.high]).all()
    plural = "patient" if patients == 1 else "patients"
    assert too_few(patients) == f"{patients} {plural}: too few for an interval (6 are needed)"


def test_series_of_one_patient_do_not_narrow_the_interval() -> None:
    values, patients = np.array([0.7, 0.8, 0.9, 0.95, 0.85, 0.88, 0.91]), list("abcdefg")
    alone = summarise(values, patients)
    copied = summarise(np.repeat(values, 5), list(np.repeat(patients, 5)))
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low)
    as_if_independent = summarise(np.repeat(values, 5), [str(index) for index in range(35)])
    assert as_if_independent.high - as_if_independent.low < 0.7 * (alone.high - alone.low)


def test_one_patient_has_a_mean_and_no_interval() -> None:
    result = summarise([0.8, 0.9], ["a", "a"])
    assert result.mean == pytest.approx(0.85)
    assert np.isnan(result.low)
    assert np.isnan(result.high)


def test_nothing_at_all_is_not_a_number() -> None:
    assert np.isnan(summarise([], []).mean)
    assert np.isnan(paired_difference([np.nan], [0.5], ["a"]).p_value)


def test_equal_input_gives_equal_output_and_the_order_of_series_does_not_matter() -> None:
    values, patients = [0.7, 0.8, 0.9, 0.95, 0.91, 0.83, 0.88, 0.6], list("abcbdefg")
    first = summarise(values, patients)
    assert summarise(values, patients) == first
    turned = summarise(values[::-1], patients[::-1])
    assert (turned.low, turned.high) == pytest.approx((first.low, first.high))


def test_the_p_value_equals_scipys_permutation_test() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.normal(0.92, 0.03, 10), rng.normal(0.90, 0.03, 10)
    ours = paired_difference(first, second, [str(index) for index in range(10)])
    theirs = stats.permutation_test((first, second), lambda a, b: np.mean(a - b), permutation_type="samples")
    assert ours.p_value == pytest.approx(theirs.pvalue)
    assert ours.mean == pytest.approx((first - second).mean())


def test_many_patients_are_sampled_to_nearly_the_exact_p_value() -> None:
    rng = np.random.default_rng(6)
    first, second = rng.normal(0.92, 0.03, 30), rng.normal(0.91, 0.03, 30)
    ours = paired_difference(first, second, [str(index) for index in range(30)], resamples=20000)
    assert ours.p_value == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.03)


def test_three_patients_cannot_show_a_difference_however_many_series_they_have() -> None:
    patients = list(np.repeat(["a", "b", "c"], 10))
    result = paired_difference(np.full(30, 0.9), np.full(30, 0.8), patients)
    assert result.p_value == pytest.approx(2 / 2**3)
    assert result.patients == 3


def test_one_value_for_each_series_is_needed() -> None:
    with pytest.raises(ValueError, match="one value a series"):
        summarise([0.5, 0.6], ["a"])
