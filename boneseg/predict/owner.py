"""Whose masks a folder holds: the masks of one series never take the place of another's, also in a later run."""

from __future__ import annotations

from pathlib import Path

from boneseg.predict.masks import DICOM_MASK, NIFTI_MASK
from boneseg.storage.catalogue import SeriesRow
from boneseg.storage.hashing import combine

OWNER_FILE = ".series"
"""Hidden file beside the masks: hashes of the series' place, and of its patient and content. Either tells it again."""
_DIGITS = 8


def own_folder(out: Path, name: str, row: SeriesRow, place: Path) -> Path:
    """Take a folder for the masks of a series.

    Two patients' folders may hold a series under the same name, and be predicted into one output, one after the other.

    Args:
        out: folder of all masks.
        name: of the series' folder, if that holds no other series' masks.
        row: the series.
        place: where it was found.

    Returns:
        The folder, made and marked as this series'; the same one whenever the series is predicted again.
    """
    owner = (combine([str(place.resolve()), row.source, name]), combine([row.patient, row.series]))
    for folder in (out / name, out / f"{name}-{row.series[:_DIGITS]}"):
        if _take(folder, owner):
            return folder
    last = out / f"{name}-{combine(owner)}"
    _take(last, owner)
    return last


def _take(folder: Path, owner: tuple[str, str]) -> bool:
    """Mark a folder as a series' own; say whether it is. Masks without a mark are somebody else's."""
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / OWNER_FILE
    if not marker.exists() and any((folder / mask).is_file() for mask in (NIFTI_MASK, DICOM_MASK)):
        return False
    try:
        with marker.open("x", encoding="ascii") as file:
            file.write("\n".join(owner))
    except FileExistsError:
        known = marker.read_text(encoding="ascii", errors="replace").split()
        # An empty mark was left by a full disk or a kill: no mask was written under it yet.
        if not known and not (folder / NIFTI_MASK).is_file():
            marker.write_text("\n".join(owner), encoding="ascii")
            return True
        return bool(set(known) & set(owner))
    return True
