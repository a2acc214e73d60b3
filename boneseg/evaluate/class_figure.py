"""What the figure of bones shows: the values of the table of bones, series by series."""

from __future__ import annotations

from collections.abc import Sequence

from boneseg.evaluate.class_tables import in_pairs, pair_name, pair_of
from boneseg.evaluate.plots import on_white
from boneseg.evaluate.plots_classes import BoneRow, Marks
from boneseg.evaluate.records import EvaluationResult, SeriesResult
from boneseg.scheme import LabelScheme

_GROUP_COLOUR = (68, 68, 68)


def bone_rows(series: Sequence[SeriesResult], result: EvaluationResult) -> list[BoneRow]:
    """Return a row for every group, and one for every bone or pair of bones, that some series has."""
    if not any(table.name == "bones" for table in result.tables):
        return []
    scheme = result.scheme
    groups = [name for name in scheme.groups if name not in scheme.names]
    rows = [BoneRow(name, [_marks(series, name, "", _GROUP_COLOUR)], group=True) for name in groups]
    for value in in_pairs(scheme, scheme.bones):
        pair = pair_of(scheme, value)
        if pair is None:
            rows.append(BoneRow(scheme.names[value], [_of_class(series, scheme, value, "")]))
        elif value == pair[0]:
            marks = [_of_class(series, scheme, *item) for item in zip(pair, ("left", "right"), strict=True)]
            rows.append(BoneRow(pair_name(scheme, pair), marks))
    return [row for row in rows if any(mark.dice for mark in row.marks)]


def _of_class(series: Sequence[SeriesResult], scheme: LabelScheme, value: int, side: str) -> Marks:
    return _marks(series, scheme.names[value], side, scheme.classes[value].colour)


def _marks(series: Sequence[SeriesResult], name: str, side: str, colour: tuple[int, int, int]) -> Marks:
    regions = [region for row in series if (region := row.network.region(name)) is not None]
    return Marks(
        side=side,
        colour=on_white(colour),
        dice=[dice for region in regions if (dice := region.dice()) is not None],
        hd95_mm=[region.hd95_mm for region in regions if region.hd95_mm is not None],
    )
