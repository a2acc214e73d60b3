"""The figures of an evaluation as PNG files (the only place that imports matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from boneseg.models.card import EpochRecord
from boneseg.scheme import BONE, CLASSES, OUTLINE

# Okabe and Ito's palette: told apart with every kind of colour vision, and in print.
BLUE, VERMILION, GREEN, GREY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#6E6E6E", "#E69F00"
CLASS_COLOURS = (GREY, BLUE, VERMILION)
WINDOW_HU = (-200.0, 800.0)
"""Black and white of every CT picture."""
MARGIN_MM = 12.0
"""Air left around the patient in a picture."""
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


@dataclass(frozen=True)
class SlicePicture:
    """One slice with its masks, all (row, column)."""

    title: str
    """Such as ``best``; may be empty."""
    place: str
    """Pseudonymous series and slice number."""
    hu: NDArray[np.int16]
    reference: NDArray[np.uint8]
    network: NDArray[np.uint8]
    threshold: NDArray[np.uint8]
    network_iou: float
    """Bone IoU, 0..1; NaN where neither mask has bone."""
    threshold_iou: float
    spacing: tuple[float, float]
    """mm between rows, between columns."""


def figure_accuracy(history: Sequence[EpochRecord], kept: int, path: Path) -> None:
    """Figure 3: share of right pixels per epoch, training and validation."""
    lines = {
        "training": ([row.train_accuracy for row in history], BLUE, "o"),
        "validation": ([row.validation_accuracy for row in history], VERMILION, "s"),
    }
    _curves(lines, [row.epoch for row in history], kept, "Accuracy", path)


def figure_class_iou(history: Sequence[EpochRecord], kept: int, path: Path) -> None:
    """Figure 4: validation IoU of each class per epoch."""
    lines = {
        name: ([row.validation_iou[index] for row in history], CLASS_COLOURS[index], "os^"[index])
        for index, name in enumerate(CLASSES)
    }
    _curves(lines, [row.epoch for row in history], kept, "Validation IoU", path)


def figure_mean_scores(history: Sequence[EpochRecord], kept: int, path: Path) -> None:
    """Figure 5: validation mean IoU and mean Dice per epoch."""
    lines = {
        "mean IoU": ([row.validation_mean_iou for row in history], BLUE, "o"),
        "mean Dice": ([row.validation_mean_dice for row in history], GREEN, "s"),
    }
    _curves(lines, [row.epoch for row in history], kept, "Mean over classes", path)


def figure_methods(picture: SlicePicture, path: Path) -> None:
    """Figure 6: one slice as CT, reference, network and threshold side by side, bone IoU under each."""
    with mpl.rc_context(STYLE):
        figure, grid = panels(1, 4, picture)
        axes = grid[0]
        masks = (None, picture.reference, picture.network, picture.threshold)
        titles = ("CT", "reference", "network", "threshold")
        below = (picture.place, "", iou_text(picture.network_iou), iou_text(picture.threshold_iou))
        for axis, mask, title, text in zip(axes, masks, titles, below, strict=True):
            show(axis, picture, mask)
            axis.set_title(title)
            axis.set_xlabel(text)
        save(figure, path)


def figure_examples(pictures: Sequence[SlicePicture], path: Path) -> None:
    """Figure 7: the best, the typical and the worst slice, reference beside prediction and where they differ."""
    with mpl.rc_context(STYLE):
        figure, grid = panels(len(pictures), 4, *pictures)
        for axes, picture in zip(grid, pictures, strict=True):
            for axis, mask in zip(axes, (None, picture.reference, picture.network), strict=False):
                show(axis, picture, mask)
            show(axes[3], picture, None)
            _paint(axes[3], picture, (picture.reference == BONE) & (picture.network != BONE), BLUE, 0.9)
            _paint(axes[3], picture, (picture.reference != BONE) & (picture.network == BONE), ORANGE, 0.9)
            axes[0].set_ylabel(picture.title)
            axes[0].set_xlabel(picture.place)
            axes[2].set_xlabel(iou_text(picture.network_iou))
        for axis, title in zip(grid[0], ("CT", "reference", "network", "missed (blue), extra (orange)"), strict=True):
            axis.set_title(title)
        save(figure, path)


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


def panels(rows: int, columns: int, *pictures: SlicePicture) -> tuple[Figure, NDArray[np.object_]]:
    """Make a figure whose cells have the pictures' proportions."""
    width = 2.3
    heights = []
    for picture in pictures:
        row_box, column_box = _box(picture)
        tall = (row_box.stop - row_box.start) * picture.spacing[0]
        heights.append(width * tall / ((column_box.stop - column_box.start) * picture.spacing[1]))
    size = (columns * width, sum(heights) + 0.45 * rows)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.02))
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    return figure, grid


def show(axis: Axes, picture: SlicePicture, mask: NDArray[np.uint8] | None) -> None:
    """Draw the CT, and over it bone filled and the patient's outline as a line."""
    box = _box(picture)
    hu = picture.hu[box]
    axis.imshow(
        hu,
        cmap="gray",
        vmin=WINDOW_HU[0],
        vmax=WINDOW_HU[1],
        aspect=picture.spacing[0] / picture.spacing[1],
        interpolation="antialiased",
    )
    if mask is not None:
        _paint(axis, picture, mask == BONE, VERMILION, 0.75)
        inside = (mask[box] >= OUTLINE).astype(float)
        if 0 < inside.mean() < 1:
            axis.contour(inside, levels=[0.5], colors=[BLUE], linewidths=1.0)
    for side, place, align in (("R", 0.02, "left"), ("L", 0.98, "right")):
        axis.text(place, 0.97, side, transform=axis.transAxes, color="white", fontsize=7, ha=align, va="top")
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _paint(axis: Axes, picture: SlicePicture, where: NDArray[np.bool_], colour: str, alpha: float) -> None:
    layer = np.zeros((*where.shape, 4))
    layer[where] = mpl.colors.to_rgba(colour, alpha)
    aspect = picture.spacing[0] / picture.spacing[1]
    axis.imshow(layer[_box(picture)], aspect=aspect, interpolation="nearest")


def _box(picture: SlicePicture) -> tuple[slice, slice]:
    """Return rows and columns around the patient."""
    inside = picture.reference >= OUTLINE
    if not inside.any():
        inside = np.ones_like(inside)
    box = []
    for axis, step in enumerate(picture.spacing):
        used = np.flatnonzero(inside.any(axis=1 - axis))
        margin = round(MARGIN_MM / step)
        box.append(slice(max(0, int(used[0]) - margin), min(inside.shape[axis], int(used[-1]) + 1 + margin)))
    return box[0], box[1]


def iou_text(value: float) -> str:
    """Return what stands under a mask."""
    return f"bone IoU {value:.1%}" if np.isfinite(value) else "no bone"


def save(figure: Figure, path: Path) -> None:
    """Write a figure, always the same bytes for the same content."""
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
