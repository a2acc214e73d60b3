"""An evaluation as plain text for a terminal."""

from __future__ import annotations

from textwrap import wrap

import numpy as np

from boneseg.evaluate.class_words import bone_sentences
from boneseg.evaluate.forms import shortened
from boneseg.evaluate.names import method_title
from boneseg.evaluate.records import Cell, EvaluationResult, known
from boneseg.evaluate.tables import CLASS_KEYS, bone_dice, methods_of, pooled, summarise_measure
from boneseg.metrics import counts
from boneseg.metrics.statistics import SHARES
from boneseg.scheme.roles import BONE, COMMON_CLASSES


def console_table(result: EvaluationResult) -> str:
    """Return the class-wise figures and the bone Dice of both protocols as plain text, at most 100 columns wide."""
    table, width = result.table("class_wise"), 43
    rows = {str(row[0]): dict(zip([column.key for column in table.columns], row, strict=True)) for row in table.rows}
    lines = [
        f"{'':<12}{'':<{width}}" + "".join(f"{name:>{max(8, len(name) + 2)}}" for name in (*COMMON_CLASSES, "mean"))
    ]
    for figure, label in (("iou", "IoU %"), ("dice", "Dice %"), ("accuracy", "Accuracy %")):
        for index, (method, row) in enumerate(rows.items()):
            cells = [row[f"{figure}_{part}_percent"] for part in (*CLASS_KEYS, "mean")]
            texts = (
                f"{_two_digits(cell):>{max(8, len(name) + 2)}}"
                for cell, name in zip(cells, (*COMMON_CLASSES, "mean"), strict=True)
            )
            lines.append(f"{label if index == 0 else '':<12}{_cut(method, width)}" + "".join(texts))
    images = sum(row.images for row in result.series)
    lines += [f"Protocol paper: all pixels of {len(result.series)} test series ({images} images) pooled.", ""]
    lines.append(f"{'Bone Dice %':<{12 + width}}{'pooled':>9}{'patient':>10}{'95 % interval':>20}")
    for method in methods_of(result.series):
        found = summarise_measure(result.series, method, bone_dice, result.settings, SHARES)
        span = "none" if np.isnan(found.low) else f"{found.low * 100:.2f} to {found.high * 100:.2f}"
        pooled_dice = known(float(counts.dice(pooled(result.series, method))[BONE]))
        shares = (_two_digits(None if value is None else value * 100) for value in (pooled_dice, known(found.mean)))
        name = _cut(method_title(method, result.name, result.settings), width)
        lines.append(f"{'':<12}{name}" + "{:>9}{:>10}".format(*shares) + f"{span:>20}")
    patients = len(set(result.patients().values()))
    plural = "patient" if patients == 1 else "patients"
    lines.append(
        f"Pooled: at full resolution. Protocol patient: mean over {len(result.series)} series of {patients} {plural}."
    )
    if result.bone_dice_interval is None:
        lines.append(f"{result.no_interval()}.")
    return "\n".join([*lines, *_bone_lines(result, 12 + width)])


def _bone_lines(result: EvaluationResult, width: int) -> list[str]:
    """Return a line a group and bone, of many bones the lowest first, and what was said of left and right."""
    tables = [table for table in result.tables if table.name == "bones"]
    if not tables:
        return []
    table = shortened(tables[0])
    lines = ["", f"{'Bone by bone':<{width}}{'Dice %':>9}{'HD95 mm':>9}{'NSD %':>7}{'n':>4}{'not labelled %':>16}"]
    for row in table.dicts():
        cells = (row["dice_percent"], row["hd95_mm"], row["nsd_percent"])
        numbers = "{:>9}{:>9}{:>7}".format(*map(_two_digits, cells))
        lines.append(f"{row['bone']!s:<{width}}{numbers}{row['series']!s:>4}{_two_digits(row['untold_percent']):>16}")
    left_out = len(tables[0].rows) - len(table.rows)
    if left_out:
        lines.append(f"The bones are the lowest ones; {left_out} more are in the report.")
    return [*lines, *(line for text in bone_sentences(result) for line in wrap(text, width=100))]


def _cut(method: str, width: int) -> str:
    """Shorten the name of a network, never the words that say what was counted."""
    name, comma, grid = method.partition(", ")
    return f"{name[: width - 1 - len(comma + grid)]}{comma}{grid}".ljust(width)


def _two_digits(value: Cell) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else "-"
