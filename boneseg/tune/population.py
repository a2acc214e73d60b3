"""Population based training (Jaderberg et al., Population Based Training of Neural Networks, 2017).

Ray Tune's own keeps its population in notes that end with their driver and hands checkpoints around by itself; here the
journal knows the population, and a poor trial starts from a good one's state as the bucket holds it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from boneseg.tune.journal import Trial
from boneseg.tune.space import Choice, Part, Space

QUANTILE, RESAMPLED, FACTORS = 0.25, 0.25, (0.8, 1.2)
"""Share of poor and of good trials; how often a setting is drawn anew; by what it is multiplied otherwise."""
TURNS = 5
"""How often, at most, a trial is compared with the others."""
_FIXED = ("train.optimizer", "train.seed")
"""Settings of training that a state does not go with, or that mean nothing halfway."""


class Population:
    """Decides which trials go on from others, and with which settings.

    Args:
        space: to choose from; what shapes the network is taken over as it is.
        seed: of what is drawn.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed
        self._interval = max(1, math.ceil(space.base.tune.epochs / TURNS))

    def turn_ends(self, epoch: int) -> bool:
        """Say whether trials are compared after an epoch."""
        return epoch % self._interval == 0

    def changed(
        self, trial: Trial, others: Sequence[Trial], score: Callable[[Trial, int], float]
    ) -> tuple[Trial, Choice] | None:
        """Return from which trial a poor one goes on, and with which settings; none where it is not poor.

        Args:
            trial: after an epoch.
            others: trials whose state is there to go on from.
            score: value of a trial until an epoch.
        """
        epoch = len(trial.history)
        reached = [other for other in others if len(other.history) >= epoch and other.number != trial.number]
        ranked = sorted([*reached, trial], key=lambda each: score(each, epoch))
        share = min(math.ceil(len(ranked) * QUANTILE), len(ranked) // 2)
        if trial not in ranked[:share]:
            return None
        numbers = random.Random(f"{self._seed}-{trial.number}-{epoch}")
        donor = numbers.choice(ranked[-share:])
        return donor, self._explored(donor.choice, numbers)

    def _explored(self, choice: Choice, numbers: random.Random) -> Choice:
        def pick(name: str, part_number: int, part: Part) -> Any:
            known: Any = choice.get(name)
            fixed = not name.startswith("train.") or name in _FIXED
            if name in choice and fixed:
                return known
            if known is None or numbers.random() < RESAMPLED or (part.values and known not in part.values):
                return numbers.choice(part.values) if part.values else part.at(numbers.random())
            if part.values:
                place = part.values.index(known) + numbers.choice((-1, 1))
                return part.values[min(max(place, 0), len(part.values) - 1)]
            return part.rounded(min(max(float(choice[name]) * numbers.choice(FACTORS), part.low), part.high))

        return self._space.choose(pick)
