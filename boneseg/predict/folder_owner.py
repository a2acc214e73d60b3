"""Whose masks a folder holds: the masks of one series never take the place of another's, also in a later run."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from boneseg.predict.masks import MASKS
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
    has_masks = any((folder / mask).is_file() for mask in MASKS.values())
    if has_masks and not (folder / OWNER_FILE).exists():
        return False
    with _locked(folder) as mark:
        known = mark.read().split()
        # An empty mark was left by a full disk or a kill: no mask was written under it yet.
        if known or has_masks:
            return bool(set(known) & set(owner))
        mark.write("\n".join(owner))
    return True


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Wait until no other process writes masks into a folder taken by ``own_folder``, and let others wait."""
    with _locked(folder):
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[IO[str]]:
    with (folder / OWNER_FILE).open("a+", encoding="ascii", errors="replace") as mark:
        with suppress(OSError):  # a file system without locks: as if nobody else were there
            fcntl.flock(mark, fcntl.LOCK_EX)
        mark.seek(0)
        yield mark
