"""The tables of an evaluation, from measurements alone, and their forms: CSV, JSON, Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from boneseg.cells import csv_text
from boneseg.evaluate.records import PAPER, PATIENT, Cell, Column, Measurement, SeriesResult, Table, known
from boneseg.metrics import counts
from boneseg.metrics.statistics import Summary, paired_difference, summarise
from boneseg.scheme import BONE, OUTLINE
from boneseg.settings.schema import EvaluateSettings

CLASS_KEYS = ("background", "outline", "bone")
NETWORK, THRESHOLD = "network", "threshold"

LONG = 10_000
"""Whole numbers from here on are written in groups of three digits."""

Series = Sequence[SeriesResult]

_GRIDS = {
    True: "Output size: counted on the grid on which the network answers, the reference brought there by nearest "
    "neighbour, as the library of the paper does. All other tables are at full resolution.",
    False: "The network answers on the slices' own pixels: network output size and full resolution are the same.",
}


def all_tables(series: Series, name: str, epoch: int, settings: EvaluateSettings) -> tuple[Table, ...]:
    """Make every table.

    Args:
        series: the test series, each measured by both methods.
        name: of the network, architecture/encoder.
        epoch: the one that was kept.
        settings: tolerance, threshold and resamples.
    """
    return (
        class_wise(series, name, epoch, settings),
        per_series(series, name),
        per_image(series, name),
        patient_summary(series, name, settings),
        patient_difference(series, settings),
        patient_series(series, settings),
    )


def class_wise(series: Series, name: str, epoch: int, settings: EvaluateSettings) -> Table:
    """Tables 1 and 3 of the paper: IoU, Dice and accuracy of each class and their means, all test pixels pooled.

    The network's first row is at the size of its own output; its second one, at full resolution, is there where the
    two differ.
    """
    columns = [Column(key="method", label="Method"), Column(key="epoch", label="Epoch")]
    for key, label in (("iou", "IoU (%)"), ("dice", "Dice (%)"), ("accuracy", "Accuracy (%)")):
        columns += [percent(f"{key}_{part}", part, label) for part in ("mean", *CLASS_KEYS)]
    rows: list[tuple[Cell, ...]] = [(name, epoch, *class_figures(pooled_output(series, NETWORK)))]
    if has_own_grid(series):
        rows = [(f"{name}, output size", *rows[0][1:])]
        rows.append((f"{name}, full resolution", epoch, *class_figures(pooled(series, NETWORK))))
    rows.append((threshold_name(settings), None, *class_figures(pooled(series, THRESHOLD))))
    return Table(
        name="class_wise",
        title="Class-wise and mean IoU, Dice and accuracy",
        protocol=PAPER,
        note="Pixels of all test images are pooled for each class. Accuracy of a class is (TP + TN) / all. The mean "
        f"is over the classes that occur. {_GRIDS[has_own_grid(series)]}",
        columns=tuple(columns),
        rows=tuple(rows),
    )


def per_series(series: Series, name: str) -> Table:
    """Table 4 of the paper: IoU of each CT series, and of all together."""
    columns = [Column(key="series", label="Series"), Column(key="patient", label="Patient")]
    columns += [Column(key="images", label="Images")]
    for method, label in ((NETWORK, f"{name}: IoU (%)"), (THRESHOLD, "threshold: IoU (%)")):
        columns += [percent(f"{method}_iou_{part}", part, label) for part in ("mean", *CLASS_KEYS)]
    rows: list[tuple[Cell, ...]] = [
        (
            row.name,
            row.patient[:8],
            row.images,
            *ious(row.network.series_counts()),
            *ious(row.threshold.series_counts()),
        )
        for row in series
    ]
    images = sum(row.images for row in series)
    rows.append(("combined", None, images, *ious(pooled(series, NETWORK)), *ious(pooled(series, THRESHOLD))))
    return Table(
        name="per_series",
        title="IoU per CT series",
        protocol=PAPER,
        note="Pixels of one series are pooled; the last row pools all of them. Series and patients go by keyed or "
        "content hashes.",
        columns=tuple(columns),
        rows=tuple(rows),
    )


def per_image(series: Series, name: str) -> Table:
    """Bone IoU over single images: least, greatest, mean and spread."""
    rows: list[tuple[Cell, ...]] = [
        (label, *image_cells([_of(row, method).slice_counts() for row in series]))
        for method, label in ((NETWORK, name), (THRESHOLD, THRESHOLD))
    ]
    return image_table((Column(key="method", label="Method"),), rows)


def image_table(heads: tuple[Column, ...], rows: Sequence[tuple[Cell, ...]]) -> Table:
    """Make a table of bone IoU over single images; behind the cells of ``heads`` a row has ``image_cells``."""
    return Table(
        name="per_image",
        title="Bone IoU per image",
        protocol=PAPER,
        note="Each slice by itself. Images with bone neither in the reference nor in the prediction have no bone IoU: "
        "they are left out and counted.",
        columns=(
            *heads,
            *(percent(f"bone_iou_{key}", key, "Bone IoU of an image (%)") for key in ("min", "max", "mean", "sd")),
            Column(key="images", label="Images"),
            Column(key="left_out", label="Left out"),
        ),
        rows=tuple(rows),
    )


def image_cells(series: Sequence[counts.Counts]) -> list[Cell]:
    """Describe the bone IoU of all images of some series, each given as counts (slices, 3, 3)."""
    values = np.concatenate([counts.iou(tables)[:, BONE] for tables in series]) if series else np.zeros(0)
    there = values[np.isfinite(values)]
    return [*spread(there), int(there.size), int(values.size - there.size)]


def patient_summary(series: Series, name: str, settings: EvaluateSettings) -> Table:
    """Each figure over series under both methods: mean, spread and interval."""
    parts = (("mean", "mean"), ("sd", "SD"), ("low", "95 % from"), ("high", "to"))
    columns = [Column(key="measure", label="Measure")]
    for method, label in ((NETWORK, name), (THRESHOLD, threshold_name(settings))):
        columns += [Column(key=f"{method}_{key}", label=text, group=label, digits=2) for key, text in parts]
        columns += [Column(key=f"{method}_series", label="series", group=label)]
        columns += [Column(key=f"{method}_left_out", label="left out", group=label)]
    rows = []
    for measure, value, scale in _measures(settings):
        cells: list[Cell] = [measure]
        for method in (NETWORK, THRESHOLD):
            found = summarise_measure(series, method, value, settings)
            cells += [known(figure * scale) for figure in (found.mean, found.sd, found.low, found.high)]
            cells += [found.series, found.left_out]
        rows.append(tuple(cells))
    return Table(
        name="patient_summary",
        title="Mean, spread and interval over CT series",
        protocol=PATIENT,
        note="One value a series, then the mean, the standard deviation and the 95 % bootstrap interval of the mean "
        "(patients resampled with all their series; there is none with one patient). Where only one of the two masks "
        "has bone, both distances are the volume's diagonal and the normalised surface distance (NSD) is 0; where both "
        "have none the series is left out and counted.",
        columns=tuple(columns),
        rows=tuple(rows),
    )


def patient_difference(series: Series, settings: EvaluateSettings) -> Table:
    """Network minus threshold, paired by series."""
    patients = [row.patient for row in series]
    rows = []
    for measure, value, scale in _measures(settings):
        first, second = (_values(series, method, value) for method in (NETWORK, THRESHOLD))
        found = paired_difference(first, second, patients, settings.bootstrap)
        rows.append(
            (
                measure,
                *(known(figure * scale) for figure in (found.mean, found.low, found.high)),
                known(found.p_value),
                found.series,
                found.patients,
            )
        )
    return Table(
        name="patient_difference",
        title="Network minus threshold, series by series",
        protocol=PATIENT,
        note="Paired differences with their 95 % bootstrap interval and the p-value of a two-sided sign-flip "
        "permutation test over patients; with n patients it cannot fall below 2 / 2^n.",
        columns=(
            Column(key="measure", label="Measure"),
            *(
                Column(key=key, label=label, digits=2)
                for key, label in (("difference", "Difference"), ("low", "95 % from"), ("high", "to"))
            ),
            Column(key="p_value", label="p", digits=3),
            Column(key="series", label="Series"),
            Column(key="patients", label="Patients"),
        ),
        rows=tuple(rows),
    )


def patient_series(series: Series, settings: EvaluateSettings) -> Table:
    """The figures of every series."""
    measures = [measure for measure in _measures(settings) if measure[0].startswith("bone") and "IoU" not in measure[0]]
    keys = ("dice_percent", "hd95_mm", "average_surface_mm", "normalised_surface_percent")
    labels = ("Dice (%)", "HD95 (mm)", "ASD (mm)", "NSD (%)")
    columns = [Column(key="series", label="Series"), Column(key="patient", label="Patient")]
    columns += [Column(key="images", label="Images"), Column(key="slice_mm", label="Slice (mm)", digits=2)]
    for method in (NETWORK, THRESHOLD):
        columns += [
            Column(key=f"{method}_{key}", label=label, group=f"{method}: bone", digits=2)
            for key, label in zip(keys, labels, strict=True)
        ]
    rows = []
    for row in series:
        figures = [
            known(value(_of(row, method)) * scale) for method in (NETWORK, THRESHOLD) for _, value, scale in measures
        ]
        rows.append((row.name, row.patient[:8], row.images, row.network.spacing_mm[0], *figures))
    return Table(
        name="patient_series",
        title="Bone of each CT series",
        protocol=PATIENT,
        note="HD95: 95th percentile of the distances between the two surfaces, the worse direction. ASD: average "
        f"symmetric surface distance. NSD: share of both surfaces within {settings.surface_tolerance_mm:g} mm.",
        columns=tuple(columns),
        rows=tuple(rows),
    )


def pooled(series: Series, method: str) -> counts.Counts:
    """Add up the counts of all series, (3, 3)."""
    total = np.zeros((counts.SIZE, counts.SIZE), dtype=np.int64)
    for row in series:
        total += _of(row, method).series_counts()
    return total


def pooled_output(series: Series, method: str) -> counts.Counts:
    """Add up the counts of all series at the size of the network's own output, (3, 3)."""
    total = np.zeros((counts.SIZE, counts.SIZE), dtype=np.int64)
    for row in series:
        total += _of(row, method).output_counts().sum(axis=0)
    return total


def has_own_grid(series: Series) -> bool:
    """Say whether the network answers on another grid than the slices' own, so that there are two sets of counts."""
    return any(row.network.output_slices is not None for row in series)


def image_bone_iou(measurement: Measurement) -> counts.Values:
    """Return the bone IoU of each slice, (slices,); NaN where neither mask has bone there."""
    values: counts.Values = counts.iou(measurement.slice_counts())[:, BONE]
    return values


def bone_dice(measurement: Measurement) -> float:
    """Return the bone Dice of a series; NaN where neither mask has bone."""
    return float(counts.dice(measurement.series_counts())[BONE])


def summarise_measure(
    series: Series, method: str, value: Callable[[Measurement], float], settings: EvaluateSettings
) -> Summary:
    """Describe one figure over series."""
    return summarise(_values(series, method, value), [row.patient for row in series], settings.bootstrap)


def to_csv(table: Table) -> str:
    """Return a table as CSV, its columns' keys as the header; what is not defined stays empty."""
    rows = [[round(cell, 6) if isinstance(cell, float) else cell for cell in row] for row in table.rows]
    return csv_text([[column.key for column in table.columns], *rows])


def to_markdown(table: Table) -> str:
    """Return a table as Markdown with its title, protocol and note."""
    heads = [f"{column.group.removesuffix(' (%)')} {column.label}".strip() for column in table.columns]
    protocol = f" (protocol: {table.protocol})" if table.protocol else ""
    lines = [f"### {table.title}{protocol}", "", "| " + " | ".join(heads) + " |"]
    lines.append("|" + "|".join(" ---: " if index else " --- " for index in range(len(heads))) + "|")
    lines += ["| " + " | ".join(text_row) + " |" for text_row in to_text(table)]
    return "\n".join([*lines, "", table.note, ""])


def to_text(table: Table) -> list[list[str]]:
    """Return the cells as a person reads them."""
    return [[cell_text(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows]


def cell_text(cell: Cell, column: Column) -> str:
    """Return one cell with the column's decimals; a dash where nothing is defined."""
    if cell is None:
        return "-"
    if isinstance(cell, float) and column.digits is not None:
        return f"{cell:.{column.digits}f}"
    if isinstance(cell, int) and cell >= LONG:
        return f"{cell:,}".replace(",", "\N{NO-BREAK SPACE}")
    return str(cell)


def _of(row: SeriesResult, method: str) -> Measurement:
    return row.network if method == NETWORK else row.threshold


def _values(series: Series, method: str, value: Callable[[Measurement], float]) -> list[float]:
    return [value(_of(row, method)) for row in series]


def _measures(settings: EvaluateSettings) -> tuple[tuple[str, Callable[[Measurement], float], float], ...]:
    """Name, value and scale of each figure of the patient protocol."""
    return (
        ("bone Dice (%)", bone_dice, 100.0),
        ("bone IoU (%)", lambda found: float(counts.iou(found.series_counts())[BONE]), 100.0),
        ("bone HD95 (mm)", lambda found: _number(found.hd95_mm), 1.0),
        ("bone average surface distance (mm)", lambda found: _number(found.average_surface_mm), 1.0),
        (
            f"bone NSD at {settings.surface_tolerance_mm:g} mm (%)",
            lambda found: _number(found.normalised_surface),
            100.0,
        ),
        ("patient outline Dice (%)", lambda found: float(counts.dice(found.series_counts())[OUTLINE]), 100.0),
    )


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def percent(key: str, label: str, group: str) -> Column:
    """Return a column of percent."""
    return Column(key=f"{key}_percent", label=label, group=group, digits=2)


def threshold_name(settings: EvaluateSettings) -> str:
    """Return what tables call the classical method."""
    return f"threshold {settings.threshold_hu:g} HU"


def class_figures(table: counts.Counts) -> list[float | None]:
    """Return IoU, Dice and accuracy in percent, of each the mean and then every class."""
    figures: list[float | None] = []
    for measure in (counts.iou, counts.dice, counts.accuracy):
        figures += _with_mean(measure(table))
    return figures


def ious(table: counts.Counts) -> list[float | None]:
    """Return the mean IoU and that of every class in percent."""
    return _with_mean(counts.iou(table))


def _with_mean(values: counts.Values) -> list[float | None]:
    return [known(value * 100) for value in (counts.mean_over_classes(values), *values)]


def spread(values: counts.Values) -> list[float | None]:
    """Return least, greatest, mean and standard deviation in percent; none where there is no value."""
    if not values.size:
        return [None] * 4
    sd = values.std(ddof=1) if values.size > 1 else np.nan
    return [known(value * 100) for value in (values.min(), values.max(), values.mean(), sd)]
