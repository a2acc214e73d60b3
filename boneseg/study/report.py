"""All files of a study: tables, figures, one Markdown report and one HTML report that needs no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boneseg.atomic_write import atomic_write_bytes
from boneseg.dataset.manifest import Dataset
from boneseg.evaluate import plots_slices, plots_study
from boneseg.evaluate.forms import to_csv, to_markdown
from boneseg.evaluate.names import NETWORK, THRESHOLD
from boneseg.evaluate.plots_study import Training
from boneseg.evaluate.records import Cell, Table
from boneseg.evaluate.report import FigureFile, environment, figure_view, table_view
from boneseg.evaluate.tables import pooled, pooled_output
from boneseg.metrics import counts
from boneseg.scheme.roles import BONE
from boneseg.study import paper_numbers as printed
from boneseg.study.differences import Difference
from boneseg.study.pictures import Pictures, best_of, mean_iou
from boneseg.study.tables import Results, all_tables
from boneseg.study.trial import Failed, Finished

HTML_FILE, MARKDOWN_FILE = "report.html", "report.md"


@dataclass(frozen=True)
class Report:
    """All that the report shows."""

    results: Results
    dataset: Dataset
    matters: Sequence[Difference]
    pictures: Pictures | None


def write_report(folder: Path, report: Report) -> tuple[Table, ...]:
    """Write the files; the two reports appear last and whole.

    Args:
        folder: where to; what an earlier study wrote there is replaced.
        report: what to write.

    Returns:
        The tables.
    """
    for name in ("tables", "figures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in (HTML_FILE, MARKDOWN_FILE):
        (folder / name).unlink(missing_ok=True)
    tables = all_tables(report.results)
    for table in tables:
        (folder / "tables" / f"{table.name}.csv").write_text(to_csv(table), encoding="utf-8")
    figures = [*_curves(folder / "figures", report.results.finished), *_slices(folder / "figures", report)]
    atomic_write_bytes(folder / MARKDOWN_FILE, _markdown(report, tables, figures).encode())
    atomic_write_bytes(folder / HTML_FILE, _html(report, tables, figures).encode())
    return tables


def verdict(results: Results) -> str:
    """Say in a few sentences which network was best, and beside what."""
    finished = results.finished
    if not finished:
        return f"None of the {len(results.networks)} networks has a result; the reasons are below."
    best = best_of(finished)
    series = best.evaluation.series
    bone, full, threshold = (
        counts.iou(table)[BONE]
        for table in (pooled_output(series, NETWORK), pooled(series, NETWORK), pooled(series, THRESHOLD))
    )
    paper, title = printed.TABLE3[printed.RESNET_UNET], printed.TITLES[printed.RESNET_UNET]
    images = sum(row.images for row in series)
    few = "" if len(results.networks) == len(finished) else f" of {len(results.networks)} that were to be trained"
    return (
        f"Of {_count(len(finished), 'network')}{few}, {best.trial.title} has the highest mean IoU: "
        f"{mean_iou(best):.2%}, and a bone IoU of {bone:.2%}, pixels of {images} test images of {len(series)} series "
        f"pooled. A threshold with morphology has a bone IoU of {threshold:.2%}, this network at the same full "
        f"resolution {full:.2%}. The paper's best, {title} on its own data: mean IoU {paper.iou[0]:.2f}%, bone "
        f"{paper.iou[3]:.2f}%."
    )


def console_table(results: Results) -> str:
    """Return mean and bone IoU of every network beside the printed ones as plain text, at most 100 columns wide."""
    lines = [f"{'IoU %, protocol paper':<44}{'mean':>9}{'bone':>9}{'paper: mean':>16}{'bone':>9}"]
    for network in results.networks:
        table = printed.TABLE1 if 1 in network.trial.tables else printed.TABLE3
        paper = table.get(network.trial.network)
        beside = f"{paper.iou[0]:>16.2f}{paper.iou[3]:>9.2f}" if paper is not None else f"{'-':>16}{'-':>9}"
        if isinstance(network, Failed):
            lines.append(f"{network.trial.title[:43]:<44}{'failed':>9}{'':>9}{beside}")
            continue
        values = counts.iou(pooled_output(network.evaluation.series, NETWORK))
        cells = (100 * mean_iou(network), 100 * float(values[BONE]))
        lines.append(f"{network.trial.title[:43]:<44}{cells[0]:>9.2f}{cells[1]:>9.2f}{beside}")
    return "\n".join(lines)


def _curves(folder: Path, finished: Sequence[Finished]) -> list[FigureFile]:
    """Draw Figures 3 to 5."""
    trainings = [
        Training(network.trial.title, network.card.history, network.card.best_epoch, network.card.scheme)
        for network in finished
        if network.card.history
    ]
    if not trainings:
        return []
    kinds: tuple[tuple[str, Callable[[Sequence[Training], Path], None], str, str], ...] = (
        (
            "figure3_accuracy.png",
            plots_study.figure_accuracies,
            "Figure 3. Accuracy per epoch, every network",
            "Share of pixels that are right, over training images as augmented and over validation images as they are.",
        ),
        (
            "figure4_class_iou.png",
            plots_study.figure_class_ious,
            "Figure 4. Validation IoU of each class per epoch, every network",
            "Pixels of all validation images pooled.",
        ),
        (
            "figure5_mean_scores.png",
            plots_study.figure_means,
            "Figure 5. Validation mean IoU and mean Dice per epoch, every network",
            "Means over the classes. The epoch with the highest mean IoU is kept.",
        ),
    )
    made = []
    for file, plot, title, caption in kinds:
        plot(trainings, folder / file)
        made.append(FigureFile(folder / file, title, caption, "curves"))
    return made


def _slices(folder: Path, report: Report) -> list[FigureFile]:
    """Draw Figures 6 and 7; a test set without bone has none."""
    pictures = report.pictures
    if pictures is None:
        return []
    best = best_of(report.results.finished).trial.title
    paths = [folder / "figure6_networks.png", folder / "figure7_examples.png"]
    plots_study.figure_networks(pictures.slice, pictures.networks, paths[0])
    plots_slices.figure_examples(pictures.examples, paths[1])
    window = (
        f"Slices count from the feet; CT shown from {plots_slices.WINDOW_HU[0]:g} to {plots_slices.WINDOW_HU[1]:g} HU."
    )
    return [
        FigureFile(
            paths[0],
            "Figure 6. One slice under every network",
            f"The slice with the median bone IoU of {best}, the best network. Bone IoU at full resolution. {window}",
            "slices",
        ),
        FigureFile(
            paths[1],
            f"Figure 7. Best, typical and worst slice of {best}",
            f"By its bone IoU, of all test slices whose reference holds bone. {window}",
            "slices",
        ),
    ]


def _html(report: Report, tables: Sequence[Table], figures: Sequence[FigureFile]) -> str:
    template = environment("boneseg.study", "boneseg.evaluate").get_template("report.html")
    return template.render(
        citation=printed.CITATION,
        verdict=verdict(report.results),
        matters=report.matters,
        failures=[network for network in report.results.networks if isinstance(network, Failed)],
        tables=[table_view(table) for table in tables],
        figures=[figure_view(figure) for figure in figures],
        provenance=_provenance(report),
    )


def _markdown(report: Report, tables: Sequence[Table], figures: Sequence[FigureFile]) -> str:
    lines = ["# Bone segmentation in CT: the paper's study, on other data", "", f"After {printed.CITATION}.", ""]
    lines += [verdict(report.results), "", "## Where this differs from the paper", ""]
    lines += ["| Matter | Paper | Here |", "| --- | --- | --- |"]
    lines += [f"| {_cell(row.topic)} | {_cell(row.paper)} | {_cell(row.here)} |" for row in report.matters]
    failures = [network for network in report.results.networks if isinstance(network, Failed)]
    if failures:
        lines += ["", "## Networks without a result", ""]
        lines += [f"- {failure.trial.title}: {failure.reason}" for failure in failures]
    lines += ["", "## Tables", "", *(to_markdown(table) for table in tables), "## Figures", ""]
    for figure in figures:
        lines += [f"![{figure.title}](figures/{figure.path.name})", "", f"**{figure.title}.** {figure.caption}", ""]
    lines += ["## Provenance", "", *(f"- {name}: `{value}`" for name, value in _provenance(report)), ""]
    return "\n".join(lines)


def _provenance(report: Report) -> list[tuple[str, Cell]]:
    rows: list[tuple[str, Cell]] = [
        ("Dataset", report.dataset.dataset_hash),
        ("Test set", report.dataset.test_hash),
        ("Device of the times", report.results.device),
    ]
    for network in report.results.finished:
        rows.append((network.trial.title, f"run {network.card.run}, evaluation {network.evaluation.report_uri}"))
    return rows


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
