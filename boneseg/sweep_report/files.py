"""All files of a sweep's report: tables as CSV, figures, and one page that needs no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from boneseg.evaluate.forms import to_csv, to_markdown
from boneseg.evaluate.records import Cell, Column, Table
from boneseg.evaluate.report import FigureFile, environment, figure_view, table_view
from boneseg.sweep_report import plots
from boneseg.sweep_report.best import Measured
from boneseg.sweep_report.plots import Bar, Front
from boneseg.sweep_report.tables import (
    best_table,
    by_epochs,
    cost_table,
    ended_table,
    front_table,
    fronts,
    importance_table,
    leaderboard,
    scored_importances,
)
from boneseg.sweep_report.trials import METRIC_WORDS, Trial, varying
from boneseg.tune.records import FAILED, FINISHED, STOPPED, TuneResult

HTML_FILE, MARKDOWN_FILE, LEADERBOARD_FILE = "report.html", "leaderboard.md", "tables/leaderboard.csv"
COMMANDS_SHOWN = 10
"""Commands beyond this rank are folded away."""
MOST_AXES = 9
"""Settings that the parallel coordinates show, the most important ones."""


@dataclass(frozen=True)
class Report:
    """All that the report shows."""

    result: TuneResult
    trials: tuple[Trial, ...]
    measured: Measured | None = None

    @property
    def label(self) -> str:
        """What trials are ranked by."""
        return METRIC_WORDS.get(self.result.metric, self.result.metric)


def write_report(folder: Path, report: Report) -> list[str]:
    """Write all files.

    Args:
        folder: where to; what an earlier report wrote there is replaced.
        report: what to write.

    Returns:
        Their names, relative to the folder.
    """
    for name in ("tables", "plots"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    first, others = _tables(report)
    for table in (*first, *others):
        written = _with_commands(table, report.trials) if table.name == "leaderboard" else table
        (folder / "tables" / f"{table.name}.csv").write_text(to_csv(written), encoding="utf-8")
    figures, missing = _figures(folder / "plots", report)
    (folder / MARKDOWN_FILE).write_text(markdown(report), encoding="utf-8")
    page = (
        environment("boneseg.sweep_report", "boneseg.evaluate")
        .get_template("report.html")
        .render(
            result=report.result,
            trials=report.trials,
            verdict=verdict(report),
            first=[table_view(table) for table in first],
            others=[table_view(table) for table in others],
            shown=COMMANDS_SHOWN,
            figures=[figure_view(figure) for figure in figures],
            missing=missing,
            provenance=_provenance(report),
        )
    )
    (folder / HTML_FILE).write_text(page, encoding="utf-8")
    return [
        HTML_FILE,
        MARKDOWN_FILE,
        *(f"tables/{table.name}.csv" for table in (*first, *others)),
        *(f"plots/{figure.path.name}" for figure in figures),
    ]


def markdown(report: Report) -> str:
    """Return the verdict and the first rows of the tables as Markdown, as Kubeflow's page of a run shows it."""
    first, _ = _tables(report)
    parts = [
        f"## Sweep {report.result.name}",
        "",
        verdict(report),
        "",
        *(to_markdown(_unfolded(table)) for table in first),
    ]
    best = report.trials[0]
    return "\n".join([*parts, "Train the best settings in full:", "", "```", best.command, "```", ""])


def verdict(report: Report) -> str:
    """Say in a few sentences what the sweep found and what it cost."""
    trials = report.trials
    counts = {state: sum(trial.state == state for trial in trials) for state in (FINISHED, STOPPED, FAILED)}
    told = f"{counts[FINISHED]} had all their epochs, {counts[STOPPED]} stopped early, {counts[FAILED]} failed"
    text = f"Of {len(trials)} trials {told}."
    best = trials[0]
    if best.score is not None:
        text += f" The best by validation is {best.network}"
        figures = (("mean IoU", best.mean_iou), ("bone Dice", best.bone_dice))
        text += f": {', '.join(f'{name} {value:.2%}' for name, value in figures if value is not None)}."
    hours = {state: sum(trial.device_hours or 0.0 for trial in trials if trial.state == state) for state in counts}
    total = sum(hours.values())
    if total:
        spent = f"{total:.1f} device hours" if total >= 1 else f"{60 * total:.1f} device minutes"
        text += f" The trials took {spent}, {hours[STOPPED] / total:.0%} of it in those that were stopped early"
        text += f" and {hours[FAILED] / total:.0%} in those that failed." if counts[FAILED] else "."
    together = report.measured.together() if report.measured is not None else None
    if report.measured is not None and together is not None:
        alone = report.measured.of(report.measured.networks[0][0])
        text += (
            f" On the test split the ensemble of the best {len(report.measured.networks)} has a mean bone Dice of "
            f"{together.mean:.2%}, the best network alone {alone.mean if alone is not None else float('nan'):.2%}."
        )
    return text


def _tables(report: Report) -> tuple[list[Table], list[Table]]:
    """Return the tables at the page's top, and those further down."""
    trials = report.trials
    first = [leaderboard(trials, report.measured, report.label)]
    if report.measured is not None:
        first.append(best_table(report.measured))
    found, judged = fronts(trials), scored_importances(trials)
    others = [front_table(found)] if found else []
    others += [importance_table(judged, by_epochs(trials), report.label)] if judged else []
    others.append(cost_table(trials))
    others += [ended_table(trials)] if any(trial.state != FINISHED for trial in trials) else []
    return first, others


def _unfolded(table: Table) -> Table:
    """Return a table with the rows that are always shown."""
    if not table.folds:
        return table
    rows = tuple(row for row, fold in zip(table.rows, table.folds, strict=True) if not fold)
    note = f"Shown are the first {len(rows)} of {len(table.rows)} trials. {table.note}"
    return table.model_copy(update={"rows": rows, "folds": (), "note": note})


def _with_commands(table: Table, trials: Sequence[Trial]) -> Table:
    """Return the leaderboard with why a trial ended early and the command that trains it: for a spreadsheet."""
    columns = (*table.columns, Column(key="reason", label="Why"), Column(key="command", label="Command"))
    rows = tuple((*row, trial.why, trial.command) for row, trial in zip(table.rows, trials, strict=True))
    return table.model_copy(update={"columns": columns, "rows": rows})


def _figures(folder: Path, report: Report) -> tuple[list[FigureFile], list[str]]:
    """Draw what the record holds; return the figures, and a sentence for each that there is nothing for."""
    trials = report.trials
    made: list[FigureFile] = []
    missing: list[str] = []

    def add(file: str, drawn: Callable[[Path], Any], title: str, caption: str, kind: str = "slices") -> None:
        drawn(folder / file)
        made.append(FigureFile(folder / file, title, caption, kind))

    curves = [trial for trial in trials if trial.curve]
    if curves:
        left_out = len(trials) - len(curves)
        add(
            "curves.png",
            partial(plots.figure_curves, trials, report.label),
            "Learning curves",
            f"The {report.label} of validation after each epoch; the best {min(plots.NAMED, len(curves))} in colours."
            + (f" {left_out} trials whose epochs nobody kept are not shown." if left_out else ""),
        )
    else:
        missing.append("Learning curves: the record holds no epochs of any trial.")
    _settings_figures(report, add, missing)
    found = fronts(trials)
    if found:
        add("front.png", partial(plots.figure_fronts, found), "Accuracy against cost", _front_caption(found))
    for label, there in (
        ("speed", any(trial.ms_per_slice is not None for trial in trials)),
        ("size", any(trial.parameters is not None for trial in trials)),
    ):
        if not there:
            missing.append(f"Pareto front of accuracy against {label}: no trial of this sweep noted its {label}.")
    if any(trial.device_hours for trial in trials):
        caption = "Device hours of every trial, the best first, and all together by how trials ended."
        add("cost.png", partial(plots.figure_cost, trials), "What each trial cost", caption)
    else:
        missing.append("Cost: no trial of this sweep noted how long it took.")
    return made, missing


def _settings_figures(report: Report, add: Callable[..., None], missing: list[str]) -> None:
    """Draw the parallel coordinates and the importance of settings."""
    trials = report.trials
    judged = scored_importances(trials)
    important = [row.setting for row in judged]
    chosen = varying(trials)
    axes = sorted(
        sorted(chosen, key=lambda name: important.index(name) if name in important else 99)[:MOST_AXES],
        key=chosen.index,
    )
    if axes and sum(trial.score is not None for trial in trials) > 1:
        left_out = (
            f" Shown are the {MOST_AXES} most important of {len(chosen)} settings." if len(chosen) > MOST_AXES else ""
        )
        add(
            "parallel.png",
            partial(plots.figure_parallel, trials, axes, report.label),
            "Parallel coordinates",
            "Every line is a trial, from what it chose on the left to the {report.label} of validation that it "
            f"reached; darker is better. A line below an axis did not have that setting.{left_out}",
        )
    else:
        missing.append("Parallel coordinates: the trials do not differ in any setting that was searched.")
    bars = [
        Bar(row.setting, row.share, row.p_value) for row in judged if row.share is not None and row.p_value is not None
    ]
    if bars:
        add(
            "importance.png",
            partial(plots.figure_importance, bars),
            "Importance of each setting",
            "How much of the spread of the score between trials a setting explains by itself, corrected for chance. "
            "Pale: as much is often explained by chance alone.",
            "half",
        )
    else:
        missing.append("Importance of settings: there are too few trials to tell.")


def _front_caption(found: Sequence[Front]) -> str:
    numbers = "a" if len(found) == 1 else "each"
    return (
        f"Bone Dice of validation against {numbers} cost of a network. The line is the Pareto front: what no trial "
        "beats in both. Numbers are ranks of the leaderboard. Trials below the worst finished one are not shown."
    )


def _provenance(report: Report) -> list[tuple[str, Cell]]:
    result = report.result
    rows: list[tuple[str, Cell]] = [("Sweep", result.name), ("Record of its trials", result.table_uri)]
    rows += [(f"Searched: {name}", str(choices)) for name, choices in result.space.items()]
    rows += [(f"Budget used: {name.replace('_', ' ')}", f"{value:g}") for name, value in result.budget_used.items()]
    if report.measured is not None:
        rows += [(f"Evaluation of {trial.rank}", found.report_uri) for trial, found in report.measured.networks]
        if report.measured.ensemble is not None:
            rows.append(("Evaluation of the ensemble", report.measured.ensemble.report_uri))
    return rows
