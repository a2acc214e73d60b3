"""The figures of a sweep: many trials at once, few or hundreds, in the style of one evaluation's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from boneseg.evaluate.plots import BLUE, GREEN, GREY, ORANGE, STYLE, VERMILION, save
from boneseg.sweep_report.importance import shown
from boneseg.sweep_report.trials import Trial
from boneseg.tune.records import FAILED, FINISHED, STOPPED

PURPLE = "#CC79A7"
NAMED = 5
"""Trials that learning curves tell apart, the best; the others are grey together."""
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE)
FADED, LIGHT = "#9A9A9A", "#BDBDBD"
FEW = 4
MOST_TICKS = 12
"""Names on one axis of the parallel coordinates; of more every second, third ... is written."""
PALEST = 0.12
"""Part of the colours of the parallel coordinates that is too pale on white."""
LOGARITHMIC = 20
"""Numbers whose greatest is so many times the least are shown on a logarithmic axis."""
STATE_COLOURS = {FINISHED: BLUE, STOPPED: ORANGE, FAILED: VERMILION}
CLOSE = 1.25
"""Costs that differ by a smaller factor are close to each other in a figure."""
SURE = 0.05
"""Above this p-value a bar of importance is pale."""


@dataclass(frozen=True)
class Front:
    """Trials by what they cost: one panel."""

    label: str
    costs: Sequence[tuple[Trial, float]]
    front: Sequence[int]
    """Places in ``costs`` of the trials that none beats in both, by rising cost."""


@dataclass(frozen=True)
class Bar:
    """The importance of a setting."""

    label: str
    share: float
    p_value: float


def figure_curves(trials: Sequence[Trial], label: str, path: Path) -> None:
    """What trials are ranked by, after each epoch: the best in colours, the others in grey, with how they ended."""
    shown = [trial for trial in trials if trial.curve]
    faint = max(0.18, min(0.7, 12 / len(shown)))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.9), layout="constrained")
        axis = figure.add_subplot()
        for trial in reversed(shown):
            _curve(axis, trial, faint)
        last = max(len(trial.curve) for trial in shown)
        axis.set(xlabel="Epoch", ylabel=f"Validation {label}", xlim=(0.5, last + 0.5))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        handles, labels = axis.get_legend_handles_labels()
        handles, labels = handles[::-1], labels[::-1]
        if any(trial.rank > NAMED for trial in shown):
            handles, labels = [*handles, Line2D([], [], color=FADED)], [*labels, "all others"]
        for state, mark, colour, words in ((STOPPED, "x", GREY, "stopped early"), (FAILED, "X", VERMILION, "failed")):
            if any(trial.state == state for trial in shown):
                handles = [*handles, Line2D([], [], color=colour, marker=mark, linestyle="", markersize=5.5)]
                labels = [*labels, words]
        figure.legend(handles, labels, loc="outside right upper", title="Rank and network", alignment="left")
        save(figure, path)


def _curve(axis: Axes, trial: Trial, faint: float) -> None:
    epochs, scores = range(1, len(trial.curve) + 1), trial.curve
    named = trial.rank <= NAMED
    colour = COLOURS[trial.rank - 1] if named else FADED
    look: dict[str, Any] = {"zorder": 3, "label": trial.name} if named else {"alpha": faint, "linewidth": 0.9}
    marker = "o" if named or len(epochs) == 1 else ""
    axis.plot(epochs, scores, color=colour, marker=marker, markersize=3.2, **look)
    if trial.state != FINISHED:
        mark, ended = ("X", VERMILION) if trial.state == FAILED else ("x", colour)
        size, strength = (5.5, 1.0) if named else (4.0, max(0.45, faint))
        axis.plot(epochs[-1:], scores[-1:], mark, color=ended, markersize=size, alpha=strength, zorder=4)


def figure_parallel(trials: Sequence[Trial], settings: Sequence[str], label: str, path: Path) -> None:
    """Every trial as a line through what it chose to what it reached; the colour is what it reached."""
    axes = [_Coordinate.of(name, [trial.settings.get(name) for trial in trials]) for name in settings]
    scored = [trial.score for trial in trials if trial.score is not None]
    low, high = min(scored), max(scored)
    end = _Coordinate.of(f"validation {label}", [trial.score for trial in trials], percent=True)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(max(7.0, 1.9 * (len(axes) + 1) + 0.8), 4.2), layout="constrained")
        axis = figure.add_subplot()
        strength = max(0.22, min(0.85, 25 / len(trials)))
        for trial in sorted(trials, key=lambda trial: (trial.score is not None, trial.score or 0.0)):
            heights = [coordinate.height(trial.settings.get(coordinate.name), trial.rank) for coordinate in axes]
            if trial.score is None:
                axis.plot(heights, color=VERMILION, linestyle=":", linewidth=0.9, alpha=0.6)
                continue
            part = (trial.score - low) / (high - low) if high > low else 0.5
            colour = mpl.colormaps["viridis_r"](PALEST + (1 - PALEST) * part)
            best = trial.rank == 1
            axis.plot(
                [*heights, end.height(trial.score, 0)],
                color="#111111" if best else colour,
                linewidth=2.4 if best else 1.2,
                alpha=1.0 if best else strength if trial.state == FINISHED else strength / 2,
                zorder=5 if best else 2,
            )
        for place, coordinate in enumerate((*axes, end)):
            coordinate.draw(axis, place)
        axis.set(xlim=(-0.35, len(axes) + 0.45), ylim=(-0.16, 1.04))
        axis.set_xticks(range(len(axes) + 1), [_broken(name) for name in (*settings, end.name)])
        axis.tick_params(axis="x", length=0, pad=6)
        axis.yaxis.set_visible(False)
        for spine in axis.spines.values():
            spine.set_visible(False)
        handles = [Line2D([], [], color="#111111", linewidth=2.4)]
        names = ["best trial"]
        if any(trial.score is None for trial in trials):
            handles, names = [*handles, Line2D([], [], color=VERMILION, linestyle=":")], [*names, "failed"]
        figure.legend(handles, names, loc="outside upper right", ncols=2)
        save(figure, path)


@dataclass(frozen=True)
class _Coordinate:
    """One upright axis of the parallel coordinates: where a value stands on it, from 0 to 1."""

    name: str
    values: tuple[Any, ...]
    """Different ones, in order."""
    numbers: bool
    logarithmic: bool
    percent: bool

    @staticmethod
    def of(name: str, values: Sequence[Any], percent: bool = False) -> _Coordinate:
        known = [value for value in values if value is not None]
        numbers = bool(known) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
        few = numbers and len(set(known)) <= FEW and len(known) > 2 * len(set(known))
        if few:  # numbers that many share are told apart best as names are
            numbers, known = False, sorted(known)
        different = tuple(sorted(set(known)) if numbers else dict.fromkeys(known if few else sorted(known, key=str)))
        logarithmic = numbers and min(different) > 0 and max(different) / min(different) >= LOGARITHMIC
        return _Coordinate(name, different, numbers, logarithmic, percent)

    def height(self, value: Any, rank: int) -> float:
        """Return where a value stands; below the axis where it is not set."""
        if value is None:
            return -0.12
        if self.numbers:
            low, high, here = (self._scaled(part) for part in (self.values[0], self.values[-1], value))
            return (here - low) / (high - low) if high > low else 0.5
        place = self.values.index(value)
        middle = place / (len(self.values) - 1) if len(self.values) > 1 else 0.5
        # Lines of one value lie beside each other, always in the same order.
        return middle + 0.035 * math.sin(2.4 * rank) / max(1, len(self.values) / 6)

    def draw(self, axis: Axes, place: int) -> None:
        """Draw the axis with its values."""
        axis.plot([place, place], [0, 1], color="#444444", linewidth=1.0, zorder=6)
        step = math.ceil(len(self.values) / MOST_TICKS)
        ticks = self._ticks() if self.numbers else [(value, shown(value)) for value in self.values[::step]]
        for value, text in ticks:
            height = self.height(value, 0)
            axis.plot([place - 0.02, place], [height, height], color="#444444", linewidth=1.0, zorder=6)
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.78, "pad": 0.8}
            axis.text(place - 0.035, height, text, ha="right", va="center", fontsize=7.6, zorder=7, bbox=box)

    def _ticks(self) -> list[tuple[float, str]]:
        if len(self.values) <= 4:
            return [(value, self._text(value)) for value in self.values]
        low, high = self._scaled(self.values[0]), self._scaled(self.values[-1])
        found = [low + part * (high - low) / 4 for part in range(5)]
        values = [10**value if self.logarithmic else value for value in found]
        return [(value, self._text(value)) for value in values]

    def _text(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.percent else f"{value:.3g}"

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else float(value)


def figure_fronts(fronts: Sequence[Front], path: Path) -> None:
    """Bone Dice against what a trial's network costs: one panel a cost; numbers are ranks."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5 * len(fronts) if len(fronts) > 1 else 6.2, 3.7), layout="constrained")
        for axis, front in zip(figure.subplots(1, len(fronts), squeeze=False)[0], fronts, strict=True):
            for state, mark, colour in ((STOPPED, "x", FADED), (FINISHED, "o", BLUE)):
                there = [(cost, trial.bone_dice) for trial, cost in front.costs if trial.state == state]
                if there:
                    costs, values = zip(*there, strict=True)
                    label = "finished" if state == FINISHED else "stopped early"
                    axis.plot(costs, values, mark, color=colour, markersize=4.5, alpha=0.75, label=label)
            line = [(front.costs[place][1], front.costs[place][0].bone_dice) for place in front.front]
            costs, values = zip(*line, strict=True)
            axis.plot(
                costs, values, drawstyle="steps-post", color=VERMILION, linewidth=1.4, zorder=3, label="Pareto front"
            )
            axis.plot(costs, values, "o", markerfacecolor="none", color=VERMILION, markersize=8, zorder=4)
            _write_ranks(axis, front)
            axis.set(xlabel=front.label, ylabel="Validation bone Dice")
            every = [cost for _, cost in front.costs]
            if min(every) > 0 and max(every) / min(every) >= 4:
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.xaxis.set_minor_formatter(FuncFormatter(_one_two_five))
            axis.margins(x=0.08, y=0.1)
            _leave_out_the_lowest(axis, front)
            axis.yaxis.set_major_formatter(PercentFormatter(1.0))
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names))
        save(figure, path)


def _one_two_five(value: float, _: int) -> str:
    """Write only some of the marks between powers of ten, where they do not crowd."""
    digit = round(value / 10 ** math.floor(math.log10(value)))
    return f"{value:g}" if digit in (2, 5) else ""


def _leave_out_the_lowest(axis: Axes, front: Front) -> None:
    """Show what finished trials reached: those stopped in their first epochs would press it together."""
    finished = [trial.bone_dice or 0.0 for trial, _ in front.costs if trial.state == FINISHED]
    if finished:
        best = max(trial.bone_dice or 0.0 for trial, _ in front.costs)
        room = 0.12 * max(best - min(finished), 0.01)
        axis.set_ylim(min(finished) - room, best + room)


def _write_ranks(axis: Axes, front: Front) -> None:
    """Write ranks beside the front; of two that are close one stands on the other side."""
    at: dict[tuple[float, float], list[int]] = {}
    for place in front.front:
        trial, cost = front.costs[place]
        at.setdefault((cost, trial.bone_dice or 0.0), []).append(trial.rank)
    left = True
    before = 0.0
    for (cost, dice), ranks in at.items():
        left = not left if before and cost / before < CLOSE else True
        before = cost
        text = ", ".join(str(rank) for rank in ranks)
        offset, side, edge = ((-6, 5), "right", "bottom") if left else ((6, -5), "left", "top")
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.4}
        beside: dict[str, Any] = {"xytext": offset, "textcoords": "offset points", "ha": side, "va": edge}
        axis.annotate(text, (cost, dice), **beside, fontsize=8.5, zorder=5, bbox=box)


def figure_importance(bars: Sequence[Bar], path: Path) -> None:
    """The share of the spread between trials that each setting explains; pale where it may be chance."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 0.34 * len(bars) + 1.1), layout="constrained")
        axis = figure.add_subplot()
        for place, bar in enumerate(bars):
            sure = bar.p_value <= SURE
            axis.barh(place, bar.share, height=0.62, color=BLUE if sure else LIGHT)
            text = f"{bar.share:.0%}" if sure else f"{bar.share:.0%}, may be chance (p = {bar.p_value:.2f})"
            axis.annotate(
                text, (bar.share, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5
            )
        axis.set_yticks(range(len(bars)), [bar.label for bar in bars])
        axis.set(xlabel="Share of the variance of the score", xlim=(0, 1.0), ylim=(len(bars) - 0.5, -0.5))
        axis.xaxis.set_major_formatter(PercentFormatter(1.0))
        axis.grid(axis="y", visible=False)
        axis.set_axisbelow(True)
        save(figure, path)


def figure_cost(trials: Sequence[Trial], path: Path) -> None:
    """Device hours of every trial by rank, and how they add up, coloured by how the trial ended."""
    hours = np.array([trial.device_hours or 0.0 for trial in trials])
    unit, scale = ("minutes", 60.0) if hours.max() < 0.5 else ("hours", 1.0)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 2.9), layout="constrained")
        axis, total = figure.subplots(1, 2, width_ratios=[3.2, 1.2])
        for state, colour in STATE_COLOURS.items():
            places = [place for place, trial in enumerate(trials) if trial.state == state]
            if places:
                ranks = [trials[place].rank for place in places]
                axis.bar(ranks, hours[places] * scale, width=0.82, color=colour)
                total.bar(state, hours[places].sum() * scale, width=0.6, color=colour)
        axis.set(xlabel="Rank of the trial", ylabel=f"Device {unit}", xlim=(0.4, len(trials) + 0.6))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        total.set(ylabel=f"Device {unit}", title="all together")
        for each in (axis, total):
            each.grid(axis="x", visible=False)
            each.set_axisbelow(True)
        save(figure, path)


def _broken(name: str) -> str:
    """Break a setting's dotted name before its last part, so that neighbours do not run into each other."""
    section, dot, last = name.rpartition(".")
    return f"{section}{dot}\n{last}" if dot else name.replace(" ", "\n", 1)
