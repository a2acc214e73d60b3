"""The trials of a sweep as a table on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from boneseg.tune.records import TrialRow
from boneseg.tune.space import ARCHITECTURE, ENCODER, LEARNING_RATE, LOSS, Choice

_GAP = "  "


def table_lines(rows: Sequence[TrialRow]) -> Iterator[str]:
    """Yield a line a trial, best first; columns are as wide as what stands in them."""
    names = list(dict.fromkeys(name for row in rows for name in _choice(row)))
    cells = [[*(_shown(_choice(row), name) for name in names), f"{row.epochs} epochs"] for row in rows]
    heads = [*(name.rpartition(".")[2] for name in names), ""]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    yield _GAP.join(head.ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip()
    for row, line in zip(rows, cells, strict=True):
        aligned = [cell.ljust(width) for cell, width in zip(line[:-1], widths[:-1], strict=True)]
        yield _GAP.join([*aligned, line[-1].rjust(widths[-1]), _end(row)])


def _choice(row: TrialRow) -> Choice:
    """Return what a row chose, in records of before spaces too."""
    named = {ARCHITECTURE: row.architecture, ENCODER: row.encoder, LOSS: row.loss, LEARNING_RATE: row.learning_rate}
    return row.choice or named


def _shown(choice: Choice, name: str) -> str:
    if name not in choice:
        return "-"
    value: Any = choice[name]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _end(row: TrialRow) -> str:
    if row.error is not None or row.best_mean_iou is None:
        return f"failed: {row.error or row.stopped}"
    stopped = f", stopped: {row.stopped}" if row.stopped else ""
    return f"validation mean IoU {row.best_mean_iou:.2%}{stopped}"
