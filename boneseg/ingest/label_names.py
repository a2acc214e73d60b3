"""Tables that say what the values of label files mean, found by their content: what nnU-Net, BIDS and Slicer write."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from boneseg.ingest.anatomy import words
from boneseg.ingest.places import stem
from boneseg.storage.hashing import combine

_LARGEST = 16_000_000
_MOST_NAMES = 65_536
_COLOURS = re.compile(r"^\s*(\d+)\s+(\S.*?)(?:\s+[\d.]+){3,4}\s*$")
"""Value, name, red, green, blue and opacity: colour tables of 3D Slicer and FreeSurfer."""
_SNAP = re.compile(r'^\s*(\d+)(?:\s+[\d.]+){6}\s+"(.*)"\s*$')
"""Value, red, green, blue, opacity, two marks, name: label descriptions of ITK-SNAP."""


@dataclass(frozen=True)
class NameTable:
    """What label values are called, and the SHA-256 of the file that says so."""

    names: Mapping[int, str] = field(default_factory=dict)
    sha256: str = ""


NO_TABLE = NameTable()


def read_names(path: Path) -> dict[int, str] | None:
    """Read a table of label names.

    Known are ``dataset.json`` of nnU-Net and of the Medical Segmentation Decathlon, the ``mask.json`` that boneseg
    writes, a JSON object of values and names, tables of BIDS (columns ``index`` and ``name``), and colour tables of 3D
    Slicer, FreeSurfer and ITK-SNAP.

    Returns:
        Value -> name; none where the file is no such table.
    """
    if not 0 < path.stat().st_size <= _LARGEST:
        return None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    found = _of_json(text) if text.lstrip().startswith("{") else _of_columns(text) or _of_lines(text)
    return {value: name for value, name in found.items() if value > 0} or None


def _of_json(text: str) -> dict[int, str]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if isinstance(data.get("classes"), list):
        rows = [item for item in data["classes"] if isinstance(item, dict)]
        return {item["value"]: str(item.get("name", "")) for item in rows if _is_value(item.get("value"))}
    labels = data.get("labels")
    if labels is None and all(key.strip().isdigit() for key in data):
        labels = data  # other JSON of names and numbers is of something else
    return _of_object(labels) if isinstance(labels, dict) and 0 < len(labels) <= _MOST_NAMES else {}


def _of_object(labels: dict[str, Any]) -> dict[int, str]:
    """Read values as keys, as the Decathlon has them, or names as keys, as nnU-Net has them since its second version.

    A name may stand for several values, a region; a value then goes by the smallest region that has it.
    """
    if all(key.strip().isdigit() and isinstance(name, str) for key, name in labels.items()):
        return {int(key): name for key, name in labels.items()}
    found: dict[int, str] = {}
    sizes: dict[int, int] = {}
    for name, given in labels.items():
        values = given if isinstance(given, list) else [given]
        if not values or not all(_is_value(value) for value in values):
            return {}
        for value in values:
            if len(values) < sizes.get(value, _MOST_NAMES):
                found[value], sizes[value] = name, len(values)
    return found


def _is_value(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_NAMES


def _of_columns(text: str) -> dict[int, str]:
    """Read a table of BIDS, whose first line names its columns."""
    lines = text.splitlines()
    heads = [head.strip().lower() for head in lines[0].split("\t")] if lines else []
    if not {"index", "name"} <= set(heads):
        return {}
    rows = [dict(zip(heads, line.split("\t"), strict=False)) for line in lines[1:]]
    return {int(row["index"]): row.get("name", "") for row in rows if row.get("index", "").strip().isdigit()}


def _of_lines(text: str) -> dict[int, str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for pattern in (_SNAP, _COLOURS):
        found = [pattern.match(line) for line in lines[:_MOST_NAMES]]
        if lines and all(found):
            return {int(match[1]): match[2] for match in found if match}
    return {}


@dataclass(frozen=True)
class NameTables:
    """All tables of a bucket or folder.

    Attributes:
        by_folder: folder -> stem of the table's name -> table.
    """

    by_folder: dict[PurePosixPath, dict[str, NameTable]] = field(default_factory=lambda: defaultdict(dict))

    @staticmethod
    def of(tables: Iterable[tuple[str, NameTable]]) -> NameTables:
        """Gather tables, each with its path."""
        found = NameTables()
        for path, table in sorted(tables, key=lambda item: item[0]):
            found.by_folder[PurePosixPath(path).parent][stem(path)] = table
        return found

    def of_label(self, label: str, values: Iterable[int], others: Iterable[str]) -> NameTable:
        """Return the table that says what the values of a label are called.

        A table of the label's own name stands first, then the nearest folder from the label's upwards that has a table.
        A table that is called as another label is that one's.

        Args:
            label: path of the label.
            values: that it holds.
            others: stems of other labels.

        Returns:
            The table, with values that do not occur too; ``NO_TABLE`` where none knows any of the values. What it
            does not know, and of what two tables say different things, has no name: numbers are then not guessed.
        """
        own, folder, values = stem(label), PurePosixPath(label).parent, set(values)
        for place in (folder, *folder.parents):
            tables = self.by_folder.get(place, {})
            if own in tables and place == folder:
                return tables[own]
            general = [table for name, table in tables.items() if name not in set(others)]
            if knowing := [table for table in general if values & table.names.keys()]:
                return _together(knowing, values)
        return NO_TABLE


def _together(tables: Sequence[NameTable], values: set[int]) -> NameTable:
    names: dict[int, str] = {}
    for value in sorted(set().union(values, *(table.names for table in tables))):
        said = {" ".join(words(table.names[value])): table.names[value] for table in tables if value in table.names}
        names[value] = next(iter(said.values())) if len(said) == 1 else ""
    return NameTable(names, tables[0].sha256 if len(tables) == 1 else combine(table.sha256 for table in tables))
