"""Whether a series has all the images that its files speak of: at its ends no gap tells of a lost slice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from boneseg.dicom.marks import MARKS, ORDERS
from boneseg.ingest.found import Weight
from boneseg.ingest.grouping import SAME_POSITION_MM, Group, distance, parallel, plane_of
from boneseg.ingest.object_facts import ObjectFacts

_ACQUISITION, _NUMBER = MARKS.index("AcquisitionNumber"), ORDERS.index("InstanceNumber")
_FEW = 9
"""Numbers that begin farther from 1 are those of a series that was cut out of a longer one on purpose."""

BELONGS = "belongs to series "
"""How a problem begins that is a slice lost to its series."""
_NEAR = 1.5
"""Steps from the last slice at which a slice still lies in the row of a series."""
_PLACING = (
    ("position", "ImagePositionPatient"),
    ("orientation", "ImageOrientationPatient"),
    ("pixel_spacing", "PixelSpacing"),
)


def why_alone(item: ObjectFacts, beside: Group, at: str) -> tuple[str, Weight]:
    """Say why a single slice is not used beside a series: it is of another kind, or lost what makes it a part.

    Args:
        item: the slice.
        beside: the series.
        at: where that lies.
    """
    plane, first = plane_of(item), beside.slices[0]
    own = plane_of(first)
    lost = [name for field, name in _PLACING if getattr(plane, field) is None and getattr(own, field) is not None]
    if lost:
        reason = f"{BELONGS}{at}, but has no {' and no '.join(lost)} that can be read; export the series again"
        return reason, Weight.SERIES
    if own.is_placed and parallel(plane, own) and _lies_in_row(item, beside):
        pairs = (
            ("PatientID", item.patient != first.patient),
            ("StudyInstanceUID", item.study != first.study),
            ("SeriesInstanceUID", item.series != first.series),
            ("size", (plane.rows, plane.columns) != (own.rows, own.columns)),
        )
        others = [name for name, differs in pairs if differs]
        if others:
            reason = (
                f"{BELONGS}{at} by its place, but has another {' and '.join(others)}; correct it or remove the file"
            )
            return reason, Weight.SERIES
    return (
        f"a single slice beside series {at} (another direction, or one slice taken again); it is not used",
        Weight.UNUSED,
    )


def _lies_in_row(item: ObjectFacts, series: Group) -> bool:
    """Say whether a slice fills a place of a series, or is the next at an end."""
    places = sorted(distance(other) for other in series.slices)
    steps = [two - one for one, two in pairwise(places)]
    step, place = sorted(steps)[len(steps) // 2] if steps else 0.0, distance(item)
    taken = any(abs(place - other) < SAME_POSITION_MM for other in places)
    return not taken and places[0] - _NEAR * step <= place <= places[-1] + _NEAR * step


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
