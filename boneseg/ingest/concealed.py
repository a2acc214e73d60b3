"""Rows and problems as they may leave the raw data: with stand-ins for the names of folders and files."""

from __future__ import annotations

from collections.abc import Iterable

from boneseg.storage.catalogue import ObjectRef, Problem, SeriesRow
from boneseg.storage.pseudonyms import Names


def conceal_row(row: SeriesRow, names: Names) -> SeriesRow:
    """Return a series whose objects are known by content alone, and which lies where only the table of names says."""
    label = row.label
    if label is not None:
        label = label.with_objects(without_key)
    objects = tuple(without_key(item) for item in row.objects)
    return row.model_copy(update={"source": names.token(row.source, "series"), "objects": objects, "label": label})


def conceal_problems(problems: Iterable[Problem], names: Names) -> tuple[Problem, ...]:
    """Return problems with stand-ins; what they are about stays a word where it is none of the data's."""
    return tuple(
        problem.model_copy(
            update={"source": names.conceal_source(problem.source), "reason": names.conceal(problem.reason)}
        )
        for problem in problems
    )


def without_key(ref: ObjectRef) -> ObjectRef:
    """Return a raw object known by its content alone."""
    return ref.model_copy(update={"key": "", "etag": ""})


def with_file_tokens(row: SeriesRow, names: Names, paths: dict[str, str]) -> SeriesRow:
    """Return a concealed series whose objects have stand-ins for keys, for messages about single files.

    Args:
        row: as the catalogue has it.
        names: gives the stand-ins.
        paths: SHA-256 -> path below the raw prefix.
    """

    def named(ref: ObjectRef) -> ObjectRef:
        path = paths.get(ref.sha256)
        return ref if path is None else ref.model_copy(update={"key": names.token(path, "file")})

    label = row.label.with_objects(named) if row.label is not None else None
    return row.model_copy(update={"objects": tuple(named(item) for item in row.objects), "label": label})
