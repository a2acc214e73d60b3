"""What chooses the next trial: a small protocol, and the searchers that need no library."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from boneseg.tune.space import Choice, Part, Space


class Searcher(Protocol):
    """Chooses settings, given how earlier choices did.

    A choice depends on the seed, on its number and on what was observed: not on whether the sweep was interrupted.
    """

    attempts: int
    """How often it is asked for one trial, until its choice is new and can work."""

    def ask(self, number: int, attempt: int) -> Choice | None:
        """Choose for a trial.

        Args:
            number: of the trial.
            attempt: counted from 0; the choices of earlier ones cannot work, or were tried before.

        Returns:
            The choice; none where there is nothing left.
        """

    def refuse(self, number: int) -> None:
        """Learn that the last choice for a trial is not tried."""

    def taken(self, number: int, choice: Choice) -> None:
        """Learn that a trial runs with a choice: of this searcher, or of one before an interruption."""

    def tell(self, number: int, values: Sequence[float] | None, steps: Sequence[float], finished: bool) -> None:
        """Learn how a trial ended.

        Args:
            number: of the trial.
            values: one for each metric; none where it failed.
            steps: the first metric after each epoch.
            finished: whether it had all its epochs.
        """


class Grid:
    """Every combination in turn."""

    attempts = sys.maxsize

    def __init__(self, space: Space) -> None:
        self._rest: Iterator[Choice] = space.grid()

    def ask(self, number: int, attempt: int) -> Choice | None:
        """Return the next combination."""
        return next(self._rest, None)

    def refuse(self, number: int) -> None:
        """Nothing is learned."""

    def taken(self, number: int, choice: Choice) -> None:
        """Nothing is learned: what was tried before is passed over by who asks."""

    def tell(self, number: int, values: Sequence[float] | None, steps: Sequence[float], finished: bool) -> None:
        """Nothing is learned."""


class Random:
    """Each setting drawn by itself, evenly."""

    attempts = 200

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed

    def ask(self, number: int, attempt: int) -> Choice | None:
        """Draw a choice."""
        numbers = random.Random(f"{self._seed}-{number}-{attempt}")

        def pick(name: str, part_number: int, part: Part) -> Any:
            return numbers.choice(part.values) if part.values else part.at(numbers.random())

        return self._space.choose(pick)

    def refuse(self, number: int) -> None:
        """Nothing is learned."""

    def taken(self, number: int, choice: Choice) -> None:
        """Nothing is learned."""

    def tell(self, number: int, values: Sequence[float] | None, steps: Sequence[float], finished: bool) -> None:
        """Nothing is learned."""
