"""Means, intervals and comparisons over series."""

import numpy as np
import pytest
from scipy import stats

from boneseg.metrics.statistics import paired_difference, summarise


def test_mean_and_spread_by_hand() -> None:
    result = summarise([0.8, 0.9, 1.0], ["a", "b", "c"])
    assert result.mean == pytest.approx(0.9)
    assert result.sd == pytest.approx(0.1)
    assert (result.series, result.patients, result.left_out) == (3, 3, 0)


def test_values_that_are_not_defined_are_left_out_and_counted() -> None:
    result = summarise([0.8, np.nan, 0.9, np.nan], ["a", "b", "c", "c"])
    assert result.mean == pytest.approx(0.85)
    assert (result.series, result.patients, result.left_out) == (2, 2, 2)


def test_the_interval_equals_scipys_bootstrap_where_each_patient_has_one_series() -> None:
    values = np.random.default_rng(3).normal(0.9, 0.05, size=25)
    ours = summarise(values, [str(index) for index in range(25)], resamples=20000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=1e-3)
    assert ours.high == pytest.approx(theirs.high, abs=1e-3)


def test_series_of_one_patient_do_not_narrow_the_interval() -> None:
    values = np.array([0.7, 0.8, 0.9, 0.95])
    alone = summarise(values, ["a", "b", "c", "d"])
    copied = summarise(np.repeat(values, 5), list(np.repeat(["a", "b", "c", "d"], 5)))
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low)
    as_if_independent = summarise(np.repeat(values, 5), [str(index) for index in range(20)])
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
    values, patients = [0.7, 0.8, 0.9, 0.95], ["a", "b", "c", "b"]
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
