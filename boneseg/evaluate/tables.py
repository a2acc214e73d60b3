"""The tables of an evaluation, from measurements alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from boneseg.evaluate.names import NETWORK, THRESHOLD, method_title
from boneseg.evaluate.records import BONE_GROUP, PAPER, PATIENT, Cell, Column, Measurement, SeriesResult, Table, known
from boneseg.metrics import counts
from boneseg.metrics.statistics import (
    DISTANCES,
    FEWEST_PATIENTS,
    GAINS,
    NO_BOUNDS,
    SHARES,
    Summary,
    paired_difference,
    summarise,
    too_few,
)
from boneseg.scheme.roles import BONE, COMMON_CLASSES, OUTLINE
from boneseg.settings.schema import EvaluateSettings

CLASS_KEYS = ("background", "outline", "bone")

BONE_MEASURES = ("bone Dice (%)", "bone HD95 (mm)")
"""What tables over series call the two headline figures."""

Series = Sequence[SeriesResult]

_GRIDS = {
    True: "Output size: counted on the grid on which the network answers, the reference brought there by nearest "
    "neighbour, as the library of the paper does. All other tables are at full resolution.",
    False: "The network answers on the slices' own pixels: network output size and full resolution are the same.",
}


def all_tables(series: Series, name: str, epoch: int, settings: EvaluateSettings) -> tuple[Table, ...]:
    """Make every table.

    Args:
        series: the test series, each measured by every method.
        name: of the network, architecture/encoder.
        epoch: the one that was kept.
        settings: tolerance, threshold and resamples.
    """
    return (
        class_wise(series, name, epoch, settings),
        per_series(series, name),
        per_image(series, name),
        patient_summary(series, name, settings),
        *(patient_difference(series, method, settings) for method in baselines(series)),
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
    for method in baselines(series):
        rows.append((method_title(method, name, settings), None, *class_figures(pooled(series, method))))
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
    for method in methods_of(series):
        label = f"{name if method == NETWORK else method}: IoU (%)"
        columns += [percent(f"{method}_iou_{part}", part, label) for part in ("mean", *CLASS_KEYS)]
    rows: list[tuple[Cell, ...]] = [
        (
            row.name,
            row.patient[:8],
            row.images,
            *(cell for method in methods_of(series) for cell in ious(row.methods[method].series_counts())),
        )
        for row in series
    ]
    images = sum(row.images for row in series)
    together = (cell for method in methods_of(series) for cell in ious(pooled(series, method)))
    rows.append(("combined", None, images, *together))
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
        (name if method == NETWORK else method, *image_cells([row.methods[method].slice_counts() for row in series]))
        for method in methods_of(series)
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
    """Each figure over series under every method: mean, spread and interval."""
    parts = (("mean", "mean"), ("sd", "SD"), ("low", "95 % from"), ("high", "to"))
    columns = [Column(key="measure", label="Measure")]
    for method in methods_of(series):
        label = method_title(method, name, settings)
        columns += [Column(key=f"{method}_{key}", label=text, group=label, digits=2) for key, text in parts]
        columns += [Column(key=f"{method}_series", label="series", group=label)]
        columns += [Column(key=f"{method}_left_out", label="left out", group=label)]
    rows = []
    for measure, value, scale in (*_measures(settings), *_outline_measures(series, settings)):
        cells: list[Cell] = [measure]
        for method in methods_of(series):
            found = summarise_measure(series, method, value, settings, SHARES if scale > 1 else DISTANCES)
            cells += [known(figure * scale) for figure in (found.mean, found.sd, found.low, found.high)]
            cells += [found.series, found.left_out]
        rows.append(tuple(cells))
    return Table(
        name="patient_summary",
        title="Mean, spread and interval over CT series",
        protocol=PATIENT,
        note="One value a series, then the mean, the standard deviation and the 95 % interval of the mean over "
        f"patients (the wider of t and bootstrap-t). {_on_patients(series)}Where only one of the two masks "
        "has bone, both distances are the volume's diagonal and the normalised surface distance (NSD) is 0; where both "
        "have none the series is left out and counted.",
        columns=tuple(columns),
        rows=tuple(rows),
    )


def patient_difference(series: Series, baseline: str, settings: EvaluateSettings) -> Table:
    """Network minus another method, paired by series."""
    patients = [row.patient for row in series]
    rows = []
    for measure, value, scale in _measures(settings):
        first, second = (_values(series, method, value) for method in (NETWORK, baseline))
        bounds = GAINS if scale > 1 else NO_BOUNDS
        found = paired_difference(first, second, patients, settings.bootstrap, bounds=bounds)
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
        name=difference_name(baseline),
        title=f"Network minus {baseline}, series by series",
        protocol=PATIENT,
        note="Paired differences with their 95 % interval over patients (the wider of t and bootstrap-t) and the "
        "p-value of a two-sided sign-flip permutation test over patients; with n patients it cannot fall below "
        f"2 / 2^n. {_on_patients(series)}".strip(),
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
    for method in methods_of(series):
        columns += [
            Column(key=f"{method}_{key}", label=label, group=f"{method}: bone", digits=2)
            for key, label in zip(keys, labels, strict=True)
        ]
    rows = []
    for row in series:
        figures = [known(value(found) * scale) for found in row.methods.values() for _, value, scale in measures]
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
    total = np.zeros((counts.COMMON, counts.COMMON), dtype=np.int64)
    for row in series:
        total += row.methods[method].series_counts()
    return total


def pooled_output(series: Series, method: str) -> counts.Counts:
    """Add up the counts of all series at the size of the network's own output, (3, 3)."""
    total = np.zeros((counts.COMMON, counts.COMMON), dtype=np.int64)
    for row in series:
        total += row.methods[method].output_counts().sum(axis=0)
    return total


def methods_of(series: Series) -> list[str]:
    """Return the methods that every series is measured by, the network first."""
    return list(series[0].methods) if series else [NETWORK, THRESHOLD]


def baselines(series: Series) -> list[str]:
    """Return the methods that the network stands beside."""
    return methods_of(series)[1:]


def difference_name(baseline: str) -> str:
    """Return the name of the table of network minus another method."""
    return "patient_difference" if baseline == THRESHOLD else f"{baseline}_difference"


def has_own_grid(series: Series) -> bool:
    """Say whether the network answers on another grid than the slices' own, so that there are two sets of counts."""
    return any(row.network.output_slices is not None for row in series)


def image_bone_iou(measurement: Measurement) -> counts.Values:
    """Return the bone IoU of each slice, (slices,); NaN where neither mask has bone there."""
    values: counts.Values = counts.iou(measurement.slice_counts())[:, BONE]
    return values


def bone_dice(measurement: Measurement) -> float:
    """Return the bone Dice of a series; NaN where neither mask has bone, or the label is silent of some."""
    return _number(measurement.bone_dice())


def summarise_measure(
    series: Series,
    method: str,
    value: Callable[[Measurement], float],
    settings: EvaluateSettings,
    bounds: tuple[float, float],
) -> Summary:
    """Describe one figure over series; ``bounds``: least and greatest value it can have."""
    patients = [row.patient for row in series]
    return summarise(_values(series, method, value), patients, settings.bootstrap, bounds=bounds)


def _on_patients(series: Series) -> str:
    """Say why there are no intervals, where there are none."""
    patients = len({row.patient for row in series})
    return f"{too_few(patients)}. " if patients < FEWEST_PATIENTS else ""


def _values(series: Series, method: str, value: Callable[[Measurement], float]) -> list[float]:
    return [value(row.methods[method]) for row in series]


def _measures(settings: EvaluateSettings) -> tuple[tuple[str, Callable[[Measurement], float], float], ...]:
    """Name, value and scale of each figure of the patient protocol."""
    return (
        (BONE_MEASURES[0], bone_dice, 100.0),
        ("bone IoU (%)", lambda found: _if_told(found, BONE_GROUP, counts.iou(found.series_counts())[BONE]), 100.0),
        (BONE_MEASURES[1], lambda found: _number(found.hd95_mm), 1.0),
        ("bone average surface distance (mm)", lambda found: _number(found.average_surface_mm), 1.0),
        (
            f"bone NSD at {settings.surface_tolerance_mm:g} mm (%)",
            lambda found: _number(found.normalised_surface),
            100.0,
        ),
        (
            "patient outline Dice (%)",
            lambda found: _if_told(found, COMMON_CLASSES[OUTLINE], counts.dice(found.series_counts())[OUTLINE]),
            100.0,
        ),
    )


def _if_told(measurement: Measurement, name: str, value: float) -> float:
    return float(value) if measurement.tells(name) else math.nan


def _outline_measures(
    series: Series, settings: EvaluateSettings
) -> tuple[tuple[str, Callable[[Measurement], float], float], ...]:
    """Return the surface figures of the patient outline; nothing in records of before it was measured."""
    name = COMMON_CLASSES[OUTLINE]
    if all(row.network.region(name) is None for row in series):
        return ()

    def value(found: Measurement, figure: str) -> float:
        region = found.region(name)
        return _number(None if region is None else getattr(region, figure))

    return (
        (f"{name} HD95 (mm)", partial(value, figure="hd95_mm"), 1.0),
        (f"{name} average surface distance (mm)", partial(value, figure="average_surface_mm"), 1.0),
        (f"{name} NSD at {settings.surface_tolerance_mm:g} mm (%)", partial(value, figure="normalised_surface"), 100.0),
    )


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def percent(key: str, label: str, group: str) -> Column:
    """Return a column of percent."""
    return Column(key=f"{key}_percent", label=label, group=group, digits=2)


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
