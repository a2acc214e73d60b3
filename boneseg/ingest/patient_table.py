"""The table of patients: who is who and who is tested on, where files and folders do not tell."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boneseg.errors import DataError
from boneseg.settings.schema import Split
from boneseg.storage.catalogue import Problem
from boneseg.storage.client import ObjectStore
from boneseg.storage.hashing import combine
from boneseg.storage.private import OVERRIDES_FILE, PrivatePlace

TABLE_FILE = "patients.csv"
COLUMNS = {"series", "patient", "split"}


@dataclass(frozen=True)
class PatientLine:
    """One line of a table of patients.

    Attributes:
        place: table and line, for messages.
        series: start of a path below the raw prefix; end it with a slash to mean one folder.
        patient: name or number, empty = as the files say.
        split: split asked for, none = as decided by prepare.
    """

    place: str
    series: str
    patient: str
    split: Split | None


def load_table(store: ObjectStore, raw_prefix: str, place: PrivatePlace) -> tuple[list[PatientLine], str]:
    """Read the bucket's tables: ``patients.csv`` below the raw prefix and the overrides carried there, which win.

    Returns:
        The lines and a hash of both tables, empty without one.

    Raises:
        DataError: a table cannot be read, or a line is wrong.
    """
    tables = []
    for key in (raw_prefix + TABLE_FILE, place.folder + OVERRIDES_FILE):
        data = store.read_if_there(key)
        if data is not None:
            tables.append((key, data))
    lines = [line for key, data in reversed(tables) for line in read_table(data, store.uri(key))]
    return lines, table_hash(*(data for _, data in tables))


def table_hash(*tables: bytes) -> str:
    """Return the hash of tables; empty without one."""
    return combine(data.decode(errors="replace") for data in tables) if tables else ""


def carry_overrides(store: ObjectStore, place: PrivatePlace, path: Path | None) -> bytes | None:
    """Bring a local table of patients beside the raw data, where every machine finds it.

    Returns:
        Its content; none without a path, or where the file is not on this machine but was carried from another.

    Raises:
        DataError: it is neither here nor there, or cannot be read.
    """
    if path is None:
        return None
    key = place.folder + OVERRIDES_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        if store.exists(key):
            return None
        raise _unreadable(path, error) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    read_table(data, str(path))
    store.update(key, lambda _: data, "text/csv")
    return data


def read_table(data: bytes, name: str) -> list[PatientLine]:
    """Read a table of patients.

    Args:
        data: CSV with the columns ``series``, and ``patient`` or ``split`` or both.
        name: of the table, for messages.

    Raises:
        DataError: it is no such table, or a line asks for an unknown split.
    """
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig")), skipinitialspace=True)
        named = [(column or "").strip() for column in reader.fieldnames or ()]
        columns = set(named)
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{name}: cannot be read as a table ({type(error).__name__}); save it as CSV in UTF-8"
        ) from error
    if (
        "series" not in columns
        or not columns & {"patient", "split"}
        or not columns <= COLUMNS
        or len(named) > len(columns)
    ):
        raise DataError(
            f"{name}: the first line must name the columns series, and patient or split or both, each once, in small "
            "letters and with commas between them"
        )
    lines = []
    for number, row in rows:
        if None in row:
            raise DataError(f"{name}, line {number}: has more cells than columns; put text with commas in quotes")
        if any(row.values()):
            lines.append(_line(row, f"{name}, line {number}"))
    _check_contradictions(lines)
    return lines


def _check_contradictions(lines: Sequence[PatientLine]) -> None:
    said: dict[str, PatientLine] = {}
    for line in lines:
        first = said.setdefault(line.series.rstrip("/"), line)
        if (first.patient, first.split) != (line.patient, line.split):
            raise DataError(
                f"{line.place}: says something else of {line.series!r} than {first.place}; keep one of them"
            )


def check_table(lines: Iterable[PatientLine], paths: Sequence[str]) -> None:
    """Refuse a line that means no file: a slip there would take one person for two, for ever.

    Args:
        lines: of a table.
        paths: of all raw files below the raw prefix.

    Raises:
        DataError: names the line.
    """
    for line in lines:
        if not any(path.startswith(line.series) for path in paths):
            raise DataError(
                f"{line.place}: no series in the bucket starts with {line.series!r}; correct or remove the line"
            )


def line_for(path: str, lines: Sequence[PatientLine]) -> PatientLine | None:
    """Return the line that applies to a series: the one with the longest fitting start, the first of equal ones."""
    fitting = [line for line in lines if _fits(path, line)]
    return max(fitting, key=lambda line: len(line.series), default=None)


def check_lines(lines: Iterable[PatientLine], sources: Sequence[str]) -> list[Problem]:
    """Refuse a line that names a file of a series instead of the series, and tell of lines that change none.

    Args:
        lines: of a table.
        sources: paths of all series, below the raw prefix.

    Raises:
        DataError: names the line.
    """
    notes = []
    for line in lines:
        if any(_fits(source, line) for source in sources):
            continue
        inside = next((source for source in sources if line.series.startswith(f"{source}/")), None)
        if inside is not None:
            raise DataError(f"{line.place}: {line.series!r} is a file of series {inside!r}; name the series")
        reason = f"{line.place} is of files that form no series; it changes nothing"
        notes.append(Problem(source="patients", reason=reason, fatal=False))
    return notes


def _fits(path: str, line: PatientLine) -> bool:
    """Say whether a line is of a series: a folder goes with and without a slash at its end."""
    return f"{path}/".startswith(line.series)


def _line(row: dict[str, str | None], place: str) -> PatientLine:
    values = {str(key or "").strip(): str(value or "").strip() for key, value in row.items()}
    values["patient"] = unicodedata.normalize("NFC", values.get("patient", ""))
    series, split = values.get("series", ""), values.get("split", "").lower()
    if not series:
        raise DataError(f"{place}: names no series; give the start of its path")
    if split and split not in list(Split):
        raise DataError(f"{place}: split {split!r} must be {', '.join(Split)} or empty")
    return PatientLine(place, series, values.get("patient", ""), Split(split) if split else None)


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: cannot read the table of patients ({error.strerror}); correct prepare.splits.override, or put the "
        f"table into the bucket as {TABLE_FILE} beside the series"
    )
