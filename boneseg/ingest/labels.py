"""Which label belongs to which series: by geometry; by folder and name only where several series fit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np

from boneseg.geometry import Geometry, to_axial
from boneseg.ingest.facts import Kind, ObjectFacts
from boneseg.storage.catalogue import FileKind, LabelRow, Problem, SeriesRow

TOLERANCE_MM = 0.1

Rank = tuple[int, float, float]
"""How near a series is to a label: how many folders they have in common, then how alike their names start, and end."""


@dataclass(frozen=True)
class _Place:
    """Something with a geometry and a path: a series, a damaged volume, or a label."""

    path: str
    folder: PurePosixPath
    own_geometry: Geometry

    @cached_property
    def axial(self) -> Geometry:
        return to_axial(self.own_geometry)[0]

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders and name, the name without suffixes."""
        path = PurePosixPath(self.path)
        return (*path.parent.parts, path.name.split(".")[0] or path.name)

    def describe(self) -> str:
        spacing = " x ".join(f"{value:.2f}" for value in self.axial.spacing)
        return f"{' x '.join(str(size) for size in self.axial.shape)} voxels of {spacing} mm"


def assign_labels(
    rows: Sequence[SeriesRow], facts: Sequence[ObjectFacts], images: Iterable[str], prefix: str
) -> tuple[list[SeriesRow], list[Problem]]:
    """Give each series the label that fits it.

    The nearest folder above a label that holds images decides among which series it may choose: a label never goes
    to another patient's folder because its own series is damaged. Of the series there that have its geometry, the one
    with most folders in common is taken, then the one whose name is most alike (``labelsTr/a_1`` and
    ``imagesTr/a_1_0000``). Where a label cannot be told to be of one series, it is not used.

    Args:
        rows: series without labels.
        facts: of all objects.
        images: keys of all objects that are images, readable or not.
        prefix: start of all keys that people do not need to see.

    Returns:
        The rows with labels, and a problem for each label that is not used.
    """
    series = [_of_row(row) for row in rows]
    damaged = [_of_fact(item, prefix) for item in facts if item.kind == Kind.BROKEN and item.geometry]
    below: dict[PurePosixPath, list[int]] = {folder: [] for folder in _folders_with_images(images, prefix)}
    for index, place in enumerate(series):
        for folder in (place.folder, *place.folder.parents):
            below[folder].append(index)
    claims: dict[int, list[tuple[Rank, ObjectFacts]]] = defaultdict(list)
    problems = []
    for item in facts:
        if item.kind != Kind.LABEL:
            continue
        label = _of_fact(item, prefix)
        choice = _choose(label, item.file == FileKind.DICOM_SEG, series, damaged, below)
        if isinstance(choice, str):
            problems.append(Problem(source=label.path, reason=choice))
        else:
            claims[choice].append((_rank(label, series[choice]), item))
    labelled = list(rows)
    for index, claimants in claims.items():
        (_, winner), *losers = sorted(claimants, key=lambda claim: claim[0], reverse=True)
        labelled[index] = rows[index].model_copy(update={"label": _label_row(winner)})
        used = winner.ref.key.removeprefix(prefix)
        for _, loser in losers:
            copy = loser.ref.sha256 == winner.ref.sha256
            reason = f"a copy of {used}" if copy else f"{rows[index].source} has a nearer label, {used}; keep one"
            problems.append(Problem(source=loser.ref.key.removeprefix(prefix), reason=reason, fatal=not copy))
    return labelled, problems


def _choose(
    label: _Place, partial: bool, series: list[_Place], damaged: list[_Place], below: dict[PurePosixPath, list[int]]
) -> int | str:
    """Return the index of the series that a label belongs to, or why there is none."""
    home = next((folder for folder in (label.folder, *label.folder.parents) if folder in below), PurePosixPath())
    near = below.get(home, [])
    fitting = [index for index in near if _fits(label.axial, series[index].axial, partial)]
    if not fitting:
        return _no_fit(label, [series[index] for index in near] or series)
    ranks = {index: _rank(label, series[index]) for index in fitting}
    best = max(ranks.values())
    choices = [index for index in fitting if ranks[index] == best]
    if len(choices) > 1:
        names = " and ".join(series[index].path for index in choices[:2])
        return f"fits {names} equally well; put the label beside its series"
    for place in damaged:
        lies_near = place.folder.is_relative_to(home) and place.path != label.path
        if lies_near and _rank(label, place) > best and _fits(label.axial, place.axial, partial):
            return f"seems to belong to {place.path}, which cannot be read; repair or remove that file"
    return choices[0]


def _no_fit(label: _Place, series: list[_Place]) -> str:
    if not series:
        return "there is no series that it could belong to; put the label beside its CT series"
    nearest = max(series, key=lambda place: (_rank(label, place), place.path))
    where = " at another place" if label.axial.shape == nearest.axial.shape else ""
    return (
        f"the label has {label.describe()} and fits no series; the nearest, {nearest.path}, has {nearest.describe()}"
        f"{where}: export the label again on its series"
    )


def _fits(label: Geometry, series: Geometry, partial: bool) -> bool:
    return label.close_to(series, TOLERANCE_MM) or (partial and _covers_slices_of(label, series))


def _covers_slices_of(label: Geometry, series: Geometry) -> bool:
    """Say whether each slice of a label lies on a slice of the series: a DICOM SEG may leave out empty frames."""
    if label.shape[1:] != series.shape[1:] or label.shape[0] > series.shape[0]:
        return False
    # Corners of the first and last label slice, in voxels of the series.
    corners = np.array([[z, y, x] for z in (0, 1) for y in (0, 1) for x in (0, 1)]) * (np.array(label.shape) - 1.0)
    inverse = np.linalg.inv(series.affine)
    indices = label.to_patient(corners) @ inverse[:3, :3].T + inverse[:3, 3]
    nearest = np.rint(indices)
    on_voxels = np.abs((indices - nearest) * np.array(series.spacing)).max() <= TOLERANCE_MM
    first = nearest[0, 0]
    inside = 0 <= first <= series.shape[0] - label.shape[0]
    return bool(on_voxels and inside and np.array_equal(nearest - corners, np.tile((first, 0, 0), (8, 1))))


def _rank(label: _Place, other: _Place) -> Rank:
    mine, theirs = label.parts, other.parts
    shared = _common(mine[:-1], theirs[:-1])
    return shared, *max(_likeness(one, two) for one in mine[shared:] for two in theirs[shared:])


def _likeness(one: str, two: str) -> tuple[float, float]:
    """Return which share of the longer name both names have in common at their starts, and at their ends."""
    longer = max(len(one), len(two), 1)
    return _common(one, two) / longer, _common(one[::-1], two[::-1]) / longer


def _common(one: Sequence[str], two: Sequence[str]) -> int:
    pairs = zip(one, two, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(two)))


def _folders_with_images(images: Iterable[str], prefix: str) -> set[PurePosixPath]:
    folders: set[PurePosixPath] = set()
    for folder in {PurePosixPath(key.removeprefix(prefix)).parent for key in images}:
        folders.update((folder, *folder.parents))
    return folders


def _of_row(row: SeriesRow) -> _Place:
    path = PurePosixPath(row.source)
    folder = path.parent if len(row.objects) == 1 else path  # a volume in one file goes by its name, slices by theirs
    return _Place(row.source, folder, row.geometry.geometry())


def _of_fact(item: ObjectFacts, prefix: str) -> _Place:
    assert item.geometry is not None
    path = item.ref.key.removeprefix(prefix)
    return _Place(path, PurePosixPath(path).parent, item.geometry.geometry())


def _label_row(item: ObjectFacts) -> LabelRow:
    assert item.file is not None
    return LabelRow(kind=item.file, object=item.ref, values=item.values)
