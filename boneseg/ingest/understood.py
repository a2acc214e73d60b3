"""Which labels of a folder a scheme understands, by names and values; voxels are read where these do not tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from boneseg.errors import LabelError, SeriesError
from boneseg.geometry import to_axial
from boneseg.ingest.by_bone import encloses
from boneseg.ingest.label_file import local_file, read_layers
from boneseg.ingest.local import local_series
from boneseg.ingest.names_to_classes import classes_called, classes_of_values
from boneseg.ingest.read import read_image
from boneseg.ingest.values_to_classes import covered_slices
from boneseg.scheme import LabelScheme
from boneseg.scheme.labelling import ClassSet
from boneseg.settings.schema import PrepareSettings
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


@dataclass(frozen=True)
class Labelled:
    """A label of a series.

    Attributes:
        source: where the series lies.
        label: of it.
        has_outline: whether its values 1 and 2 are an outline and the bone within.
    """

    source: str
    label: LabelRow
    has_outline: bool


def labels_of(folder: Path, scheme: LabelScheme) -> list[Labelled]:
    """Return the labels of a folder that belong to a series.

    Args:
        folder: with CT series.
        scheme: says by which words beside those of anatomy files call bones.
    """
    rows, _ = local_series(folder, scheme=scheme)
    return [Labelled(row.source, row.label, _has_outline(row, row.label)) for row in rows if row.label is not None]


def _has_outline(row: SeriesRow, label: LabelRow) -> bool:
    if label.parts or label.names or label.values != (1, 2):
        return not label.parts and label.values == (2,)
    try:
        hu, own_geometry, _ = read_image(local_file, row, PrepareSettings())
        layer = read_layers(local_file, label, own_geometry)[0]
        geometry, reorientation = to_axial(own_geometry)
        numbers = covered_slices(layer.geometry, geometry)
    except (SeriesError, LabelError):
        return False  # prepare says why
    return encloses(layer.values, reorientation.apply(hu)[numbers], label.values)


def understood(labels: Sequence[Labelled], scheme: LabelScheme) -> Understood:
    """Say what a scheme makes of some labels."""
    counts: Counter[str] = Counter()
    unknown: dict[str, str] = {}
    for one in labels:
        found: set[ClassSet] = set()
        for part in one.label.parts or (one.label,):
            meant = _meant(part, scheme, one.has_outline)
            if meant is None:
                unknown[one.source] = _describe(part)
            else:
                found.update(meant)
        if one.source not in unknown and not any(set(classes) & set(scheme.bones) for classes in found):
            unknown[one.source] = f"no bone is among {_describe(one.label)}"
        if one.source not in unknown:
            counts.update(_named(classes, scheme) for classes in found if classes != (0,))
    return Understood(scheme.name, len(labels), len(labels) - len(unknown), dict(counts), unknown)


def _meant(part: LabelRow | LabelPart, scheme: LabelScheme, has_outline: bool) -> set[ClassSet] | None:
    called = [classes_called(name, scheme) for name in part.names.values() if name]
    if part.kind == FileKind.RTSTRUCT:  # beside bones most hold targets of a plan, which are left out
        called = [classes for classes in called if classes is not None]
    if called and None not in called:
        return {classes for classes in called if classes is not None}
    values = part.values if isinstance(part, LabelRow) else (*part.bone, *part.outline)
    by_value = classes_of_values(sorted(values), scheme, encloses=has_outline or scheme.knows_only_bone)
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
    more = f" and {len(values) - 8} more" if len(values) > 8 else ""
    return names or f"values {', '.join(map(str, values[:8]))}{more}"
