"""Tables 1 to 4 of the paper, ours beside the printed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from boneseg.evaluate.names import NETWORK, THRESHOLD, method_title
from boneseg.evaluate.records import PAPER, PATIENT, Cell, Column, Table
from boneseg.evaluate.tables import (
    CLASS_KEYS,
    class_figures,
    has_own_grid,
    image_cells,
    image_table,
    ious,
    percent,
    pooled,
    pooled_output,
)
from boneseg.metrics import counts
from boneseg.study import paper_numbers as printed
from boneseg.study.pictures import best_of
from boneseg.study.timing import OurCost
from boneseg.study.trial import Failed, Finished

OURS, OUTPUT, FULL, PAPERS, FAILED = "ours", "ours, output size", "ours, full resolution", "paper", "failed"
GRIDS = (
    "Output size: counted on the grid on which the network answers, as the library of the paper does; full resolution: "
    "on the CT's own pixels. Where only 'ours' stands, both are the same."
)
Row = tuple[Cell, ...]


@dataclass(frozen=True)
class Results:
    """What a study found, in the order of its plan."""

    networks: tuple[Finished | Failed, ...]
    costs: Mapping[str, OurCost]
    """By network."""
    device: str

    @property
    def finished(self) -> list[Finished]:
        """The networks that have results."""
        return [network for network in self.networks if isinstance(network, Finished)]

    def of_table(self, number: int) -> list[Finished | Failed]:
        """The networks of one of the paper's tables."""
        return [network for network in self.networks if number in network.trial.tables]


def all_tables(results: Results) -> tuple[Table, ...]:
    """Make every table that has a row."""
    scores = [
        _scores(results, 1, "Table 1. Architectures: IoU, Dice and accuracy of each class", printed.TABLE1),
        _costs(results),
        _scores(results, 3, "Table 3. Encoders of the U-Net: IoU, Dice and accuracy of each class", printed.TABLE3),
    ]
    tables = [*scores, _per_series(results), _per_image(results), _networks(results)]
    return tuple(table for table in tables if table is not None and table.rows)


def _scores(results: Results, number: int, title: str, paper: Mapping[str, printed.Scores]) -> Table:
    columns = [*_heads(), Column(key="epoch", label="Epoch")]
    for key, label in (("iou", "IoU (%)"), ("dice", "Dice (%)"), ("accuracy", "Accuracy (%)")):
        columns += [percent(f"{key}_{part}", part, label) for part in ("mean", *CLASS_KEYS)]
    rows: list[Row] = []
    for network in results.of_table(number):
        name = network.trial.title
        if isinstance(network, Failed):
            rows.append((name, FAILED, None, *[None] * 12))
        else:
            series, epoch = network.evaluation.series, network.card.best_epoch
            own = has_own_grid(series)
            rows.append((name, OUTPUT if own else OURS, epoch, *class_figures(pooled_output(series, NETWORK))))
            if own:
                rows.append((name, FULL, epoch, *class_figures(pooled(series, NETWORK))))
        if network.trial.network in paper:
            scores = paper[network.trial.network]
            rows.append((name, PAPERS, scores.epoch, *scores.figures))
    if rows and results.finished:
        first = results.finished[0].evaluation
        cells = class_figures(pooled(first.series, THRESHOLD))
        rows.append((method_title(THRESHOLD, "", first.settings), OURS, None, *cells))
    note = f"Pixels of all test images pooled for each class; epoch: the one that was kept. {GRIDS}"
    return Table(
        name=f"table{number}", title=title, protocol=PAPER, note=note, columns=tuple(columns), rows=tuple(rows)
    )


def _costs(results: Results) -> Table:
    columns = [Column(key="network", label="Network")]
    for key, label, digits in (
        ("ms", "ms an image", 1),
        ("parameters", "Parameters", None),
        ("trainable", "Trainable", None),
    ):
        columns += [Column(key=f"{key}_{who}", label=who, group=label, digits=digits) for who in (OURS, PAPERS)]
    rows: list[Row] = []
    for network in {found.trial.network: found for found in reversed(results.networks)}.values():
        name = network.trial.network
        ours, paper = results.costs.get(name), printed.TABLE2.get(name)
        cells: list[Cell] = [printed.TITLES.get(name, name)]
        for key in ("milliseconds", "parameters", "trainable"):
            cells += [getattr(cost, key) if cost is not None else None for cost in (ours, paper)]
        rows.append(tuple(cells))
    return Table(
        name="table2",
        title=f"Table 2. Time of one image of {printed.SIZE}x{printed.SIZE} pixels, and parameters",
        protocol="",
        note=f"Ours: mean time of one image at a time, from its pixels to its labels in memory, on {results.device}, "
        f"while nothing else of the study ran. Paper: on an {printed.DEVICE}. Parameters are counted as "
        "Keras does: with the running statistics of batch normalisation, which are not trainable.",
        columns=tuple(columns),
        rows=tuple(reversed(rows)),
    )


def _per_series(results: Results) -> Table | None:
    """Table 4: of the U-Net on ResNet50, or of the best network where that one is not among ours."""
    if not results.finished:
        return None
    resnet = [network for network in results.finished if network.trial.network == printed.RESNET_UNET]
    network = resnet[0] if resnet else best_of(results.finished)
    series = network.evaluation.series
    own = has_own_grid(series)
    groups = {"output": "IoU (%), output size", "full": "IoU (%), full resolution"} if own else {"output": "IoU (%)"}
    columns = [
        Column(key="source", label="Source"),
        Column(key="series", label="Series"),
        Column(key="patient", label="Patient"),
        Column(key="images", label="Images"),
    ]
    for key, label in groups.items():
        columns += [percent(f"{key}_iou_{part}", part, label) for part in ("mean", *CLASS_KEYS)]

    def cells(output: counts.Counts, full: counts.Counts) -> list[Cell]:
        return [*ious(output), *(ious(full) if len(groups) > 1 else [])]

    rows: list[Row] = [
        (
            OURS,
            row.name,
            row.patient[:8],
            row.images,
            *cells(row.network.output_counts().sum(axis=0), row.network.series_counts()),
        )
        for row in series
    ]
    images = sum(row.images for row in series)
    rows.append((OURS, "combined", None, images, *cells(pooled_output(series, NETWORK), pooled(series, NETWORK))))
    nothing: tuple[Cell, ...] = (None,) * 4 * (len(groups) - 1)
    rows += [(PAPERS, row.series, None, row.images, *row.iou, *nothing) for row in printed.TABLE4]
    return Table(
        name="table4",
        title=f"Table 4. IoU of each CT series under the {network.trial.title}",
        protocol=PAPER,
        note="Pixels of one series pooled. The paper's rows are its own five test series under its "
        f"{printed.TITLES[printed.RESNET_UNET]}: other series than ours. Ours go by content hashes, patients by keyed "
        "hashes.",
        columns=tuple(columns),
        rows=tuple(rows),
    )


def _per_image(results: Results) -> Table:
    rows: list[Row] = []
    for network in results.finished:
        series, name = network.evaluation.series, network.trial.title
        own = has_own_grid(series)
        output = image_cells([row.network.output_counts() for row in series])
        rows.append((name, OUTPUT if own else OURS, *output))
        if own:
            rows.append((name, FULL, *image_cells([row.network.slice_counts() for row in series])))
        if network.trial.network == printed.UNET:
            rows.append((name, PAPERS, *printed.IMAGE_BONE_IOU, printed.TEST_IMAGES, None))
    if results.finished:
        first = results.finished[0].evaluation
        cells = image_cells([row.threshold.slice_counts() for row in first.series])
        rows.append((method_title(THRESHOLD, "", first.settings), OURS, *cells))
    return image_table(_heads(), rows)


def _networks(results: Results) -> Table:
    columns = (
        Column(key="network", label="Network"),
        Column(key="epochs", label="Epochs", group="Training"),
        Column(key="minutes", label="minutes", group="Training", digits=1),
        Column(key="validation_mean_iou_percent", label="validation mean IoU (%)", group="Training", digits=2),
        Column(key="bone_dice_percent", label="mean", group="Bone Dice over series (%)", digits=2),
        Column(key="bone_dice_low", label="95 % from", group="Bone Dice over series (%)", digits=2),
        Column(key="bone_dice_high", label="to", group="Bone Dice over series (%)", digits=2),
        Column(key="reason", label="State"),
    )
    rows: list[Row] = []
    for network in results.networks:
        epochs = network.trial.settings.train.epochs
        if isinstance(network, Failed):
            rows.append((network.trial.title, epochs, *[None] * 5, f"failed: {network.reason}"))
            continue
        kept = network.card.history[network.card.best_epoch - 1].validation_mean_iou
        found = network.evaluation
        low, high = found.bone_dice_interval or (None, None)
        shares = [None if value is None else 100 * value for value in (kept, found.bone_dice, low, high)]
        rows.append((network.trial.title, epochs, network.seconds / 60, *shares, "finished"))
    return Table(
        name="networks",
        title="The networks, and bone Dice over series",
        protocol=PATIENT,
        note="Bone Dice at full resolution: one value a series, then the mean and its 95 % interval over patients (the "
        f"wider of t and bootstrap-t).{_why_none(results)}",
        columns=columns,
        rows=tuple(rows),
    )


def _why_none(results: Results) -> str:
    """Say why networks have no interval, where one has none."""
    lacking = [found.evaluation for found in results.finished if found.evaluation.bone_dice_interval is None]
    return f" {lacking[0].no_interval()}." if lacking else ""


def _heads() -> tuple[Column, Column]:
    return Column(key="network", label="Network"), Column(key="source", label="Source")
