"""A study's results that are made up: no network takes part."""

import numpy as np

from boneseg.settings.schema import EvaluateSettings, RunSettings
from boneseg.study.plan import Trial
from boneseg.study.trial import Finished
from tests.evaluate.given import evaluation, model_card, series_result

SHAPE = (4, 20, 24)


def masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a reference, and a prediction that is right in four of five pixels."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, SHAPE).astype(np.uint8)
    guess = np.where(rng.random(SHAPE) < 0.8, truth, rng.integers(0, 3, SHAPE)).astype(np.uint8)
    return truth, guess


def trial(network: str, title: str, tables: tuple[int, ...] = (1,), epochs: int = 10) -> Trial:
    """Return a trial; its settings do not matter."""
    settings = RunSettings.model_validate({"train": {"epochs": epochs}})
    return Trial(f"{network} ({epochs} epochs)", network, title, tables, settings)


def finished(given: Trial, seed: int = 0, half: bool = False) -> Finished:
    """Return a network measured on two series; ``half`` = it answers at half the size."""
    settings = EvaluateSettings(bootstrap=200)
    series = []
    for number in range(2):
        truth, guess = masks(10 * seed + number)
        output = guess[:, ::2, ::2] if half else None
        series.append(series_result(f"s{number}", f"p{number}", truth, guess, truth, settings, output))
    return Finished(given, model_card(), "s3://bucket/models/x/", evaluation(series, settings))
