"""Whether a series has all the images that its files speak of: at its ends no gap tells of a lost slice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from boneseg.dicom.marks import MARKS, ORDERS
from boneseg.ingest.facts import ObjectFacts
from boneseg.ingest.grouping import Group, distance

_ACQUISITION, _NUMBER = MARKS.index("AcquisitionNumber"), ORDERS.index("InstanceNumber")
_FEW = 9
"""Numbers that begin farther from 1 are those of a series that was cut out of a longer one on purpose."""


def what_is_missing(group: Group, groups: Sequence[Group]) -> str:
    """Say that a series has fewer images than its files tell; empty where they tell nothing, or all are there.

    Args:
        group: the series.
        groups: all of them: passes of one series share its numbers, and series of one acquisition its images.
    """
    family = [item for other in groups if other.parent == group.parent for item in other.slices]
    own = {_acquisition(item) for item in group.slices}
    told = sum(max((item.images or 0 for item in family if _acquisition(item) == one), default=0) for one in own)
    if told:
        here = _different(item for item in family if _acquisition(item) in own)
        study = group.slices[0].study
        everywhere = _different(
            item
            for other in groups
            for item in other.slices
            if study and item.study == study and _acquisition(item) in own
        )
        if here >= told or everywhere == told:
            return ""
        return (
            f"its files speak of {told} images (ImagesInAcquisition or NumberOfSlices), {here} are here; slices may be "
            "missing at an end, complete the series"
        )
    numbers = sorted({item.orders[_NUMBER] or 0.0 for item in family if len(item.orders) > _NUMBER})
    unbroken = len(numbers) == _different(family) and all(two - one == 1 for one, two in pairwise(numbers))
    if unbroken and 1 < numbers[0] <= _FEW + 1:
        lost = int(numbers[0]) - 1
        return f"InstanceNumbers begin at {lost + 1}: {lost} slices may be missing at an end, complete the series"
    return ""


def _acquisition(item: ObjectFacts) -> str:
    return item.marks[_ACQUISITION] if item.marks else ""


def _different(items: Iterable[ObjectFacts]) -> int:
    """Count slices, copies once."""
    return len({(round(distance(item), 2), item.pixels) for item in items})
