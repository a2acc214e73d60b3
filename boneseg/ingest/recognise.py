"""From files to series: a row for each, with its label, and a reason for every file that is not used."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from boneseg.dicom.header import SliceHeader
from boneseg.dicom.series import check_places, sort_slices
from boneseg.dicom.sop_classes import CT_IMAGE
from boneseg.errors import SeriesError
from boneseg.geometry import Geometry
from boneseg.ingest.candidates import Recognised
from boneseg.ingest.complete import what_is_missing, why_alone
from boneseg.ingest.detached import without_voxels
from boneseg.ingest.found import Found, Weight
from boneseg.ingest.grouping import Group, Slices, distance, doubled, first_in_order, folder_of, group_slices, plane_of
from boneseg.ingest.label_file import Fetch, local_file
from boneseg.ingest.labels import assign_labels, may_be_image
from boneseg.ingest.likeness import lies_on
from boneseg.ingest.object_facts import Kind, ObjectFacts
from boneseg.ingest.patient_table import PatientLine
from boneseg.ingest.patients import settle_patients
from boneseg.ingest.pictures import gather
from boneseg.ingest.unused import by_folder, count_of, name_unused
from boneseg.scheme import BONE_SCHEME, LabelScheme
from boneseg.settings.schema import PngSettings
from boneseg.storage.catalogue import FileKind, GeometryRecord, Problem, SeriesRow, ToldBy
from boneseg.storage.hashing import combine, pseudonym

NO_PNG = PngSettings()
_SAME_POSITION_MM = 1e-2


def assemble(
    facts: Iterable[ObjectFacts],
    secret: bytes,
    prefix: str = "",
    lines: Sequence[PatientLine] = (),
    keep_copies: bool = False,
    fetch: Fetch = local_file,
    scheme: LabelScheme = BONE_SCHEME,
    png: PngSettings = NO_PNG,
) -> tuple[tuple[SeriesRow, ...], tuple[Problem, ...]]:
    """Group slices into series and find the label of each.

    See ``grouping.group_slices`` for what a series is, and ``labels.assign_labels`` for what its label is. Equal files
    count once.

    Args:
        facts: of all objects; their order plays no part.
        secret: of the keyed hashes, for what has no identifiers of its own.
        prefix: start of all keys that people do not need to see.
        lines: of the table of patients.
        keep_copies: whether each of several series with the same content is a row, instead of one for all.
        fetch: gives an object as a file, where only the voxels tell on which of several passes a label lies.
        scheme: says by which words beside those of anatomy files call bones.
        png: what pictures of slices do not say of themselves.

    Returns:
        One row a series in a fixed order, and one problem for whatever cannot be used or is odd: what matters most
        first. Every object is in a row or in a problem, one by one or counted by folder.
    """
    ordered = sorted(gather(without_voxels(facts), png), key=lambda item: item.ref.key.split("/"))
    labels = sorted({folder_of(item) for item in ordered if item.kind == Kind.LABEL})
    found = Found(secret, prefix, tuple(labels))
    groups = group_slices([item for item in ordered if item.kind == Kind.SLICE])
    for group in groups:
        _add_dicom(found, group, groups)
    _name_passes(found, groups)
    for item in ordered:
        if item.kind == Kind.VOLUME:
            _add_volume(found, item)
    name_unused(found, ordered)
    rows, problems = assign_labels(
        found.series, ordered, _images(ordered) - found.copies, prefix, partial(lies_on, fetch), scheme
    )
    found.problems += [(Weight.LABEL if problem.fatal else Weight.CHOICE, problem) for problem in problems]
    rows = settle_patients(rows, ordered, secret, lines)
    rows = rows if keep_copies else _drop_copies(found, rows)
    by_weight = sorted(found.problems, key=lambda item: (item[0], item[1].source, item[1].reason))
    in_order = sorted(rows, key=lambda row: (row.source, row.series))
    return tuple(in_order), tuple(problem for _, problem in by_weight)


def _images(facts: list[ObjectFacts]) -> set[str]:
    """Return the keys of all that is, was or may be an image of a patient, to which a label may belong."""
    images = set()
    for item in facts:
        was_image = item.kind == Kind.BROKEN and (item.geometry is not None or item.file == FileKind.DICOM)
        foreign = item.kind == Kind.IGNORED and item.is_picture and may_be_image(item)
        if item.kind in (Kind.SLICE, Kind.VOLUME) or was_image or foreign:
            images.add(item.ref.key)
    return images


def _add_dicom(found: Found, group: Group, groups: list[Group]) -> None:
    kept = _without_copies(found, group.slices)
    source = _common_folder([found.name(item.ref.key) for item in kept])
    if len(kept) == 1 and (beside := _volume_beside(group, groups)):
        at = _common_folder([found.name(item.ref.key) for item in beside.slices])
        reason, weight = why_alone(kept[0], beside, at)
        found.reject(found.name(kept[0].ref.key), reason, weight)
        return
    headers = [_header(item) for item in kept]
    try:
        check_places(headers)
        if pairs := doubled(kept):
            found.reject(source, _why_doubled(found, pairs))
            return
        # Gaps and tilt are prepare's to judge; here it is enough that the slices have an order.
        series = sort_slices(headers, max_gap=math.inf, max_tilt_degrees=90)
    except SeriesError as error:
        found.reject(found.name(kept[0].ref.key) if len(kept) == 1 else source, str(error))
        return
    ordered = [kept[index] for index in series.order]
    first = ordered[0]
    place = pseudonym(found.secret, "folder", source)
    ranges = [item.hu_range for item in ordered if item.hu_range]
    row = SeriesRow(
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
        patient_by=ToldBy.PATIENT_ID if first.patient else ToldBy.STUDY if first.study else ToldBy.FOLDER,
    )
    folders = tuple(
        found.name(f"{folder}/").rstrip("/") or "."
        for folder, slices in _in_folders(group.slices).items()
        if len(slices) == len(kept)
    )
    if missing := what_is_missing(group, groups):
        found.reject(source, missing, Weight.CHOICE)
    found.series.append(Recognised(row, tuple(group.slices), folders, group.parent, first_in_order(kept)))


def _volume_beside(group: Group, groups: list[Group]) -> Group | None:
    """Return a volume to which a single slice belongs, by its series UID or by study and folder."""
    item = group.slices[0]
    for other in groups:
        if other is group or len(other.slices) < 2:
            continue
        first = other.slices[0]
        near = item.study in ("", first.study) and folder_of(item) == folder_of(first)
        same_series = item.series and (item.patient, item.study, item.series) == (
            first.patient,
            first.study,
            first.series,
        )
        if other.parent == group.parent or near or same_series:
            return other
    return None


def _why_doubled(found: Found, pairs: list[tuple[ObjectFacts, ObjectFacts]]) -> str:
    one, two = (found.name(item.ref.key) for item in pairs[0])
    more = f", and so do those at {len(pairs) - 1} more positions" if len(pairs) > 1 else ""
    return (
        f"{one} and {two} lie at the same position with different pixels{more}, and nothing in the files tells two "
        "passes apart; remove the doubled slices, or put each pass into a folder of its own"
    )


def _name_passes(found: Found, groups: list[Group]) -> None:
    """Say where one series was taken apart, and by what."""
    passes: dict[int, list[Group]] = defaultdict(list)
    for group in groups:
        if group.told_by not in ("", "folder", "SeriesNumber") and len(group.slices) > 1:
            passes[group.parent].append(group)
    for parts in passes.values():
        if len(parts) > 1:
            source = _common_folder([found.name(item.ref.key) for group in parts for item in group.slices])
            told_by = " and ".join(sorted({group.told_by for group in parts}))
            reason = f"the files of one series hold {len(parts)} passes, told apart by {told_by}; each is a series"
            found.reject(source, reason, Weight.CHOICE)


def _without_copies(found: Found, group: Slices) -> Slices:
    """Keep one of several slices with the same pixels at the same position: that in the folder of most of the series.

    Where several folders hold as much of it, the one nearest to a label counts, then the first by name.
    """
    in_folders = _in_folders(group)
    order = sorted(in_folders, key=lambda name: (-len(in_folders[name]), _from_label(found, name), name.split("/")))
    best = {name: number for number, name in enumerate(order)}
    kept: dict[tuple[int, str], ObjectFacts] = {}
    for item in sorted(group, key=lambda item: best[folder_of(item)]):
        kept.setdefault(_content(item), item)
    chosen = {item.ref.key for item in kept.values()}
    copies = [item for item in group if item.ref.key not in chosen]
    found.copies.update(item.ref.key for item in copies)
    of = _common_folder([found.name(item.ref.key) for item in kept.values()])
    for folder, members in by_folder(found, copies).items():
        reason = f"{count_of(members, 'slice')} of series {of} a second time; the copies are not used"
        found.reject(folder, reason, Weight.COPY)
    return [item for item in group if item.ref.key in chosen]


def _in_folders(slices: Slices) -> dict[str, set[tuple[int, str]]]:
    """Return the different slices that each folder holds."""
    parts: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for item in slices:
        parts[folder_of(item)].add(_content(item))
    return parts


def _content(item: ObjectFacts) -> tuple[int, str]:
    return round(distance(item) / _SAME_POSITION_MM), item.pixels


def _from_label(found: Found, folder: str) -> tuple[int, int]:
    """Return how far a folder is from the labels: first by folders in common with the nearest one, then by depth."""
    parts = PurePosixPath(folder).parts
    shared = max((_common(parts, PurePosixPath(other).parts) for other in found.label_folders), default=0)
    return -shared, len(parts) - shared


def _common(one: tuple[str, ...], two: tuple[str, ...]) -> int:
    length = 0
    for mine, theirs in zip(one, two, strict=False):
        if mine != theirs:
            break
        length += 1
    return length


def _header(item: ObjectFacts) -> SliceHeader:
    plane = plane_of(item)
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


def _add_volume(found: Found, item: ObjectFacts) -> None:
    assert item.geometry is not None
    assert item.hu_range is not None
    source = found.name(item.ref.key)
    if min(item.geometry.shape) < 2:
        found.reject(source, "the series has only one slice; a volume needs two or more")
        return
    # A file is a patient unless it, its path or the table of patients says more; as a study it stays one, so that a
    # patient told otherwise later keeps its split.
    place = pseudonym(found.secret, "file", source)
    row = SeriesRow(
        series=_content_name(item.geometry.geometry(), item.pixels),
        source=source,
        kind=item.file or FileKind.NIFTI,
        objects=item.objects,
        patient=item.patient or item.study or place,
        study=item.study or place,
        modality="CT",
        geometry=item.geometry,
        hu_range=item.hu_range,
        window=item.window,
        label=None,
        patient_by=ToldBy.PATIENT_ID if item.patient else ToldBy.STUDY if item.study else ToldBy.FILE,
    )
    found.series.append(Recognised(row, (item,)))


def _content_name(geometry: Geometry, pixels: str) -> str:
    places = ",".join(f"{value + 0.0:.3f}" for value in np.round(geometry.affine, 3).ravel())
    if geometry.uneven is not None:
        places += f" {geometry.uneven.axis}:" + ",".join(f"{offset:.2f}" for offset in geometry.uneven.offsets)
    return combine([str(geometry.shape), places, pixels])


def _drop_copies(found: Found, rows: list[SeriesRow]) -> list[SeriesRow]:
    """Keep one of several series with the same content, whatever identity they claim: one with a label if there is."""
    kept: dict[str, SeriesRow] = {}
    for row in sorted(rows, key=lambda row: (row.label is None, row.source)):
        first = kept.setdefault(row.series, row)
        if first is row:
            continue
        who = "" if first.patient == row.patient else " under another patient"
        found.reject(row.source, f"the same series as {first.source}{who}; this copy is not used", Weight.COPY)
        if row.label and first.label and row.label.drawn != first.label.drawn:
            label, other = (found.name(item.object.key) for item in (row.label, first.label))
            reason = f"another label than {other} for the same series, {first.source} and {row.source}; keep one"
            found.reject(label, reason, Weight.LABEL)
            found.reject(other, reason.replace(other, label), Weight.LABEL)
            kept[row.series] = first.model_copy(update={"label": None})
    return list(kept.values())


def _common_folder(keys: list[str]) -> str:
    folders = [PurePosixPath(key).parent.parts for key in keys]
    common = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return str(PurePosixPath(*common))
