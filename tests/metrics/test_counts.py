"""Class-wise figures against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn import metrics as reference

from boneseg.metrics import counts

CASES = [(seed, shape, absent) for seed in range(3) for shape in ((40, 50), (3, 20, 20)) for absent in (None, 0, 1, 2)]


def masks(seed: int, shape: tuple[int, ...], absent: int | None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    classes = [value for value in range(3) if value != absent]
    truth = rng.choice(classes, size=shape).astype(np.uint8)
    guess = np.where(rng.random(shape) < 0.7, truth, rng.choice(classes, size=shape)).astype(np.uint8)
    return truth, guess


@pytest.mark.parametrize(("seed", "shape", "absent"), CASES)
def test_counts_equal_the_confusion_matrix_of_sklearn(seed: int, shape: tuple[int, ...], absent: int | None) -> None:
    truth, guess = masks(seed, shape, absent)
    expected = reference.confusion_matrix(truth.ravel(), guess.ravel(), labels=[0, 1, 2])
    np.testing.assert_array_equal(counts.confusion(truth, guess), expected)


@pytest.mark.parametrize(("seed", "shape", "absent"), CASES)
def test_figures_equal_those_of_sklearn(seed: int, shape: tuple[int, ...], absent: int | None) -> None:
    truth, guess = masks(seed, shape, absent)
    table = counts.confusion(truth, guess)
    pair = (truth.ravel(), guess.ravel())
    options = {"labels": [0, 1, 2], "average": None, "zero_division": np.nan}
    np.testing.assert_allclose(counts.iou(table), _absent_is_nan(reference.jaccard_score, pair, absent))
    np.testing.assert_allclose(counts.dice(table), reference.f1_score(*pair, **options))
    np.testing.assert_allclose(counts.precision(table), reference.precision_score(*pair, **options))
    np.testing.assert_allclose(counts.recall(table), reference.recall_score(*pair, **options))
    one_against_rest = [reference.accuracy_score(pair[0] == value, pair[1] == value) for value in range(3)]
    np.testing.assert_allclose(counts.accuracy(table), one_against_rest)


def _absent_is_nan(score: object, pair: tuple[np.ndarray, np.ndarray], absent: int | None) -> np.ndarray:
    values = score(*pair, labels=[0, 1, 2], average=None, zero_division=0)  # type: ignore[operator]
    if absent is not None:
        values[absent] = np.nan
    return values


def test_figures_by_hand() -> None:
    table = np.array([[50, 2, 0], [3, 30, 1], [0, 4, 10]])
    assert counts.iou(table)[2] == pytest.approx(10 / 15)
    assert counts.dice(table)[2] == pytest.approx(20 / 25)
    assert counts.accuracy(table)[2] == pytest.approx(95 / 100)
    assert counts.precision(table)[2] == pytest.approx(10 / 11)
    assert counts.recall(table)[2] == pytest.approx(10 / 14)


def test_a_class_that_is_only_predicted_scores_zero_and_not_nan() -> None:
    truth, guess = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    guess[0, 0] = 2
    table = counts.confusion(truth, guess)
    assert counts.iou(table)[2] == 0
    assert counts.dice(table)[2] == 0
    assert np.isnan(counts.iou(table)[1])


def test_the_mean_over_classes_leaves_absent_ones_out() -> None:
    values = np.array([[0.9, np.nan, 0.5], [0.9, 0.8, 0.7], [np.nan] * 3])
    np.testing.assert_allclose(counts.mean_over_classes(values), [0.7, 0.8, np.nan])


def test_slices_add_up_to_the_volume() -> None:
    truth, guess = masks(5, (7, 30, 31), None)
    table = counts.confusion_per_slice(truth, guess)
    assert table.shape == (7, 3, 3)
    np.testing.assert_array_equal(table.sum(axis=0), counts.confusion(truth, guess))
    np.testing.assert_allclose(counts.dice(table)[3], counts.dice(counts.confusion(truth[3], guess[3])))


@pytest.mark.parametrize("wrong", ["shape", "value"])
def test_masks_that_do_not_fit_are_refused(wrong: str) -> None:
    truth = np.zeros((4, 4), np.uint8)
    guess = np.zeros((4, 5), np.uint8) if wrong == "shape" else np.full((4, 4), 3, np.uint8)
    with pytest.raises(ValueError, match="differ in shape" if wrong == "shape" else "outside 0..2"):
        counts.confusion(truth, guess)


def test_many_classes_are_counted_without_overflow() -> None:
    rng = np.random.default_rng(0)
    truth, guess = (rng.integers(0, 250, (40, 40)).astype(np.uint8) for _ in range(2))
    table = counts.confusion(truth, guess, 250)
    np.testing.assert_array_equal(table, reference.confusion_matrix(truth.ravel(), guess.ravel(), labels=range(250)))


def test_regions_count_what_is_told_of_them() -> None:
    members = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]], dtype=bool)
    truth = np.array([0, 0, 1, 1, 2, 3, 3, 3], dtype=np.uint8)
    guess = np.array([0, 1, 1, 2, 2, 1, 2, 0], dtype=np.uint8)
    table = counts.confusion(truth, guess, 3, 4)
    regions = counts.Regions.of(members, [[0], [1], [2], [1, 2]])
    # One by one: of classes 1 and 2 the three pixels of value 3 do not count; of both together they do.
    np.testing.assert_allclose(
        counts.dice(table, regions), [2 / (2 + 1 + 1), 2 / (2 + 1 + 1), 2 / (2 + 0 + 1), 10 / (10 + 1 + 1)]
    )
    square = table[:3]
    np.testing.assert_array_equal(
        counts.iou(square), counts.iou(square, counts.Regions.of(np.eye(3, dtype=bool), [[0], [1], [2]]))
    )
