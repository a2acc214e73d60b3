"""The trials that no other one beats in both of two figures."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which points are on the Pareto front, by rising cost.

    A point is dominated where another one is at least as good and at most as costly, and better in one of the two.
    Equal points stand on the front together.

    Args:
        points: (how good, how costly): the first is to be high, the second low.
    """
    order = sorted(range(len(points)), key=lambda place: (points[place][1], -points[place][0]))
    front: list[int] = []
    for place in order:
        if not front or points[place][0] > points[front[-1]][0] or points[place] == points[front[-1]]:
            front.append(place)
    return front
