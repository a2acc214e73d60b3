"""From files to series: which slices belong together, and which label belongs to which series."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np

from boneseg.dicom.header import CT_IMAGE, SliceHeader
from boneseg.dicom.series import sort_slices
from boneseg.errors import SeriesError
from boneseg.geometry import Geometry
from boneseg.ingest.facts import Kind, ObjectFacts, Plane
from boneseg.ingest.labels import assign_labels
from boneseg.storage.catalogue import FileKind, GeometryRecord, Problem, SeriesRow
from boneseg.storage.hashing import combine, pseudonym

_SAME_DIRECTION = 1e-3
_SAME_POSITION_MM = 1e-2
_TINY = 1e-9


@dataclass
class _Found:
    """What was recognised so far."""

    secret: bytes
    prefix: str
    rows: list[SeriesRow]
    problems: list[Problem]
    copies: set[str]
    """Keys of slices that a series has already."""

    def name(self, key: str) -> str:
        """Return a key as a person knows it: below the raw prefix."""
        return key.removeprefix(self.prefix)

    def reject(self, source: str, reason: str, fatal: bool = True) -> None:
        self.problems.append(Problem(source=source, reason=reason, fatal=fatal))


def assemble(
    facts: Iterable[ObjectFacts], secret: bytes, prefix: str = ""
) -> tuple[tuple[SeriesRow, ...], tuple[Problem, ...]]:
    """Group slices into series and find the label of each.

    Slices form a series where patient, study, series UID, size, orientation and pixel spacing agree. Where the series
    UID is empty, the folder and the series number stand for it. Where one UID has two different slices at one
    position, two series use it, and folders (then series numbers) tell them apart. Equal files count once.

    Args:
        facts: of all objects; their order plays no part.
        secret: of the keyed hashes, for what has no identifiers of its own.
        prefix: start of all keys that people do not need to see.

    Returns:
        One row a series and one problem for whatever cannot be used or is odd, both in a fixed order.
    """
    ordered = sorted(facts, key=lambda item: item.ref.key.split("/"))
    found = _Found(secret, prefix, [], [], set())
    slices = [item for item in ordered if item.kind == Kind.SLICE]
    for group in _groups(slices):
        _add_dicom(found, group)
    for item in ordered:
        if item.kind == Kind.VOLUME:
            _add_nifti(found, item)
    _name_unused(found, ordered)
    images = _images(ordered) - found.copies
    rows, problems = assign_labels(found.rows, ordered, images, prefix)
    found.problems += problems
    rows = _drop_copies(found, rows)
    in_order = sorted(found.problems, key=lambda problem: (not problem.fatal, problem.source, problem.reason))
    return tuple(sorted(rows, key=lambda row: (row.source, row.series))), tuple(in_order)


def _images(facts: list[ObjectFacts]) -> set[str]:
    """Return the keys of all that is or was CT. A damaged DICOM file may be either: beside labels it was a label."""
    label_folders = {_folder(item) for item in facts if item.kind == Kind.LABEL}
    images = set()
    for item in facts:
        was_volume = item.kind == Kind.BROKEN and item.geometry is not None
        was_slice = item.kind == Kind.BROKEN and item.file == FileKind.DICOM and _folder(item) not in label_folders
        if item.kind in (Kind.SLICE, Kind.VOLUME) or was_volume or was_slice:
            images.add(item.ref.key)
    return images


def _groups(slices: list[ObjectFacts]) -> list[list[ObjectFacts]]:
    """Divide slices into series."""
    groups = []
    for same_identity in _divide(slices, _identity):
        for same_plane in _cluster(same_identity):
            groups += _apart(same_plane, [_folder, lambda item: item.series_number])
    return groups


def _identity(item: ObjectFacts) -> tuple[object, ...]:
    plane = _plane(item)
    series = (item.series,) if item.series else ("", _folder(item), item.series_number)
    return (item.patient, item.study, *series, plane.rows, plane.columns)


def _divide(slices: list[ObjectFacts], by: Callable[[ObjectFacts], object]) -> list[list[ObjectFacts]]:
    parts: dict[object, list[ObjectFacts]] = defaultdict(list)
    for item in slices:
        parts[by(item)].append(item)
    return list(parts.values())


def _cluster(slices: list[ObjectFacts]) -> list[list[ObjectFacts]]:
    """Divide slices by orientation and pixel spacing, each within a tolerance of the cluster's first slice."""
    clusters: list[list[ObjectFacts]] = []
    for item in slices:
        for members in clusters:
            if _parallel(_plane(item), _plane(members[0])):
                members.append(item)
                break
        else:
            clusters.append([item])
    return clusters


def _parallel(one: Plane, other: Plane) -> bool:
    if one.orientation is None or other.orientation is None or one.pixel_spacing is None or other.pixel_spacing is None:
        return one.is_placed == other.is_placed
    turned = max(abs(a - b) for a, b in zip(one.orientation, other.orientation, strict=True))
    scaled = max(abs(a - b) / max(a, b, _TINY) for a, b in zip(one.pixel_spacing, other.pixel_spacing, strict=True))
    return turned <= _SAME_DIRECTION and scaled <= _SAME_DIRECTION and one.is_placed == other.is_placed


def _apart(slices: list[ObjectFacts], ways: Sequence[Callable[[ObjectFacts], object]]) -> list[list[ObjectFacts]]:
    """Take series apart that share a UID: as long as different slices lie at one position, divide in the next way."""
    if not ways or not _collides(slices):
        return [slices]
    return [part for group in _divide(slices, ways[0]) for part in _apart(group, ways[1:])]


def _collides(slices: list[ObjectFacts]) -> bool:
    """Say whether two slices with different pixels lie at the same position."""
    placed = sorted((_distance(item), item.pixels) for item in slices)
    return any(second[0] - first[0] < _SAME_POSITION_MM and first[1] != second[1] for first, second in pairwise(placed))


def _distance(item: ObjectFacts) -> float:
    """Return how far along its normal a slice lies, in mm; 0 where the file does not tell."""
    plane = _plane(item)
    if plane.orientation is None or plane.position is None:
        return 0.0
    a, b, c, d, e, f = plane.orientation
    x, y, z = plane.position
    return x * (b * f - c * e) + y * (c * d - a * f) + z * (a * e - b * d)


def _add_dicom(found: _Found, group: list[ObjectFacts]) -> None:
    group = _without_copies(found, group)
    source = _common_folder([found.name(item.ref.key) for item in group])
    try:
        # Gaps and tilt are prepare's to judge; here it is enough that the slices have an order.
        series = sort_slices([_header(item) for item in group], max_gap=math.inf, max_tilt_degrees=90)
    except SeriesError as error:
        found.reject(found.name(group[0].ref.key) if len(group) == 1 else source, str(error))
        return
    ordered = [group[index] for index in series.order]
    first = ordered[0]
    place = pseudonym(found.secret, "folder", source)
    ranges = [item.hu_range for item in ordered if item.hu_range]
    found.rows.append(
        SeriesRow(
            series=_content_name(series.geometry, combine(item.pixels for item in ordered)),
            source=source,
            kind=FileKind.DICOM,
            objects=tuple(item.ref for item in ordered),
            patient=first.patient or first.study or place,
            study=first.study or place,
            modality="CT",
            geometry=GeometryRecord.of(series.geometry),
            hu_range=(min(low for low, _ in ranges), max(high for _, high in ranges)),
            label=None,
        )
    )


def _without_copies(found: _Found, group: list[ObjectFacts]) -> list[ObjectFacts]:
    """Keep one of several slices with the same pixels at the same position."""
    kept: dict[tuple[int, str], ObjectFacts] = {}
    copies = []
    for item in group:
        if kept.setdefault((round(_distance(item) / _SAME_POSITION_MM), item.pixels), item) is not item:
            copies.append(item)
    found.copies.update(item.ref.key for item in copies)
    for folder, members in _by_folder(found, copies).items():
        of = _common_folder([found.name(item.ref.key) for item in kept.values()])
        reason = f"{_count(members, 'slice')} of series {of} a second time; the copies are not used"
        found.reject(folder, reason, fatal=False)
    return list(kept.values())


def _header(item: ObjectFacts) -> SliceHeader:
    plane = _plane(item)
    return SliceHeader(
        name=PurePosixPath(item.ref.key).name,
        sop_class=CT_IMAGE,
        instance_uid="",
        series_uid="",
        study_uid="",
        patient_id="",
        frame_of_reference="",
        modality="CT",
        series_number=item.series_number,
        instance_number=None,
        rows=plane.rows,
        columns=plane.columns,
        frames=1,
        position=plane.position,
        orientation=plane.orientation,
        pixel_spacing=plane.pixel_spacing,
        thickness=None,
        slope=1.0,
        intercept=0.0,
        rescaled=plane.rescaled,
        transfer_syntax="",
        pixels=None,
    )


def _add_nifti(found: _Found, item: ObjectFacts) -> None:
    assert item.geometry is not None
    assert item.hu_range is not None
    source = found.name(item.ref.key)
    if min(item.geometry.shape) < 2:
        found.reject(source, "the series has only one slice; a volume needs two or more")
        return
    # A file is a patient: nothing in NIfTI says more, and a rule that counts a folder's files would move patients
    # when files are added.
    patient = pseudonym(found.secret, "file", source)
    found.rows.append(
        SeriesRow(
            series=_content_name(item.geometry.geometry(), item.pixels),
            source=source,
            kind=FileKind.NIFTI,
            objects=(item.ref,),
            patient=patient,
            study=patient,
            modality="CT",
            geometry=item.geometry,
            hu_range=item.hu_range,
            label=None,
        )
    )


def _content_name(geometry: Geometry, pixels: str) -> str:
    places = ",".join(f"{value + 0.0:.3f}" for value in np.round(geometry.affine, 3).ravel())
    if geometry.uneven is not None:
        places += f" {geometry.uneven.axis}:" + ",".join(f"{offset:.2f}" for offset in geometry.uneven.offsets)
    return combine([str(geometry.shape), places, pixels])


def _drop_copies(found: _Found, rows: list[SeriesRow]) -> list[SeriesRow]:
    """Keep one of several series with the same content, whatever identity they claim: one with a label if there is."""
    kept: dict[str, SeriesRow] = {}
    for row in sorted(rows, key=lambda row: (row.label is None, row.source)):
        first = kept.setdefault(row.series, row)
        if first is not row:
            who = "" if first.patient == row.patient else " under another patient"
            found.reject(row.source, f"the same series as {first.source}{who}; this copy is not used", fatal=False)
    return list(kept.values())


def _name_unused(found: _Found, facts: list[ObjectFacts]) -> None:
    for item in facts:
        if item.kind == Kind.BROKEN:
            found.reject(found.name(item.ref.key), item.reason)
        for warning in item.warnings:
            found.reject(found.name(item.ref.key), warning, fatal=False)
    ignored = [item for item in facts if item.kind == Kind.IGNORED and item.reason]
    for reason in sorted({item.reason for item in ignored}):
        members = [item for item in ignored if item.reason == reason]
        for folder, files in _by_folder(found, members).items():
            found.reject(folder, f"{_count(files, 'file')} not used: {reason}", fatal=False)


def _by_folder(found: _Found, items: list[ObjectFacts]) -> dict[str, list[ObjectFacts]]:
    parts: dict[str, list[ObjectFacts]] = defaultdict(list)
    for item in items:
        parts[str(PurePosixPath(found.name(item.ref.key)).parent)].append(item)
    return parts


def _count(items: list[ObjectFacts], what: str) -> str:
    return f"{len(items)} {what}{'s' if len(items) > 1 else ''}"


def _common_folder(keys: list[str]) -> str:
    folders = [PurePosixPath(key).parent.parts for key in keys]
    common = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return str(PurePosixPath(*common))


def _folder(item: ObjectFacts) -> str:
    return str(PurePosixPath(item.ref.key).parent)


def _plane(item: ObjectFacts) -> Plane:
    assert item.plane is not None
    return item.plane
