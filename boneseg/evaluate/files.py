"""All files of an evaluation, from measurements: tables, plots, report."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from boneseg.evaluate import plots, plots_classes, plots_slices
from boneseg.evaluate.class_figure import bone_rows
from boneseg.evaluate.class_tables import class_tables
from boneseg.evaluate.forms import to_csv, to_markdown
from boneseg.evaluate.measure import Subject
from boneseg.evaluate.methods import Method
from boneseg.evaluate.names import NETWORK, THRESHOLD
from boneseg.evaluate.pictures import choose, draw
from boneseg.evaluate.records import EvaluationResult, SeriesResult, SplitSummary, known
from boneseg.evaluate.report import FigureFile, render
from boneseg.evaluate.tables import (
    all_tables,
    bone_dice,
    pooled,
    summarise_measure,
)
from boneseg.metrics import counts
from boneseg.metrics.statistics import SHARES
from boneseg.models.card import ModelCard
from boneseg.safe_csv import Cell, csv_text
from boneseg.scheme.roles import BONE
from boneseg.settings.schema import EvaluateSettings
from boneseg.storage.catalogue import Problem

REPORT_FILE, SLICES_FILE, SUMMARY_FILE = "report.html", "tables/slices.csv", "tables/class_wise.md"


@dataclass(frozen=True)
class Study:
    """What was measured, and on what."""

    evaluation_hash: str
    place: str
    """URI or folder of the files, without a slash at its end."""
    card: ModelCard
    test_hash: str
    dataset_hash: str | None
    settings: EvaluateSettings
    data: tuple[SplitSummary, ...]
    series: tuple[SeriesResult, ...]
    problems: tuple[Problem, ...]
    patients: str = ""
    """How patients were told apart, in a sentence."""
    validates_on_training: bool = False
    ensemble: tuple[str, ...] = ()
    """Hashes of the models whose ensemble is measured too."""


def write_files(
    folder: Path, study: Study, subjects: Sequence[Subject], methods: Mapping[str, Method]
) -> EvaluationResult:
    """Write tables, plots and the report.

    Args:
        folder: where to.
        study: the measurements.
        subjects: the series, for the pictures.
        methods: draw their masks again; the network is the first.

    Returns:
        The result; its ``files`` are relative to ``folder``.
    """
    for name in ("tables", "plots"):
        (folder / name).mkdir(exist_ok=True)
    result = summarise_study(study)
    figures = [*_curves(folder, study.card), *_slices(folder, study, subjects, methods), *_bones(folder, study, result)]
    files = [REPORT_FILE, SLICES_FILE, SUMMARY_FILE, *(f"plots/{figure.path.name}" for figure in figures)]
    for table in result.tables:
        (folder / "tables" / f"{table.name}.csv").write_text(to_csv(table), encoding="utf-8")
        (folder / "tables" / f"{table.name}.json").write_bytes(table.to_json())
        files += [f"tables/{table.name}.csv", f"tables/{table.name}.json"]
    (folder / SUMMARY_FILE).write_text(to_markdown(result.table("class_wise")), encoding="utf-8")
    _write_slices(folder / SLICES_FILE, study.series)
    result = result.model_copy(update={"files": tuple(files)})
    (folder / REPORT_FILE).write_text(render(result, study.card, figures), encoding="utf-8")
    return result


def summarise_study(study: Study) -> EvaluationResult:
    """Compute every number of an evaluation from its measurements; no network is needed."""
    series, settings, card = study.series, study.settings, study.card
    name = f"{card.model.architecture}/{card.model.encoder}"
    means = {method: summarise_measure(series, method, bone_dice, settings, SHARES) for method in (NETWORK, THRESHOLD)}
    totals = {method: pooled(series, method) for method in (NETWORK, THRESHOLD)}
    return EvaluationResult(
        evaluation_hash=study.evaluation_hash,
        evaluation_uri=f"{study.place}/evaluation.json",
        report_uri=f"{study.place}/{REPORT_FILE}",
        model_hash=card.model_hash,
        test_hash=study.test_hash,
        dataset_hash=study.dataset_hash,
        ensemble=study.ensemble,
        name=name,
        epoch=card.best_epoch,
        scheme=card.scheme,
        settings=settings,
        data=study.data,
        series=series,
        tables=(*all_tables(series, name, card.best_epoch, settings), *class_tables(series, card.scheme, settings)),
        problems=study.problems,
        patients_told=study.patients,
        validates_on_training=study.validates_on_training,
        bone_dice=known(means[NETWORK].mean),
        bone_dice_interval=_interval(means[NETWORK].low, means[NETWORK].high),
        bone_dice_pooled=known(counts.dice(totals[NETWORK])[BONE]),
        threshold_bone_dice=known(means[THRESHOLD].mean),
        threshold_bone_dice_interval=_interval(means[THRESHOLD].low, means[THRESHOLD].high),
        threshold_bone_dice_pooled=known(counts.dice(totals[THRESHOLD])[BONE]),
        confusion=tuple((int(row[0]), int(row[1]), int(row[2])) for row in totals[NETWORK]),
        files=(),
        versions=_versions(),
    )


def _interval(low: float, high: float) -> tuple[float, float] | None:
    return None if known(low) is None or known(high) is None else (low, high)


def _versions() -> dict[str, str]:
    packages = ("boneseg", "torch", "numpy", "scipy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _curves(folder: Path, card: ModelCard) -> list[FigureFile]:
    """Draw Figures 3 to 5; a model without a history has none."""
    if not card.history:
        return []
    figures: tuple[tuple[str, Callable[..., None], str, str], ...] = (
        (
            "figure3_accuracy.png",
            plots.figure_accuracy,
            "Figure 3. Accuracy per epoch",
            "Share of pixels that are right, over training crops and over whole validation images. Crops lie near "
            "bone and are augmented, so the two lines differ in level. The dotted line is the epoch that was kept.",
        ),
        (
            "figure4_class_iou.png",
            partial(plots.figure_class_iou, scheme=card.scheme),
            "Figure 4. Validation IoU of each class per epoch",
            "Pixels of all validation images pooled."
            + (
                " Of many classes the best, the worst and the mean are shown."
                if card.scheme.size > plots.MOST_LINES
                else ""
            ),
        ),
        (
            "figure5_mean_scores.png",
            plots.figure_mean_scores,
            "Figure 5. Validation mean IoU and mean Dice per epoch",
            "Means over the classes. The epoch with the highest mean IoU is kept.",
        ),
    )
    made = []
    for file, plot, title, caption in figures:
        path = folder / "plots" / file
        plot(card.history, card.best_epoch, path=path)
        made.append(FigureFile(path, title, caption, "half"))
    return made


def _slices(folder: Path, study: Study, subjects: Sequence[Subject], methods: Mapping[str, Method]) -> list[FigureFile]:
    """Draw Figures 6 and 7; a test set without bone has none."""
    pictures = draw(choose(study.series), subjects, methods)
    if not pictures:
        return []
    typical = next((picture for picture in pictures if picture.title == "typical"), pictures[0])
    paths = [folder / "plots" / file for file in ("figure6_methods.png", "figure7_examples.png")]
    plots_slices.figure_methods(typical, paths[0])
    plots_slices.figure_examples(pictures, paths[1])
    window = (
        f"Slices count from the feet; CT shown from {plots_slices.WINDOW_HU[0]:g} to {plots_slices.WINDOW_HU[1]:g} HU."
    )
    return [
        FigureFile(
            paths[0],
            "Figure 6. One slice under every method",
            f"The slice with the median bone IoU of the network. {window}",
            "slices",
        ),
        FigureFile(
            paths[1],
            "Figure 7. Best, typical and worst slice",
            f"By the network's bone IoU, of all test slices whose reference holds bone. {window}",
            "slices",
        ),
    ]


def _bones(folder: Path, study: Study, result: EvaluationResult) -> list[FigureFile]:
    """Draw Figure 8; a model that has bone as one class has none."""
    rows = bone_rows(study.series, result)
    if not rows:
        return []
    path = folder / "plots" / "figure8_bones.png"
    plots_classes.figure_bones(rows, path)
    return [
        FigureFile(
            path,
            "Figure 8. Dice and HD95 of every group and bone",
            "One mark a series, left and right beside each other; with "
            f"{plots_classes.FEWEST_FOR_A_BOX} series or more a bar from the 25th to the 75th percentile and a line at "
            "the median. A bone that only the reference or only the network has is off by the volume's diagonal; less "
            f"than {plots_classes.LEAST_MM:g} mm is drawn there.",
            "slices" if len(rows) > plots_classes.ROWS_A_COLUMN else "half",
        )
    ]


def _write_slices(path: Path, series: Sequence[SeriesResult]) -> None:
    """Write the raw counts of every slice as CSV: one row a slice and method; 0 background, 1 outline, 2 bone."""
    heads = [f"{reference}_as_{predicted}" for reference in range(counts.COMMON) for predicted in range(counts.COMMON)]
    rows: list[Sequence[Cell]] = [["series", "slice", "method", *heads]]
    for row in series:
        for method, found in row.methods.items():
            rows += [[row.series, index, method, *cells] for index, cells in enumerate(found.slices, start=1)]
    path.write_text(csv_text(rows), encoding="utf-8")
