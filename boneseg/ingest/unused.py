"""Every file that is not used gets a row that says why, one by one or counted by folder."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import PurePosixPath

from boneseg.ingest.found import Found, Weight
from boneseg.ingest.grouping import Slices, folder_of
from boneseg.ingest.object_facts import Kind, ObjectFacts

_NAMED = 5
"""Damaged files of a folder that are named one by one."""
_DIGITS = re.compile(r"\d+")
_OF_VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


def name_unused(found: Found, facts: list[ObjectFacts]) -> None:
    """Add a problem for each file that is damaged, foreign or no part of a series."""
    _name_broken(found, [item for item in facts if item.kind == Kind.BROKEN])
    for item in facts:
        for warning in item.warnings:
            found.reject(found.name(item.ref.key), warning, Weight.CHOICE)
    shapes = Counter((folder_of(item), _shape(item)) for item in facts if item.kind == Kind.SLICE)
    ignored = []
    for item in facts:
        if item.kind != Kind.IGNORED:
            continue
        if item.file is None and (claimed := _claims_to_be(item, shapes)):
            reason = f"{claimed}, but {_as_clause(item.reason)}"
            found.reject(found.name(item.ref.key), reason)
        else:
            ignored.append(item)
    for reason in sorted({item.reason for item in ignored}):
        members = [item for item in ignored if item.reason == reason]
        for folder, files in by_folder(found, members).items():
            source = folder if len(files) > 1 else found.name(files[0].ref.key)
            found.reject(source, f"{count_of(files, 'file')} not used: {reason}", Weight.UNUSED)


def _name_broken(found: Found, broken: Slices) -> None:
    """Name damaged files one by one, or by their folder where many have the same reason but for its numbers."""
    alike: dict[str, list[ObjectFacts]] = defaultdict(list)
    for item in broken:
        alike[_DIGITS.sub("#", item.reason)].append(item)
    for _, members in sorted(alike.items()):
        for folder, items in by_folder(found, members).items():
            weight = (
                Weight.LABEL
                if all(item.file is not None and item.file.names_structures for item in items)
                else Weight.SERIES
            )
            if len(items) > _NAMED:
                first = found.name(items[0].ref.key)
                found.reject(folder, f"{len(items)} files, the first of them {first}: {items[0].reason}", weight)
                continue
            for item in items:
                found.reject(found.name(item.ref.key), item.reason, weight)


def _claims_to_be(item: ObjectFacts, shapes: Counter[tuple[str, str]]) -> str:
    """Say what the name of a file that is no image makes one expect; empty where it claims nothing."""
    name = PurePosixPath(item.ref.key).name.lower()
    if suffix := next((suffix for suffix in _OF_VOLUMES if name.endswith(suffix)), ""):
        return f"named {suffix}"
    alike = not item.is_picture and shapes[folder_of(item), _shape(item)] > 1
    return "named like the slices beside it" if alike else ""


def _shape(item: ObjectFacts) -> str:
    """Return a file's name with its numbers left out: slices of a series have this in common."""
    return _DIGITS.sub("#", PurePosixPath(item.ref.key).name)


def _as_clause(reason: str) -> str:
    verb = "" if reason.startswith("the file") else "it is " if reason.startswith("neither") else "it holds "
    clause = f"{verb}{reason}"
    return clause if ";" in reason else f"{clause}; copy it again from its source"


def by_folder(found: Found, items: list[ObjectFacts]) -> dict[str, list[ObjectFacts]]:
    """Divide files by their folders, as people know them."""
    parts: dict[str, list[ObjectFacts]] = defaultdict(list)
    for item in items:
        parts[str(PurePosixPath(found.name(item.ref.key)).parent)].append(item)
    return parts


def count_of(items: list[ObjectFacts], what: str) -> str:
    """Return such as ``3 files``."""
    return f"{len(items)} {what}{'s' if len(items) > 1 else ''}"
