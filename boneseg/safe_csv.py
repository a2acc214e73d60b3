"""Tables as CSV that a spreadsheet opens without computing anything."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

Cell = str | int | float | bool | None

_COMPUTES = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four: the same signs in full width


def csv_text(rows: Iterable[Sequence[Cell]]) -> str:
    """Return rows as CSV; a text that a spreadsheet would take for a formula starts with an apostrophe."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([safe_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def safe_cell(cell: Cell) -> Cell:
    """Return a cell that no spreadsheet computes; numbers stay numbers, also where they are written out."""
    if not isinstance(cell, str) or not cell.lstrip(" \N{NO-BREAK SPACE}").startswith(_COMPUTES):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
