import numpy as np
import pytest

from boneseg.sweep_report.front import pareto_front


def brute_force(points: list[tuple[float, float]]) -> set[int]:
    """Ask of every pair whether one dominates the other, as the definition has it."""

    def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a[0] >= b[0] and a[1] <= b[1] and (a[0] > b[0] or a[1] < b[1])

    return {place for place, point in enumerate(points) if not any(dominates(other, point) for other in points)}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("values", [3, 1000])
def test_the_front_is_what_no_point_dominates(seed: int, values: int) -> None:
    rng = np.random.default_rng(seed)  # of few different values many points are equal in one or both figures
    points = [(int(good) / values, int(cost)) for good, cost in rng.integers(0, values, size=(60, 2))]
    front = pareto_front(points)
    assert set(front) == brute_force(points)
    assert len(front) == len(set(front))
    costs = [points[place][1] for place in front]
    assert costs == sorted(costs)


def test_no_points_have_no_front() -> None:
    assert pareto_front([]) == []
