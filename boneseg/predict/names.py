"""A folder for the masks of each series, named after where the series lies."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from boneseg.predict.masks import MASKS
from boneseg.storage.catalogue import SeriesRow
from boneseg.storage.hashing import combine

_LONGEST_PART, _LONGEST = 200, 1000
"""Bytes that a name, and a path below the output folder, may have: file systems stop at 255 and 4096."""
_DIGITS = 8


def folder_names(rows: Sequence[SeriesRow], place: Path) -> list[str]:
    """Return a folder below the output for each series, each its own and the same in every run.

    Folders are named after the series' place; what ends a volume file's name is left out. Where several series have one
    name, or names that some file systems take for one (they differ by case, or by how an accent is written), the
    series' hash is added.

    Args:
        rows: all series of the place.
        place: where they were found.
    """
    names = [_name(row, place) for row in rows]
    many = Counter(_folded(name) for name in names)
    apart = [
        name if many[_folded(name)] == 1 else f"{name}-{row.series[:_DIGITS]}"
        for name, row in zip(names, rows, strict=True)
    ]
    # The same pictures may lie at one place twice, and a folder may be called as another one with its hash.
    still = Counter(_folded(name) for name in apart)
    return [
        name if still[_folded(name)] == 1 else f"{name}-{combine(item.key for item in row.objects)[:_DIGITS]}"
        for name, row in zip(apart, rows, strict=True)
    ]


def _name(row: SeriesRow, place: Path) -> str:
    path = PurePosixPath(row.source)
    parts = [part for part in path.parts if part not in ("", "/", ".", "..")]
    if not parts:  # the place itself
        parts = [place.resolve().name or "series"]
    for ending in (".gz", ".nii", ".dcm", ".nrrd", ".nhdr", ".mha", ".mhd"):
        parts[-1] = parts[-1].removesuffix(ending) or parts[-1]
    name = "/".join(_fitting(part) for part in parts)
    return name if len(name.encode()) <= _LONGEST else f"{_fitting(parts[-1])}-{combine([row.source])[:_DIGITS]}"


def _fitting(part: str) -> str:
    """Return a folder's name that every file system takes, and that is not the name of a mask."""
    if part.casefold() in MASKS.values():
        return f"{part}-series"
    data = part.encode()
    if len(data) <= _LONGEST_PART:
        return part
    return f"{data[:_LONGEST_PART].decode(errors='ignore')}-{combine([part])[:_DIGITS]}"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
