"""The figure of bones: every series' Dice and HD95 of each, left beside right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from boneseg.evaluate.plots import STYLE, save

ROWS_A_COLUMN = 26
FEWEST_FOR_A_BOX = 5
"""Of fewer series the values say more than quartiles."""
LEAST_MM = 0.1
"""Smaller distances are drawn here: a logarithmic scale has no zero."""


@dataclass(frozen=True)
class Marks:
    """One bone or group in a row of the figure: its values, one a series."""

    side: str
    """``left``, ``right``, or empty."""
    colour: str
    dice: Sequence[float]
    """0..1."""
    hd95_mm: Sequence[float]


@dataclass(frozen=True)
class BoneRow:
    """A bone, a pair of bones, or a group."""

    name: str
    marks: Sequence[Marks]
    group: bool = False


def figure_bones(rows: Sequence[BoneRow], path: Path) -> None:
    """Draw Dice and HD95 of every bone, one row a bone or pair, in one or two columns of rows."""
    blocks = math.ceil(len(rows) / ROWS_A_COLUMN)
    tall = math.ceil(len(rows) / blocks)
    with mpl.rc_context({**STYLE, "font.size": 8}):
        figure = Figure(figsize=(6.6 if blocks == 1 else 5.1 * blocks, 0.24 * tall + 1.1), layout="constrained")
        grid = figure.subplots(1, 2 * blocks, squeeze=False)[0]
        for block in range(blocks):
            part = rows[block * tall : (block + 1) * tall]
            left, right = grid[2 * block : 2 * block + 2]
            _values(left, part, [[[100 * value for value in mark.dice] for mark in row.marks] for row in part], tall)
            distances = [[[max(value, LEAST_MM) for value in mark.hd95_mm] for mark in row.marks] for row in part]
            _values(right, part, distances, tall)
            left.set(xlabel="Dice (%)", xlim=(-3, 103))
            right.set(xlabel="HD95 (mm)", xscale="log")
            right.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
            right.set_yticklabels([])
        _same_scale(list(grid[1::2]))
        if any(mark.side for row in rows for mark in row.marks):
            handles = [
                Line2D([], [], linestyle="", marker=shape, color="#444444", markersize=5, label=label)
                for shape, label in (("<", "left"), (">", "right"))
            ]
            figure.legend(handles=handles, loc="outside upper right", ncols=2)
        save(figure, path)


def _values(axis: Axes, rows: Sequence[BoneRow], values: Sequence[Sequence[Sequence[float]]], tall: int) -> None:
    for place, (row, several) in enumerate(zip(rows, values, strict=True)):
        for mark, found in zip(row.marks, several, strict=True):
            if not found:
                continue
            height = place + {"left": -0.18, "right": 0.18}.get(mark.side, 0.0)
            shape = {"left": "<", "right": ">"}.get(mark.side, "o")
            if len(found) >= FEWEST_FOR_A_BOX:
                low, middle, high = np.percentile(found, [25, 50, 75])
                axis.plot([low, high], [height, height], color=mark.colour, linewidth=4, alpha=0.35, zorder=1)
                axis.plot([middle], [height], "|", color=mark.colour, markersize=9, markeredgewidth=1.8, zorder=3)
            axis.plot(found, [height] * len(found), shape, color=mark.colour, markersize=3.6, alpha=0.8, zorder=2)
    axis.set_yticks(range(len(rows)), [row.name for row in rows])
    for label, row in zip(axis.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.group else "normal")
    axis.set_ylim(tall - 0.5, -0.5)


def _same_scale(axes: Sequence[Axes]) -> None:
    limits = [axis.get_xlim() for axis in axes]
    for axis in axes:
        axis.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
