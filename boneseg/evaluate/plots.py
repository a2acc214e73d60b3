"""The curves of a training as PNG files, and the style of all figures (only ``plots*`` import matplotlib)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from boneseg.models.card import EpochRecord
from boneseg.scheme import LabelScheme

# Okabe and Ito's palette: told apart with every kind of colour vision, and in print.
BLUE, VERMILION, GREEN, GREY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#6E6E6E", "#E69F00"
MARKS = "os^Dv<>P"
MOST_LINES = 8
"""More classes than this are not told apart as lines."""
MOST_LIGHT = 0.62
"""Luminance, 0 to 1, above which a line is hard to see on white."""
DPI = 170
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.labelcolor": "#222222",
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
}


def figure_accuracy(history: Sequence[EpochRecord], kept: int, path: Path) -> None:
    """Figure 3: share of right pixels per epoch, training and validation."""
    lines = {
        "training": ([row.train_accuracy for row in history], BLUE, "o"),
        "validation": ([row.validation_accuracy for row in history], VERMILION, "s"),
    }
    _curves(lines, [row.epoch for row in history], kept, "Accuracy", path)


def figure_class_iou(history: Sequence[EpochRecord], kept: int, scheme: LabelScheme, path: Path) -> None:
    """Figure 4: validation IoU of each class per epoch."""
    lines = {name: ([value(row) for row in history], colour, mark) for name, colour, mark, value in class_lines(scheme)}
    _curves(lines, [row.epoch for row in history], kept, "Validation IoU", path)


def class_lines(scheme: LabelScheme) -> list[tuple[str, str, str, Callable[[EpochRecord], float]]]:
    """Return name, colour, mark and value of the lines that show classes; many are folded to best, mean and worst."""
    if scheme.size <= MOST_LINES:
        return [
            (item.name, on_white(item.colour), MARKS[index % len(MARKS)], partial(_iou_of, index=index))
            for index, item in enumerate(scheme.classes)
        ]
    return [
        ("best class", BLUE, "o", lambda row: max(row.validation_iou)),
        ("mean", GREY, "s", lambda row: row.validation_mean_iou),
        ("worst class found", VERMILION, "^", lambda row: min(filter(None, row.validation_iou), default=0.0)),
    ]


def _iou_of(row: EpochRecord, index: int) -> float:
    return row.validation_iou[index]


def on_white(colour: tuple[int, int, int]) -> str:
    """Return a colour of a scheme, darkened as far as lines and small marks on white need it."""
    light = (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255
    scale = min(1.0, MOST_LIGHT / light) if light else 1.0
    return hex_of(colour, scale)


def hex_of(colour: tuple[int, int, int], scale: float = 1.0) -> str:
    """Return a colour of a scheme, times ``scale``, as ``#rrggbb``."""
    return "#" + "".join(f"{round(part * scale):02x}" for part in colour)


def figure_mean_scores(history: Sequence[EpochRecord], kept: int, path: Path) -> None:
    """Figure 5: validation mean IoU and mean Dice per epoch."""
    lines = {
        "mean IoU": ([row.validation_mean_iou for row in history], BLUE, "o"),
        "mean Dice": ([row.validation_mean_dice for row in history], GREEN, "s"),
    }
    _curves(lines, [row.epoch for row in history], kept, "Mean over classes", path)


def _curves(
    lines: dict[str, tuple[list[float], str, str]], epochs: list[int], kept: int, label: str, path: Path
) -> None:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 3.1), layout="constrained")
        axis = figure.add_subplot()
        for name, (values, colour, marker) in lines.items():
            axis.plot(epochs, values, color=colour, marker=marker, label=name)
        axis.axvline(kept, color="#888888", linestyle=":", linewidth=1.2, zorder=0, label=f"kept: epoch {kept}")
        axis.set(xlabel="Epoch", ylabel=label, xlim=(min(epochs) - 0.5, max(epochs) + 0.5))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure, always the same bytes for the same content."""
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
