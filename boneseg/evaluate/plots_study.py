"""The figures of a study: many networks side by side, in the style of one evaluation's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from boneseg.evaluate.plots import BLUE, GREEN, STYLE, VERMILION, class_lines, save
from boneseg.evaluate.plots_slices import SlicePicture, in_view, panels, show
from boneseg.models.card import EpochRecord
from boneseg.scheme import BONE_SCHEME, LabelScheme

CURVES_A_ROW, SLICES_A_ROW = 4, 5

Line = tuple[str, str, str, Callable[[EpochRecord], float]]
"""Name, colour, marker, value of an epoch."""


@dataclass(frozen=True)
class Training:
    """How the training of one network went."""

    title: str
    history: Sequence[EpochRecord]
    kept: int
    """The epoch that was kept."""
    scheme: LabelScheme = BONE_SCHEME


@dataclass(frozen=True)
class Panel:
    """One mask of a slice."""

    title: str
    mask: NDArray[np.uint8] | None
    """(row, column), values as ``SlicePicture.reference`` has them; none = the CT alone."""
    below: str


def figure_accuracies(trainings: Sequence[Training], path: Path) -> None:
    """Figure 3 of every network: share of right pixels per epoch, training and validation."""
    lines: list[Line] = [
        ("training", BLUE, "o", lambda row: row.train_accuracy),
        ("validation", VERMILION, "s", lambda row: row.validation_accuracy),
    ]
    _curves(trainings, lines, "Accuracy", path)


def figure_class_ious(trainings: Sequence[Training], path: Path) -> None:
    """Figure 4 of every network: validation IoU of each class per epoch."""
    _curves(trainings, class_lines(trainings[0].scheme), "Validation IoU", path)


def figure_means(trainings: Sequence[Training], path: Path) -> None:
    """Figure 5 of every network: validation mean IoU and mean Dice per epoch."""
    lines: list[Line] = [
        ("mean IoU", BLUE, "o", lambda row: row.validation_mean_iou),
        ("mean Dice", GREEN, "s", lambda row: row.validation_mean_dice),
    ]
    _curves(trainings, lines, "Mean over classes", path)


def figure_networks(picture: SlicePicture, masks: Sequence[Panel], path: Path) -> None:
    """Figure 6: one slice, the reference and every network side by side."""
    columns = min(SLICES_A_ROW, len(masks))
    rows = math.ceil(len(masks) / columns)
    with mpl.rc_context(STYLE):
        numbers = in_view([picture], [panel.mask for panel in masks])
        figure, grid = panels(rows, columns, numbers, *[picture] * rows)
        for axis, panel in zip(_used(grid, len(masks)), masks, strict=True):
            show(axis, picture, panel.mask, numbers)
            axis.set_title(panel.title)
            axis.set_xlabel(panel.below)
        save(figure, path)


def _curves(trainings: Sequence[Training], lines: Sequence[Line], label: str, path: Path) -> None:
    """Draw one small plot a network, all on one scale."""
    columns = min(CURVES_A_ROW, len(trainings))
    rows = math.ceil(len(trainings) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.4 * columns + 0.6, 2.1 * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axis, training in zip(_used(grid, len(trainings)), trainings, strict=True):
            epochs = [row.epoch for row in training.history]
            for name, colour, marker, value in lines:
                values = [value(row) for row in training.history]
                axis.plot(epochs, values, color=colour, marker=marker, markersize=3.5, label=name)
            axis.axvline(training.kept, color="#888888", linestyle=":", linewidth=1.2, zorder=0, label="epoch kept")
            axis.set(title=training.title, xlabel="Epoch", xlim=(min(epochs) - 0.5, max(epochs) + 0.5))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
            axis.yaxis.set_major_formatter(PercentFormatter(1.0))
        for axis in grid[:, 0]:
            axis.set_ylabel(label)
        handles, names = grid[0, 0].get_legend_handles_labels()
        # Above the plots, where it covers none of them.
        figure.legend(handles, names, loc="outside upper center", ncols=len(names))
        save(figure, path)


def _used(grid: NDArray[np.object_], count: int) -> list[Axes]:
    """Return the first axes of a grid and hide the others."""
    axes: list[Axes] = grid.ravel().tolist()
    for axis in axes[count:]:
        axis.set_visible(False)
    return axes[:count]
