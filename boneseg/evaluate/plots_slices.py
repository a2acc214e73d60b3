"""Pictures of CT slices under masks, coloured as the label scheme says, with a legend of the classes in view."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from boneseg.evaluate.plots import BLUE, ORANGE, STYLE, hex_of, save
from boneseg.scheme import BONE_SCHEME, LabelScheme
from boneseg.scheme.roles import BONE

WINDOW_HU = (-200.0, 800.0)
"""Black and white of every CT picture."""
MARGIN_MM = 12.0
"""Air left around the patient in a picture."""
SOME_BONE = "#A6D854"
"""Bone of which nobody says which one it is; no scheme that comes along has this colour."""
OTHER_BONE = "#E7298A"
FILLED = 0.75
MOST_COLOURS = 8
"""With more bones in view each has its number beside its colour."""
PANEL_WIDTH, LEGEND_ROW, LETTER = 2.3, 0.19, 0.075
"""Inches."""

Plane = NDArray[np.uint8]


@dataclass(frozen=True)
class Masked:
    """What one method says of a slice."""

    mask: Plane
    """(row, column), values as ``SlicePicture.reference`` has them."""
    iou: float
    """Bone IoU, 0..1; NaN where neither mask has bone."""


@dataclass(frozen=True)
class SlicePicture:
    """One slice with its masks, all (row, column)."""

    title: str
    """Such as ``best``; may be empty."""
    place: str
    """Pseudonymous series and slice number."""
    hu: NDArray[np.int16]
    reference: Plane
    """Classes of the scheme; ``scheme.size`` stands for bone of which nobody says which one."""
    methods: Mapping[str, Masked]
    """Method -> its mask; the network is the first."""
    spacing: tuple[float, float]
    """mm between rows, between columns."""
    scheme: LabelScheme = BONE_SCHEME

    @property
    def first(self) -> Masked:
        """What the network says."""
        return next(iter(self.methods.values()))

    @property
    def roles(self) -> Plane:
        """Role of every value: 0 background, 1 body, 2 bone."""
        return np.append(self.scheme.role_table, np.uint8(BONE))


def figure_methods(picture: SlicePicture, path: Path) -> None:
    """Figure 6: one slice as CT, reference and every method side by side, bone IoU under each."""
    masks = [None, picture.reference, *(found.mask for found in picture.methods.values())]
    titles = ["CT", "reference", *picture.methods]
    below = [picture.place, "", *(iou_text(found.iou) for found in picture.methods.values())]
    with mpl.rc_context(STYLE):
        numbers = in_view([picture], masks[1:])
        figure, grid = panels(1, len(masks), numbers, picture)
        for axis, mask, title, text in zip(grid[0], masks, titles, below, strict=True):
            show(axis, picture, mask, numbers)
            axis.set_title(title)
            axis.set_xlabel(text)
        save(figure, path)


def figure_examples(pictures: Sequence[SlicePicture], path: Path) -> None:
    """Figure 7: the best, the typical and the worst slice, reference beside prediction and where they differ."""
    heads = ["CT", "reference", "network", "missed (blue), extra (orange)"]
    if len(pictures[0].scheme.bones) > 1:
        heads[-1] += "\nother bone (magenta)"
    with mpl.rc_context(STYLE):
        numbers = in_view(pictures, [mask for item in pictures for mask in (item.reference, item.first.mask)])
        figure, grid = panels(len(pictures), 4, numbers, *pictures)
        for axes, picture in zip(grid, pictures, strict=True):
            for axis, mask in zip(axes, (None, picture.reference, picture.first.mask), strict=False):
                show(axis, picture, mask, numbers)
            show(axes[3], picture, None, numbers)
            for where, colour in _differences(picture):
                _paint(axes[3], picture, where, colour, 0.9)
            axes[0].set_ylabel(picture.title)
            axes[0].set_xlabel(picture.place)
            axes[2].set_xlabel(iou_text(picture.first.iou))
        for axis, title in zip(grid[0], heads, strict=True):
            axis.set_title(title)
        save(figure, path)


def _differences(picture: SlicePicture) -> list[tuple[NDArray[np.bool_], str]]:
    reference, mask, roles = picture.reference, picture.first.mask, picture.roles
    ours, theirs = roles[mask] == BONE, roles[reference] == BONE
    told = (reference < picture.scheme.size) & (mask < picture.scheme.size)
    return [
        (theirs & ~ours, BLUE),
        (ours & ~theirs, ORANGE),
        (ours & theirs & told & (reference != mask), OTHER_BONE),
    ]


def in_view(pictures: Sequence[SlicePicture], masks: Sequence[Plane | None]) -> dict[int, int]:
    """Return the values of bone that masks hold, in the order of the scheme, each with its number in the legend."""
    roles = pictures[0].roles
    found = {int(value) for mask in masks if mask is not None for value in np.unique(mask)}
    return {value: number for number, value in enumerate(sorted(v for v in found if roles[v] == BONE), start=1)}


def panels(
    rows: int, columns: int, numbers: Mapping[int, int], *pictures: SlicePicture
) -> tuple[Figure, NDArray[np.object_]]:
    """Make a figure whose cells have the pictures' proportions, with a legend of the bones in view below."""
    heights = []
    for picture in pictures:
        row_box, column_box = _box(picture)
        tall = (row_box.stop - row_box.start) * picture.spacing[0]
        heights.append(PANEL_WIDTH * tall / ((column_box.stop - column_box.start) * picture.spacing[1]))
    handles = _legend(pictures[0].scheme, numbers)
    longest = max(len(str(handle.get_label())) for handle in handles)
    across = max(1, min(len(handles), int(columns * PANEL_WIDTH / (LETTER * longest + 0.5))))
    lines = math.ceil(len(handles) / across)
    size = (columns * PANEL_WIDTH, sum(heights) + 0.45 * rows + LEGEND_ROW * lines + 0.1)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.02))
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=across,
        fontsize=8,
        handlelength=1.2,
        columnspacing=1.2,
        labelspacing=0.3,
    )
    return figure, grid


def _legend(scheme: LabelScheme, numbers: Mapping[int, int]) -> list[Artist]:
    many = len(numbers) > MOST_COLOURS
    handles: list[Artist] = [
        Patch(color=colour_of(scheme, value), label=f"{number} {name}" if many else name)
        for value, number in numbers.items()
        for name in [scheme.names[value] if value < scheme.size else "bone, whichever"]
    ]
    if scheme.body is not None:
        # On white the line would vanish: it lies on a dark patch, as it does in the picture.
        line = Line2D([], [], color=colour_of(scheme, scheme.body), linewidth=1.4, label=scheme.names[scheme.body])
        line.set_path_effects([withStroke(linewidth=5, foreground="#333333")])
        handles.append(line)
    return handles


def colour_of(scheme: LabelScheme, value: int) -> str:
    """Return the colour of a value of a picture."""
    if value >= scheme.size:
        return SOME_BONE
    return hex_of(scheme.classes[value].colour)


def show(axis: Axes, picture: SlicePicture, mask: Plane | None, numbers: Mapping[int, int]) -> None:
    """Draw the CT, and over it every bone filled and the patient's outline as a line."""
    box, scheme = _box(picture), picture.scheme
    axis.imshow(
        picture.hu[box],
        cmap="gray",
        vmin=WINDOW_HU[0],
        vmax=WINDOW_HU[1],
        aspect=picture.spacing[0] / picture.spacing[1],
        interpolation="antialiased",
    )
    if mask is not None:
        for value in numbers:
            _paint(axis, picture, mask == value, colour_of(scheme, value), FILLED)
        inside = (picture.roles[mask[box]] > 0).astype(float)
        if scheme.body is not None and 0 < inside.mean() < 1:
            axis.contour(inside, levels=[0.5], colors=[colour_of(scheme, scheme.body)], linewidths=1.0)
        if len(numbers) > MOST_COLOURS:
            _number(axis, mask[box], numbers)
    for side, place, align in (("R", 0.02, "left"), ("L", 0.98, "right")):
        axis.text(place, 0.97, side, transform=axis.transAxes, color="white", fontsize=7, ha=align, va="top")
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _number(axis: Axes, mask: Plane, numbers: Mapping[int, int]) -> None:
    """Write the number of every bone on the pixel of it that is nearest to its middle."""
    for value, number in numbers.items():
        pixels = np.argwhere(mask == value)
        if pixels.size:
            row, column = pixels[np.argmin(((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1))]
            text = axis.text(column, row, str(number), color="white", fontsize=5, ha="center", va="center")
            text.set_path_effects([withStroke(linewidth=1.2, foreground="black")])


def _paint(axis: Axes, picture: SlicePicture, where: NDArray[np.bool_], colour: str, alpha: float) -> None:
    if not where.any():
        return
    layer = np.zeros((*where.shape, 4))
    layer[where] = mpl.colors.to_rgba(colour, alpha)
    aspect = picture.spacing[0] / picture.spacing[1]
    axis.imshow(layer[_box(picture)], aspect=aspect, interpolation="nearest")


def _box(picture: SlicePicture) -> tuple[slice, slice]:
    """Return rows and columns around the patient."""
    inside = picture.roles[picture.reference] > 0
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
