"""The forms of a table: CSV, Markdown, and cells as a person reads them."""

from __future__ import annotations

from boneseg.evaluate.records import Cell, Column, Table
from boneseg.safe_csv import csv_text

LONG = 10_000
"""Whole numbers from here on are written in groups of three digits."""
MOST_ROWS = 12
"""More bones than this are folded; where nothing can be folded, as many of them are shown, the lowest first."""


def to_csv(table: Table) -> str:
    """Return a table as CSV, its columns' keys as the header; what is not defined stays empty."""
    rows = [[round(cell, 6) if isinstance(cell, float) else cell for cell in row] for row in table.rows]
    return csv_text([[column.key for column in table.columns], *rows])


def to_markdown(table: Table) -> str:
    """Return a table as Markdown with its title, protocol and note."""
    heads = [f"{column.group.removesuffix(' (%)')} {column.label}".strip() for column in table.columns]
    protocol = f" (protocol: {table.protocol})" if table.protocol else ""
    lines = [f"### {table.title}{protocol}", "", "| " + " | ".join(heads) + " |"]
    lines.append("|" + "|".join(" ---: " if index else " --- " for index in range(len(heads))) + "|")
    lines += ["| " + " | ".join(text_row) + " |" for text_row in to_text(table)]
    return "\n".join([*lines, "", table.note, ""])


def shortened(table: Table) -> Table:
    """Return a table with the rows that are always shown and the lowest of those folded away; its note says so."""
    if not any(table.folds):
        return table
    place = [column.key for column in table.columns].index(table.rank)
    shown = [row for row, fold in zip(table.rows, table.folds, strict=True) if not fold]
    folded = [row for row, fold in zip(table.rows, table.folds, strict=True) if fold]
    lowest = sorted(folded, key=lambda row: _number(row[place]))[:MOST_ROWS]
    note = (
        f"Shown are {len(shown) + len(lowest)} of {len(table.rows)} rows: of the {len(folded)} bones that are folded "
        f"in the report the {len(lowest)} of the lowest {(table.columns[place].group or 'value').removesuffix(' (%)')}."
    )
    return table.model_copy(update={"rows": (*shown, *lowest), "folds": (), "note": f"{note} {table.note}"})


def _number(cell: Cell) -> float:
    return float(cell) if isinstance(cell, int | float) else float("inf")


def to_text(table: Table) -> list[list[str]]:
    """Return the cells as a person reads them."""
    return [[cell_text(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows]


def cell_text(cell: Cell, column: Column) -> str:
    """Return one cell with the column's decimals; a dash where nothing is defined."""
    if cell is None:
        return "-"
    if isinstance(cell, float) and column.digits is not None:
        return f"{cell:.{column.digits}f}"
    if isinstance(cell, int) and cell >= LONG:
        return f"{cell:,}".replace(",", "\N{NO-BREAK SPACE}")
    return str(cell)
