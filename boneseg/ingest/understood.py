"""Which labels of a folder a scheme understands, found out from names and values alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from boneseg.ingest.local import local_series
from boneseg.ingest.naming import classes_called, classes_of_values
from boneseg.scheme import LabelScheme
from boneseg.scheme.labelling import ClassSet
from boneseg.storage.catalogue import FileKind, LabelPart, LabelRow, SeriesRow


@dataclass(frozen=True)
class Understood:
    """What a scheme makes of the labels of a folder.

    Attributes:
        scheme: its name.
        labels: of how many series.
        whole: series whose label is understood.
        classes: class, or ``one of ...`` -> how many series have it.
        unknown: what is not understood, by series.
    """

    scheme: str
    labels: int
    whole: int
    classes: dict[str, int]
    unknown: dict[str, str]


def labelled_rows(folder: Path) -> list[SeriesRow]:
    """Return the labelled series of a folder."""
    rows, _ = local_series(folder)
    return [row for row in rows if row.label is not None]


def understood(rows: list[SeriesRow], scheme: LabelScheme) -> Understood:
    """Say what a scheme makes of some labels."""
    counts: Counter[str] = Counter()
    unknown: dict[str, str] = {}
    for row in rows:
        assert row.label is not None
        found: set[ClassSet] = set()
        for part in row.label.parts or (row.label,):
            meant = _meant(part, scheme)
            if meant is None:
                unknown[row.source] = _describe(part)
            else:
                found.update(meant)
        counts.update(_named(classes, scheme) for classes in found if classes != (0,))
    return Understood(scheme.name, len(rows), len(rows) - len(unknown), dict(counts), unknown)


def _meant(part: LabelRow | LabelPart, scheme: LabelScheme) -> set[ClassSet] | None:
    called = [classes_called(name, scheme) for name in part.names.values() if name]
    if part.kind == FileKind.RTSTRUCT:  # beside bones most hold targets of a plan, which are left out
        called = [classes for classes in called if classes is not None]
    if called and None not in called:
        return {classes for classes in called if classes is not None}
    values = part.values if isinstance(part, LabelRow) else (*part.bone, *part.outline)
    by_value = classes_of_values(sorted(values), scheme, encloses=len(scheme.bones) == 1)
    return None if by_value is None else set(by_value.values())


def _named(classes: ClassSet, scheme: LabelScheme) -> str:
    if len(classes) == 1:
        return scheme.names[classes[0]]
    if len(classes) == scheme.size:
        return "bones that it does not have"
    if classes == scheme.bones:
        return "any bone"
    return f"one of {', '.join(scheme.names[value] for value in classes)}"


def _describe(part: LabelRow | LabelPart) -> str:
    names = ", ".join(name for name in part.names.values() if name)
    values = part.values if isinstance(part, LabelRow) else (*part.bone, *part.outline)
    return names or f"values {', '.join(map(str, values[:8]))}"
