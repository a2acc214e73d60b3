"""Optuna's Tree-structured Parzen Estimator as a searcher: define-by-run, for one metric or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from boneseg.tune.searchers import Random
from boneseg.tune.space import Choice, Part, Pick, Space

LEAST_AT_RANDOM, MOST_AT_RANDOM, SHARE_AT_RANDOM = 4, 10, 0.25
"""The first trials are drawn at random: a share of all, within bounds."""
OWN_ATTEMPTS = 10
"""A sampler that is sure of itself chooses the same again and again: after so many, something new is drawn."""


class Optuna:
    """Asks an Optuna study.

    Args:
        space: to choose from.
        seed: of the sampler.
        trials: of the sweep.
        minimise: for each metric, whether less is better.
        parallel: whether trials run side by side: the sampler then keeps away from what others try just now.
    """

    attempts = 200

    def __init__(self, space: Space, seed: int, trials: int, minimise: Sequence[bool], parallel: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._seed, self._parallel = space, seed, parallel
        self._random = Random(space, seed)
        self._at_random = max(LEAST_AT_RANDOM, min(MOST_AT_RANDOM, round(trials * SHARE_AT_RANDOM)))
        self._study = optuna.create_study(
            directions=["minimize" if less else "maximize" for less in minimise], sampler=self._sampler(0, 0)
        )
        self._asked: dict[int, optuna.Trial] = {}
        self._one_metric = len(minimise) == 1

    def ask(self, number: int, attempt: int) -> Choice | None:
        """Ask for a choice, with random numbers of its own, so that an interruption changes nothing."""
        if attempt >= OWN_ATTEMPTS:
            return self._random.ask(number, attempt)
        self._study.sampler = self._sampler(number, attempt)
        trial = self._asked[number] = self._study.ask()
        return self._space.choose(_suggest(trial))

    def refuse(self, number: int) -> None:
        """Leave the last choice for a trial out of what the sampler learns from."""
        trial = self._asked.pop(number, None)
        if trial is not None:
            self._study.tell(trial, state=TrialState.FAIL)

    def taken(self, number: int, choice: Choice) -> None:
        """Take up a choice of before an interruption."""
        if number in self._asked:
            return
        params: dict[str, Any] = {}

        def known(name: str, part_number: int, part: Part) -> Any:
            params[_label(name, part_number)] = part.values.index(choice[name]) if part.values else choice[name]
            return choice[name]

        try:
            self._space.choose(known)
        except (KeyError, ValueError):  # a choice of another space teaches nothing of this one
            return
        self._study.enqueue_trial(params)
        trial = self._asked[number] = self._study.ask()
        self._space.choose(_suggest(trial))

    def tell(self, number: int, values: Sequence[float] | None, steps: Sequence[float], finished: bool) -> None:
        """Teach the sampler how a trial ended; one that was stopped counts as pruned where there is one metric."""
        trial = self._asked.pop(number, None)
        if trial is None:
            return
        if values is None:
            self._study.tell(trial, state=TrialState.FAIL)
        elif finished or not self._one_metric or not steps:
            self._study.tell(trial, list(values))
        else:
            for step, value in enumerate(steps, start=1):
                trial.report(value, step)
            self._study.tell(trial, state=TrialState.PRUNED)

    def _sampler(self, number: int, attempt: int) -> optuna.samplers.BaseSampler:
        seed = (self._seed * 1_000_003 + number * 1009 + attempt) % 2**32
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self._at_random, constant_liar=self._parallel, warn_independent_sampling=False
        )


def _suggest(trial: optuna.Trial) -> Pick:
    def pick(name: str, part_number: int, part: Part) -> Any:
        label = _label(name, part_number)
        if part.values:
            return part.values[trial.suggest_categorical(label, list(range(len(part.values))))]
        if part.step is None:
            return part.rounded(trial.suggest_float(label, part.low, part.high, log=part.log))
        step = 1 if part.log else part.step  # a grid's step plays no part where whole numbers are drawn by logarithm
        low = int(part.low)
        highest = low + (int(part.high) - low) // step * step
        return int(trial.suggest_int(label, low, highest, step=step, log=part.log))

    return pick


def _label(name: str, part_number: int) -> str:
    # Parts are parameters of their own: Optuna wants one set of values under one name.
    return f"{name}#{part_number}"
