"""Which slices form a series, and which passes of one series are series of their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import PurePosixPath

from boneseg.dicom.marks import MARKS, ORDERS
from boneseg.ingest.object_facts import ObjectFacts, Plane

SAME_POSITION_MM = 1e-2
_SAME_DIRECTION = 1e-3
_TINY = 1e-9
_REGULAR = 1.5
"""Largest distance of neighbouring slices, in units of the median, in a pass that has all its slices."""
_MOST_PASSES = 64
_FEWEST_SLICES = 3
"""Slices of a pass that lies between the slices of another one: fewer are no pattern."""
_FEWEST_SHARED = 2
"""Positions at which passes that only their order tells apart lie on each other."""

Slices = list[ObjectFacts]


@dataclass(frozen=True)
class Group:
    """Slices that form one series.

    Attributes:
        slices: in the order in which they were given.
        parent: number of the series that the files call one; groups with the same parent are passes of it.
        told_by: what told the passes apart, in words; empty where the parent is one series.
    """

    slices: Slices
    parent: int
    told_by: str = ""


def group_slices(slices: Slices) -> list[Group]:
    """Divide slices into series.

    Slices form a series where patient, study, series UID, size, orientation and pixel spacing agree. Where the series
    UID is empty, the folder and the series number stand for it. Where one such series holds several passes, they are
    told apart by what the files state (acquisition, phase, kernel, times), then by the order of their numbers and
    times, then by folders.
    """
    groups: list[Group] = []
    for number, same_identity in enumerate(_divide(slices, _identity)):
        for same_plane in _cluster(same_identity):
            groups += [Group(part, number, told_by) for part, told_by in _passes(same_plane, "")]
    return groups


def distance(item: ObjectFacts) -> float:
    """Return how far along its normal a slice lies, in mm; 0 where the file does not tell."""
    plane = plane_of(item)
    if plane.orientation is None or plane.position is None:
        return 0.0
    a, b, c, d, e, f = plane.orientation
    x, y, z = plane.position
    return x * (b * f - c * e) + y * (c * d - a * f) + z * (a * e - b * d)


def doubled(slices: Slices) -> list[tuple[ObjectFacts, ObjectFacts]]:
    """Return the pairs of neighbours with different pixels at the same position."""
    placed = sorted(slices, key=lambda item: (distance(item), item.pixels, item.ref.key))
    return [(one, two) for one, two in pairwise(placed) if _same_place(one, two) and one.pixels != two.pixels]


def plane_of(item: ObjectFacts) -> Plane:
    """Return where a slice lies."""
    assert item.plane is not None
    return item.plane


def folder_of(item: ObjectFacts) -> str:
    """Return the folder of an object's key."""
    return str(PurePosixPath(item.ref.key).parent)


def first_in_order(slices: Slices) -> tuple[float, ...]:
    """Return by what one pass comes before another: its lowest number of each of ``ORDERS``."""
    numbers = [[item.orders[index] for item in slices if index < len(item.orders)] for index in range(len(ORDERS))]
    return tuple(min((value for value in column if value is not None), default=0.0) for column in numbers)


def _identity(item: ObjectFacts) -> Hashable:
    plane = plane_of(item)
    series = (item.series,) if item.series else ("", folder_of(item), item.series_number)
    return (item.patient, item.study, *series, plane.rows, plane.columns)


def _divide(slices: Slices, by: Callable[[ObjectFacts], Hashable]) -> list[Slices]:
    parts: dict[Hashable, Slices] = defaultdict(list)
    for item in slices:
        parts[by(item)].append(item)
    return list(parts.values())


def _cluster(slices: Slices) -> list[Slices]:
    """Divide slices by orientation and pixel spacing, each within a tolerance of the cluster's first slice."""
    clusters: list[Slices] = []
    for item in slices:
        for members in clusters:
            if parallel(plane_of(item), plane_of(members[0])):
                members.append(item)
                break
        else:
            clusters.append([item])
    return clusters


def parallel(one: Plane, other: Plane) -> bool:
    """Say whether two slices have one direction and pixel spacing, as far as both tell."""
    if one.orientation is None or other.orientation is None or one.pixel_spacing is None or other.pixel_spacing is None:
        return one.is_placed == other.is_placed
    turned = max(abs(a - b) for a, b in zip(one.orientation, other.orientation, strict=True))
    scaled = max(abs(a - b) / max(a, b, _TINY) for a, b in zip(one.pixel_spacing, other.pixel_spacing, strict=True))
    return turned <= _SAME_DIRECTION and scaled <= _SAME_DIRECTION and one.is_placed == other.is_placed


def _passes(slices: Slices, told_by: str) -> list[tuple[Slices, str]]:
    """Divide a series into its passes, each with what told them apart; what nothing tells apart stays together."""
    how = _way_apart(slices)
    if how is None:
        return [(slices, told_by)]
    parts, name = how
    named = f"{told_by} and {name}" if told_by else name
    return [found for part in parts for found in _passes(part, named)]


def _way_apart(slices: Slices) -> tuple[list[Slices], str] | None:
    """Return the parts of a series that holds several passes, and what tells them apart; none where it holds one."""
    if not all(plane_of(item).is_placed for item in slices) or len(slices) < 2:
        return None
    if not doubled(slices):
        return _way_between(slices)
    marked = [(_divide(slices, partial(_mark, index)), name) for index, name in enumerate(MARKS)]
    turns = [(_in_turn(slices, index), name) for index, name in enumerate(ORDERS)]
    folders = (_divide(slices, folder_of), "folder")
    ways = [(way, _tells) for way in marked]
    ways += [(way, _follow) for way in turns] + [(way, _are_passes) for way in marked] + [(folders, _tells)]
    return next((way for way, is_good in ways if is_good(way[0], slices)), None)


def _way_between(slices: Slices) -> tuple[list[Slices], str] | None:
    """Tell apart passes whose slices lie between each other's, as one volume would alternate between them."""
    marked = [(_divide(slices, partial(_mark, index)), name) for index, name in enumerate(MARKS)]
    in_time = (_in_turn(slices, ORDERS.index("AcquisitionTime")), "AcquisitionTime")
    return next((way for way in (*marked, in_time) if _alternate(way[0], slices)), None)


def _mark(index: int, item: ObjectFacts) -> str:
    return item.marks[index] if index < len(item.marks) else ""


def _tells(parts: Sequence[Slices], whole: Slices) -> bool:
    """Say whether a division takes slices at one position apart, and leaves passes rather than shreds."""
    deepest = _depth(whole)
    if not 1 < len(parts) <= deepest or max(map(_depth, parts)) >= deepest:
        return False
    # A pass may be whole and another a slice that was taken again; half passes with holes are none.
    complete = len(_places(whole))
    return any(len(_places(part)) == complete for part in parts) or _are_regular(parts, whole)


def _are_passes(parts: Sequence[Slices], whole: Slices) -> bool:
    """Say whether each part is a pass of its own: passes of different lengths may be more than lie at one position."""
    if not 1 < len(parts) <= _MOST_PASSES or min(map(len, parts)) < _FEWEST_SLICES:
        return False
    return max(map(_depth, parts)) == 1 and _are_regular(parts, whole)


def _follow(parts: Sequence[Slices], whole: Slices) -> bool:
    """Say whether parts found by their order are passes, not one pass in which a slice was taken again."""
    if not _are_passes(parts, whole):
        return False
    together = [len(_places(one)) + len(_places(two)) - len(_places([*one, *two])) for one, two in pairwise(parts)]
    return min(together) >= _FEWEST_SHARED


def _are_regular(parts: Sequence[Slices], whole: Slices) -> bool:
    places = _places(whole)
    usual = max(_widest(places), _REGULAR * _median(places)) + SAME_POSITION_MM
    return all(_widest(_places(part)) <= usual for part in parts)


def _alternate(parts: Sequence[Slices], whole: Slices) -> bool:
    if not 1 < len(parts) <= _MOST_PASSES or min(map(len, parts)) < _FEWEST_SLICES:
        return False
    if any(_widest(_places(part)) > _REGULAR * _median(_places(part)) for part in parts):
        return False
    of = {item.ref.key: number for number, part in enumerate(parts) for item in part}
    placed = [of[item.ref.key] for item in sorted(whole, key=distance)]
    changes = sum(one != two for one, two in pairwise(placed))
    return changes >= len(placed) // 2


def _in_turn(slices: Slices, index: int) -> list[Slices]:
    """Divide slices in the order of a number or time: a new pass begins where the way along the patient turns back."""
    if any(index >= len(item.orders) or item.orders[index] is None for item in slices):
        return [slices]
    # Slices taken at once have the same number; along which way they come next is not known.
    ways = [
        _runs(sorted(slices, key=lambda item: (item.orders[index] or 0.0, sign * distance(item)))) for sign in (1, -1)
    ]
    runs = min(ways, key=len)
    numbers = [[item.orders[index] or 0.0 for item in run] for run in runs]
    return runs if all(max(one) < min(two) for one, two in pairwise(numbers)) else [slices]


def _runs(ordered: Slices) -> list[Slices]:
    runs: list[Slices] = [[ordered[0]]]
    way = 0.0
    for before, item in pairwise(ordered):
        step = distance(item) - distance(before)
        turns = abs(step) < SAME_POSITION_MM or step * way < 0
        if turns:
            runs.append([item])
        else:
            runs[-1].append(item)
        way = 0.0 if turns else step
    return runs


def _depth(slices: Slices) -> int:
    """Return how many different slices lie at one position, at most."""
    deepest, first = 0, 0
    placed = sorted(slices, key=lambda item: (distance(item), item.pixels))
    for index, item in enumerate(placed):
        if not _same_place(placed[first], item):
            first = index
        deepest = max(deepest, len({other.pixels for other in placed[first : index + 1]}))
    return deepest


def _places(slices: Slices) -> list[float]:
    """Return the different positions, in order."""
    places: list[float] = []
    for place in sorted(map(distance, slices)):
        if not places or place - places[-1] >= SAME_POSITION_MM:
            places.append(place)
    return places


def _widest(places: list[float]) -> float:
    return max((two - one for one, two in pairwise(places)), default=0.0)


def _median(places: list[float]) -> float:
    steps = sorted(two - one for one, two in pairwise(places))
    return steps[len(steps) // 2] if steps else 0.0


def _same_place(one: ObjectFacts, two: ObjectFacts) -> bool:
    return abs(distance(one) - distance(two)) < SAME_POSITION_MM
