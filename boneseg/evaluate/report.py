"""One HTML file that shows everything: no script, no link, no patient."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from boneseg.evaluate.class_words import bone_sentences, shown_confusion
from boneseg.evaluate.forms import to_text
from boneseg.evaluate.names import NETWORK
from boneseg.evaluate.records import Cell, EvaluationResult, Table
from boneseg.evaluate.tables import BONE_MEASURES, baselines, difference_name, pooled
from boneseg.metrics import counts
from boneseg.metrics.statistics import too_few
from boneseg.models.card import ModelCard
from boneseg.scheme.roles import BONE

TEXT_KEYS = {
    *("method", "series", "patient", "measure", "network", "source", "reason", "bone", "pair", "class"),
    *("setting", "state", "levels"),
}
WRAPPED_KEYS = {"reason", "levels"}


@dataclass(frozen=True)
class FigureFile:
    """A picture of the report."""

    path: Path
    title: str
    caption: str
    kind: str
    """``half`` = curves; ``slices`` = CT slices over the whole width."""


def render(result: EvaluationResult, card: ModelCard, figures: Sequence[FigureFile]) -> str:
    """Return the report as HTML.

    Args:
        result: the evaluation.
        card: of the model.
        figures: in the order of the report.
    """
    return (
        environment("boneseg.evaluate")
        .get_template("report.html")
        .render(
            result=result,
            test=next(row for row in result.data if row.split == "test"),
            headlines=_headlines(result),
            verdict=_verdict(result),
            patients=patients_text(result),
            tables=[table_view(table) for table in result.tables],
            confusion=_confusion_view(result),
            figures=[figure_view(figure) for figure in figures],
            provenance=_provenance(result, card),
        )
    )


def environment(*packages: str) -> Environment:
    """Return where templates are found: in these packages, the first one that has it."""
    loader = ChoiceLoader([PackageLoader(package, ".") for package in packages])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def patients_text(result: EvaluationResult) -> str:
    """Say who is in which split as far as it is known, and how patients were told apart."""
    if result.dataset_hash is None:
        text = "The series come from a folder: whether the network was trained on some of them is not known here."
    elif result.validates_on_training:
        text = (
            "No patient is in training and in test. Validation holds the training series, for want of patients: the "
            "epoch was chosen on series that the network was trained on, and validation figures say nothing of others."
        )
    else:
        text = "No patient is in two splits, as far as patients could be told apart."
    return f"{text} {result.patients_told}." if result.patients_told else text


def _headlines(result: EvaluationResult) -> list[dict[str, Any]]:
    """Return the three figures of the page's top, each under the network and under what it stands beside."""
    reason, methods = result.no_interval(), [NETWORK, *baselines(result.series)]
    dice, hd95 = ({method: _summary_row(result, method, measure) for method in methods} for measure in BONE_MEASURES)
    pooled = {method: _pooled_dice(result, method) for method in methods}
    cards: list[tuple[str, str, str, dict[str, tuple[float | None, tuple[float, float] | None]]]] = [
        ("Bone Dice, mean over series", "patient", "%", dice),
        ("Bone Dice, pixels pooled at full resolution", "", "%", pooled),
        ("Bone HD95, mean over series", "patient", "mm", hd95),
    ]
    shown = []
    for title, protocol, unit, found in cards:
        lines = [
            {
                "method": method,
                "value": _plain(value),
                "interval": _interval(interval, unit, reason) if protocol else "",
            }
            for method, (value, interval) in found.items()
        ]
        shown.append({"title": title, "protocol": protocol, "unit": unit, "network": lines[0], "others": lines[1:]})
    return shown


def _pooled_dice(result: EvaluationResult, method: str) -> tuple[float | None, tuple[float, float] | None]:
    value = float(counts.dice(pooled(result.series, method))[BONE])
    return 100 * value if math.isfinite(value) else None, None


def _summary_row(
    result: EvaluationResult, method: str, measure: str
) -> tuple[float | None, tuple[float, float] | None]:
    """Return mean and interval of one measure of the table over series."""
    table = result.table("patient_summary")
    keys = [column.key for column in table.columns]
    row = next(dict(zip(keys, row, strict=True)) for row in table.rows if row[0] == measure)
    low, high = _float(row[f"{method}_low"]), _float(row[f"{method}_high"])
    return _float(row[f"{method}_mean"]), (low, high) if low is not None and high is not None else None


def _verdict(result: EvaluationResult) -> str:
    """Say in some sentences what the network adds to each method beside it, and how well it tells bones apart."""
    sentences = [_gain(result, method) for method in baselines(result.series)]
    return " ".join([*sentences, *bone_sentences(result)]).replace(" %", "\N{NO-BREAK SPACE}%")


def _gain(result: EvaluationResult, baseline: str) -> str:
    """Say in a sentence or two what the network adds to another method, and how sure that is."""
    row = next(row for row in result.table(difference_name(baseline)).rows if row[0] == "bone Dice (%)")
    difference, low, high, p_value, series, patients = (_float(cell) for cell in row[1:])
    if difference is None:
        return "No test series holds bone in the reference or in a prediction: there is nothing to compare."
    direction = "above" if difference >= 0 else "below"
    text = (
        f"Over {series:.0f} test series the network's bone Dice is {abs(difference):.2f} percentage points "
        f"{direction} the {baseline}'s"
    )
    if low is None or high is None:
        return f"{text}. {too_few(int(patients or 0))}: how far this holds for others cannot be said."
    return f"{text} (95 % interval {low:+.2f} to {high:+.2f}, p = {p_value:.3f})."


def table_view(table: Table) -> dict[str, Any]:
    """Return what the template shows of a table."""
    groups = [(label, len(list(part))) for label, part in groupby(column.group for column in table.columns)]
    starts, position = set(), 0
    for label, span in groups:
        if label:
            starts.add(position)
        position += span
    rows = [{"kind": _kind(row), "cells": row} for row in to_text(table)]
    folds = table.folds or ("",) * len(rows)
    return {
        "title": table.title,
        "protocol": table.protocol,
        "note": table.note,
        "groups": [{"label": label, "span": span} for label, span in groups] if any(g[0] for g in groups) else [],
        "columns": [
            {
                "label": column.label,
                # A table without text cells before it may count series in a column of that name.
                "text": column.key in TEXT_KEYS and any(isinstance(row[index], str) for row in table.rows),
                "wrap": column.key in WRAPPED_KEYS,
                "start": index in starts,
            }
            for index, column in enumerate(table.columns)
        ],
        "rows": [row for row, fold in zip(rows, folds, strict=True) if not fold],
        "folds": [
            {
                "title": _fold_title(table, name),
                "rows": [row for row, fold in zip(rows, folds, strict=True) if fold == name],
            }
            for name in dict.fromkeys(folds)
            if name
        ],
    }


def _fold_title(table: Table, name: str) -> str:
    """Say what is folded away under a name, and which row of it is the lowest, where rows are ranked by a column."""
    if not table.rank:
        return f"{name} ({sum(fold == name for fold in table.folds)} rows)"
    place = [column.key for column in table.columns].index(table.rank)
    rows = [row for row, fold in zip(table.rows, table.folds, strict=True) if fold == name]
    known = [(value, str(row[0])) for row in rows if (value := _float(row[place])) is not None]
    label = table.columns[place].group or table.columns[place].label
    lowest = f"; lowest {label.removesuffix(' (%)')}: {min(known)[1]}, {min(known)[0]:.2f} %" if known else ""
    return f"{name} ({len(rows)} {'row' if len(rows) == 1 else 'rows'}{lowest})"


def _kind(row: Sequence[str]) -> str:
    """Tell rows that sum up, and those that are not ours, from the others."""
    return " ".join(kind for kind, mark in (("printed", "paper"), ("combined", "combined")) if mark in row[:2])


def _confusion_view(result: EvaluationResult) -> dict[str, Any]:
    names, table = shown_confusion(result)
    rows = []
    for name, row in zip(names, table.tolist(), strict=True):
        total = sum(row)
        shares = [f"{count / total * 100:.2f}" if total else "-" for count in row]
        rows.append({"name": name, "shares": shares, "pixels": _thousands(total)})
    return {"names": names, "rows": rows}


def figure_view(figure: FigureFile) -> dict[str, str]:
    """Return what the template shows of a figure, the picture itself included."""
    data = base64.b64encode(figure.path.read_bytes()).decode()
    return {"title": figure.title, "caption": figure.caption, "kind": figure.kind, "data": data}


def _provenance(result: EvaluationResult, card: ModelCard) -> list[tuple[str, str]]:
    window = card.model.preprocess.window
    return [
        ("Evaluation", result.evaluation_hash),
        ("Model", result.model_hash),
        *([("Ensemble of models", ", ".join(result.ensemble))] if result.ensemble else []),
        ("Test set", result.test_hash),
        ("Dataset evaluated", result.dataset_hash or "a folder, not a dataset of the bucket"),
        ("Dataset trained on", card.dataset_hash),
        ("Training run", card.run),
        ("Network", f"{result.name}, {_thousands(card.parameters)} parameters"),
        ("HU window", f"{window[0]:g} to {window[1]:g}"),
        ("Training", _settings_line(card.train.model_dump(mode="json"))),
        ("Evaluation settings", _settings_line(result.settings.model_dump(mode="json"))),
        ("Versions at training", _settings_line(card.versions)),
        ("Versions at evaluation", _settings_line(result.versions)),
    ]


def _settings_line(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def _thousands(number: int) -> str:
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")


def _float(cell: Cell) -> float | None:
    return float(cell) if isinstance(cell, int | float) else None


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _interval(interval: tuple[float, float] | None, unit: str, reason: str) -> str:
    return reason if interval is None else f"95 % interval {interval[0]:.2f} to {interval[1]:.2f} {unit}"
