import math

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from boneseg.sweep_report.importance import advantages, explained_share, importances


def test_the_share_is_that_of_a_case_done_by_hand() -> None:
    # Groups (1, 3) and (5, 7): means 2 and 6, total mean 4. SSW = 4, SST = 9 + 1 + 1 + 9 = 20, n = 4, k = 2:
    # 1 - (4 / 2) / (20 / 3) = 0.7; the plain share of variance would be 0.8.
    assert explained_share([0, 0, 1, 1], [1, 3, 5, 7]) == pytest.approx(0.7)
    assert explained_share([0, 1, 0, 1], [1, 1, 3, 3]) == 0.0
    assert explained_share([0, 0, 1, 1], [2, 2, 2, 2]) == 0.0
    assert explained_share([0, 0, 1, 1], [2, 2, 5, 5]) == pytest.approx(1.0)
    assert math.isnan(explained_share([0, 1], [1, 2])), "two trials of two values tell nothing"
    assert math.isnan(explained_share([0, 0, 0], [1, 2, 3]))


def test_the_share_is_the_adjusted_r_squared_of_a_regression_on_the_groups() -> None:
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 4, size=50)
    scores = 0.3 * groups + rng.normal(size=50)
    dummies = np.eye(4)[groups][:, 1:]
    plain = LinearRegression().fit(dummies, scores).score(dummies, scores)
    assert explained_share(groups, scores) == pytest.approx(1 - (1 - plain) * 49 / 46)


def test_a_setting_that_matters_stands_above_one_that_does_not() -> None:
    rng = np.random.default_rng(0)
    settings = [
        {
            "model.encoder": ["a", "b"][number % 2],
            "train.learning_rate": float(10 ** rng.uniform(-4, -2)),
            "train.seed": 0,
        }
        for number in range(40)
    ]
    scores = [0.5 + 0.1 * (row["model.encoder"] == "b") + rng.normal(0, 0.02) for row in settings]
    first, second = importances(settings, scores)
    assert (first.setting, second.setting) == ("model.encoder", "train.learning_rate"), "the seed was always the same"
    assert first.share is not None
    assert first.p_value is not None
    assert second.p_value is not None
    assert first.share > 0.7
    assert first.p_value < 0.01
    assert second.p_value > 0.05
    assert [level.label for level in first.levels] == ["b", "a"]
    assert [level.trials for level in first.levels] == [20, 20]
    assert first.levels[0].mean == pytest.approx(np.mean(scores[1::2]))
    assert [level.trials for level in second.levels] == [10] * 4, "a rate of many values is put into four groups"


def test_chance_alone_seems_important_as_often_as_its_p_value_says() -> None:
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(60):
        settings = [{"train.loss": str(value)} for value in rng.integers(0, 3, size=12)]
        (row,) = importances(settings, rng.normal(size=12).tolist())
        found += row.p_value is not None and row.p_value <= 0.05
    assert found <= 9  # of 60; more than 9 has a probability below 0.002 where each is 0.05


def test_trials_without_a_setting_do_not_count_for_it() -> None:
    settings = [{"a": 1, "b": 2.0}, {"a": 2}, {"a": 1, "b": 4.0}, {"a": 2}, {"a": 1, "b": 2.0}]
    rows = {row.setting: row for row in importances(settings, [0.1, 0.2, 0.3, 0.4, 0.5])}
    assert rows["b"].trials == 3
    assert {level.label: level.mean for level in rows["b"].levels} == pytest.approx({"2": 0.3, "4": 0.3})


def test_too_few_trials_are_said_to_be_too_few() -> None:
    (row,) = importances([{"a": "x"}, {"a": "y"}], [0.1, 0.9])
    assert (row.share, row.p_value) == (None, None)


def test_an_early_end_does_not_count_against_a_trial() -> None:
    # By hand: epoch 1 has mean 0.3, epoch 2 (of the first two) 0.6. The last one was best while it ran.
    assert advantages([[0.2, 0.5], [0.3, 0.7], [0.4]]) == pytest.approx([-0.1, 0.05, 0.1])
