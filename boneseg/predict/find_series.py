"""What lies at a place: series to segment, what is lost of some, and what is only worth a note."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boneseg.dicom.file import remains
from boneseg.dicom.header import read_header
from boneseg.errors import SeriesError
from boneseg.ingest.complete import BELONGS
from boneseg.ingest.local import local_images
from boneseg.ingest.object_facts import Kind, ObjectFacts
from boneseg.ingest.volume_files import open_volume, volume_kind
from boneseg.ingest.volumes import AIR_BELOW_HU
from boneseg.storage.catalogue import Problem, SeriesRow


@dataclass(frozen=True)
class Place:
    """What was found, each problem as one sentence that names its source.

    Attributes:
        rows: the series.
        lost: what is or may be CT and cannot be segmented, what matters most first: a damaged slice, a volume cut
            short, slices that do not form a series.
        notes: what lies beside the series and costs them nothing.
    """

    rows: tuple[SeriesRow, ...]
    lost: tuple[str, ...]
    notes: tuple[str, ...]


def look(place: Path) -> Place:
    """Find the CT series at a place.

    Args:
        place: a folder with series, DICOM files or volumes, anywhere below it, or one file.

    Raises:
        DataError: the place does not exist.
    """
    rows, problems, facts = local_images(place)
    root = place.absolute() if place.is_dir() else place.absolute().parent
    by_name = {str(Path(item.ref.key).relative_to(root)): item for item in facts}
    lost: list[str] = []
    alone: list[str] = []
    notes: list[str] = []
    for problem in problems:
        item = by_name.get(problem.source)
        if not problem.fatal or (item is not None and item.kind == Kind.BROKEN and _is_harmless(item)):
            notes.append(_sentence(problem))
        elif item is not None and item.kind == Kind.SLICE and not problem.reason.startswith(BELONGS):
            alone.append(_sentence(problem))  # a scout or a single picture, if a series lies beside it
        else:
            lost.append(_sentence(problem))
    if rows:
        notes = alone + notes
    else:
        lost += alone
        notes += _labels_only(facts)
    return Place(rows, tuple(lost), tuple(notes))


def _is_harmless(item: ObjectFacts) -> bool:
    """Say whether a file that cannot be used is surely no CT: a label, or a sound volume without air."""
    paths = [Path(ref.key) for ref in item.objects]
    path = paths[0]
    try:
        if volume_kind(path) is not None:
            volume = open_volume(paths)
            volume.check_length()
            return bool(np.nanmin([np.nanmin(piece.values) for piece in volume.pieces()]) >= AIR_BELOW_HU)
        header = read_header(path)
    except (SeriesError, OSError, ValueError, TypeError):
        return False
    return remains(path) is None if header is None else header.is_seg or header.is_rtstruct


def _labels_only(facts: Sequence[ObjectFacts]) -> list[str]:
    labels = sum(item.kind == Kind.LABEL for item in facts)
    return [f"{labels} files there are labels or masks, not CT"] if labels else []


def _sentence(problem: Problem) -> str:
    return f"{problem.source}: {problem.reason}"
