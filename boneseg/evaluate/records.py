"""What an evaluation keeps: raw counts a series, tables, and all that a comparison of two models needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from pydantic import Field

from boneseg.errors import RecordError
from boneseg.evaluate.names import NETWORK, THRESHOLD
from boneseg.identity import stable_hash
from boneseg.metrics import counts
from boneseg.metrics.statistics import too_few
from boneseg.scheme import BONE_SCHEME, LabelScheme
from boneseg.scheme.roles import BONE
from boneseg.settings import identities
from boneseg.settings.schema import EvaluateSettings
from boneseg.storage.catalogue import Problem
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace

Cell = str | int | float | None
"""Content of a table; none = not defined, shown as a dash."""
CountRow = tuple[int, ...]
"""Nine pixel counts: reference class by reference class, the predicted classes side by side."""

BONE_GROUP = "bone"
"""All bones together, in every scheme."""

PAPER = "paper"
"""Protocol: pixels pooled over the test set per class."""
PATIENT = "patient"
"""Protocol: one value a series, then mean, spread and 95 % interval over patients."""

EVALUATE_VERSION = 5
"""Raise it with every change of a number or of the report: evaluations that are kept are made again."""


class RegionMeasure(Record):
    """One bone or group of bones of one series, under a method that tells it apart."""

    name: str
    hits: int
    """Voxels that both have."""
    missed: int
    extra: int
    untold: int
    """Voxels of which the label does not say whether they belong to it; they do not count."""
    hd95_mm: float | None
    average_surface_mm: float | None
    normalised_surface: float | None
    """All three none: neither mask has it, or the label is silent of a part of it."""

    def dice(self) -> float | None:
        """Return the Dice, 0 to 1; none where neither mask has it, and where the label is silent of it."""
        below = 2 * self.hits + self.missed + self.extra
        return 2 * self.hits / below if below and not self.silent else None

    @property
    def silent(self) -> bool:
        """Whether the label has no voxel that surely belongs to it and some that may: what is found cannot be right."""
        return self.untold > 0 and self.hits + self.missed == 0


class ClassCounts(Record):
    """Voxels of one series by value of the label and predicted class of the same scheme; what is 0 is left out."""

    sets: tuple[tuple[int, ...], ...]
    """The label's values above the classes: each the classes that it may be."""
    full: tuple[tuple[int, int, int], ...]
    """Value, class, voxels; at full resolution."""
    output: tuple[tuple[int, int, int], ...] | None
    """The same at the size of the network's own output; none = that is the full resolution, or there is no network."""

    @classmethod
    def of(cls, sets: tuple[tuple[int, ...], ...], full: counts.Counts, output: counts.Counts | None) -> ClassCounts:
        """Keep tables (values, classes)."""
        return cls(sets=sets, full=_cells(full), output=None if output is None else _cells(output))

    def table(self, classes: int, on_output: bool = False) -> counts.Counts:
        """Return the voxels, (values, classes): reference by prediction."""
        found = np.zeros((classes + len(self.sets), classes), dtype=np.int64)
        for value, predicted, voxels in self.full if self.output is None or not on_output else self.output:
            found[value, predicted] = voxels
        return found


def _cells(table: counts.Counts) -> tuple[tuple[int, int, int], ...]:
    return tuple((int(value), int(predicted), int(table[value, predicted])) for value, predicted in np.argwhere(table))


class Measurement(Record):
    """One method on one series. Everything in the tables can be computed again from these, without the method."""

    method: str
    """Hash of the method: a model's hash, or that of the classical method with its settings."""
    content: str
    """Hash of the series and its label."""
    spacing_mm: tuple[float, float, float]
    """Slice, row, column."""
    tolerance_mm: float
    slices: tuple[CountRow, ...]
    """Pixel counts of each slice at full resolution, feet to head."""
    output_slices: tuple[CountRow, ...] | None = None
    """The same at the size of the network's own output; none = that is the full resolution, or there is no network."""
    hd95_mm: float | None
    average_surface_mm: float | None
    normalised_surface: float | None
    """Bone surface within the tolerance, 0 to 1. All three none: neither reference nor prediction holds bone."""
    regions: tuple[RegionMeasure, ...] = ()
    """Each class but the background, and each group, that the method's scheme and the label's share by name."""
    classes: ClassCounts | None = None
    """None: the scheme has the three common classes alone, or the label is of another scheme."""

    def slice_counts(self) -> counts.Counts:
        """Return the counts of each slice, (slices, 3, 3): reference by prediction."""
        return np.array(self.slices, dtype=np.int64).reshape(-1, counts.COMMON, counts.COMMON)

    def output_counts(self) -> counts.Counts:
        """Return the counts of each slice at the size of the network's own output, (slices, 3, 3)."""
        rows = self.slices if self.output_slices is None else self.output_slices
        return np.array(rows, dtype=np.int64).reshape(-1, counts.COMMON, counts.COMMON)

    def series_counts(self) -> counts.Counts:
        """Return the counts of the whole series, (3, 3)."""
        total: counts.Counts = self.slice_counts().sum(axis=0)
        return total

    def dice_of(self, region: str) -> float | None:
        """Return the Dice of a bone or group by its name.

        None where it is not measured or neither mask has it, and where the label does not tell everywhere: what is
        found there counts for nothing, so that a network which finds it everywhere would gain by it.
        """
        if region == BONE_GROUP:
            return self.bone_dice()
        found = self.region(region)
        return None if found is None or found.untold else found.dice()

    def tells(self, name: str) -> bool:
        """Say whether the label tells of every voxel whether it belongs to a class or group."""
        found = self.region(name)
        return found is None or not found.untold

    def region(self, name: str) -> RegionMeasure | None:
        """Return a class or group by its name; none where it is not measured."""
        return next((found for found in self.regions if found.name == name), None)

    def bone_dice(self) -> float | None:
        """Return the Dice of bone over the series, 0 to 1; none where nobody has any or the label is silent."""
        return None if not self.tells(BONE_GROUP) else known(counts.dice(self.series_counts())[BONE])


class SeriesResult(Record):
    """One test series under every method."""

    series: str
    """Content hash: the series' name everywhere."""
    content: str
    """Hash of the series and its label."""
    patient: str
    """Keyed hash of the patient."""
    network: Measurement
    threshold: Measurement
    others: dict[str, Measurement] = Field(default_factory=dict)
    """Further methods by name."""

    @property
    def methods(self) -> dict[str, Measurement]:
        """Every method by name, the network first."""
        return {NETWORK: self.network, THRESHOLD: self.threshold, **self.others}

    @property
    def name(self) -> str:
        """What tables and figures call the series."""
        return self.series[:8]

    @property
    def images(self) -> int:
        """Slices."""
        return len(self.network.slices)


class Column(Record):
    """A column of a table."""

    key: str
    """In CSV, such as ``iou_bone_percent``."""
    label: str
    group: str = ""
    """Heading over several columns."""
    digits: int | None = None
    """Decimals of a number; none = text or whole numbers."""


class Table(Record):
    """A table with all its words, so that CSV, JSON, Markdown and HTML show the same."""

    name: str
    """File name without ending."""
    title: str
    protocol: str
    """``paper`` or ``patient``; empty where nothing is measured on a test set."""
    note: str
    """What the numbers mean."""
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folds: tuple[str, ...] = ()
    """For each row what it is folded away under, empty = always shown; none at all where rows are few."""
    rank: str = ""
    """Key of the column by which, lowest first, rows are chosen where only some are shown."""

    def dicts(self) -> list[dict[str, Cell]]:
        """Return the rows by the keys of their columns."""
        keys = [column.key for column in self.columns]
        return [dict(zip(keys, row, strict=True)) for row in self.rows]


class SplitSummary(Record):
    """How much data one split holds."""

    split: str
    series: int
    patients: int
    slices: int


class EvaluationResult(Record):
    """A model measured on a test set. Shares lie within 0..1; the tables show them in percent."""

    evaluation_hash: str
    evaluation_uri: str
    report_uri: str
    model_hash: str
    test_hash: str
    """Two models are comparable where this is equal."""
    dataset_hash: str | None
    """None: evaluated on a folder."""
    ensemble: tuple[str, ...] = ()
    """Hashes of the models whose ensemble stands beside the network, in order; none = there is none."""
    name: str
    """Architecture/encoder."""
    epoch: int
    """The epoch that was kept."""
    scheme: LabelScheme = BONE_SCHEME
    """The model's classes."""
    settings: EvaluateSettings
    data: tuple[SplitSummary, ...]
    series: tuple[SeriesResult, ...]
    tables: tuple[Table, ...]
    problems: tuple[Problem, ...]
    patients_told: str = ""
    """How patients were told apart, in a sentence."""
    validates_on_training: bool = False
    """Whether the epoch was chosen on the training series, for want of patients."""
    bone_dice: float | None
    """Network, patient protocol: mean over series. All figures here are at full resolution."""
    bone_dice_interval: tuple[float, float] | None
    """95 % interval over patients; none with too few of them."""
    bone_dice_pooled: float | None
    """Network, all test pixels at full resolution pooled."""
    threshold_bone_dice: float | None
    threshold_bone_dice_interval: tuple[float, float] | None
    threshold_bone_dice_pooled: float | None
    confusion: tuple[tuple[int, int, int], ...]
    """Network, all test pixels: reference by prediction."""
    files: tuple[str, ...]
    """Beside ``evaluation.json``: report, tables, plots."""
    versions: dict[str, str]
    reused: bool = False
    """Whether this very evaluation was there already."""

    def table(self, name: str) -> Table:
        """Return a table by its name."""
        return next(table for table in self.tables if table.name == name)

    def dice_by_series(self, region: str = BONE_GROUP) -> dict[str, float]:
        """Return the network's Dice of every series that has one, for a paired comparison of two models.

        Args:
            region: all bones together, or a bone or group of the scheme.
        """
        values = {row.series: row.network.dice_of(region) for row in self.series}
        return {series: value for series, value in values.items() if value is not None}

    def patients(self) -> dict[str, str]:
        """Return the patient of every series."""
        return {row.series: row.patient for row in self.series}

    def no_interval(self) -> str:
        """Say why the network's bone Dice has no interval, where it has none."""
        return too_few(len({row.patient for row in self.series if row.network.bone_dice() is not None}))

    def scalars(self) -> dict[str, float]:
        """Return the figures a person compares runs by, flat; what is not defined is left out."""
        pooled = self.table("class_wise")
        network = dict(zip([column.key for column in pooled.columns], pooled.rows[0], strict=True))
        values: dict[str, Cell] = {
            "bone_dice_patient": self.bone_dice,
            "bone_dice_pooled": self.bone_dice_pooled,
            "threshold_bone_dice_patient": self.threshold_bone_dice,
            "threshold_bone_dice_pooled": self.threshold_bone_dice_pooled,
            "test_series": float(len(self.series)),
            "test_patients": float(len(set(self.patients().values()))),
            "test_images": float(sum(row.images for row in self.series)),
            **{key: value for key, value in network.items() if key.endswith("_percent")},
            **self._by_bone(),
        }
        return {key: float(value) for key, value in values.items() if isinstance(value, float)}

    def headline_scalars(self) -> dict[str, float]:
        """Return ``scalars`` without those of the bones that tables fold away."""
        folded = {
            key
            for table in self.tables
            if table.name == "bones" and table.folds
            for row, fold in zip(table.rows, table.folds, strict=True)
            if fold
            for key in _bone_keys(row[0])
        }
        return {key: value for key, value in self.scalars().items() if key not in folded}

    def _by_bone(self) -> dict[str, Cell]:
        """Return Dice (0 to 1) and HD95 of every group and bone, and how much of left and right was mistaken."""
        tables = {table.name: table for table in self.tables}
        values: dict[str, Cell] = {}
        for row in tables["bones"].dicts() if "bones" in tables else ():
            dice = row["dice_percent"]
            share = dice / 100 if isinstance(dice, float) else None
            values |= dict(zip(_bone_keys(row["bone"]), (share, row["hd95_mm"]), strict=True))
        values.pop(_bone_keys(BONE_GROUP)[0], None)  # it is there by itself, to the last digit
        if "sides" in tables:
            together = tables["sides"].dicts()[-1]
            values |= {key: together[key] for key in ("left_as_right_percent", "right_as_left_percent")}
        return values


def _bone_keys(name: Cell) -> tuple[str, str]:
    """Return what the figures of a bone or group are called among ``scalars``."""
    slug = str(name).replace(" ", "_")
    return f"{slug}_dice_patient", f"{slug}_hd95_mm"


def load_evaluation(workspace: Workspace, uri: str) -> EvaluationResult:
    """Read an evaluation back.

    Raises:
        StoreError: it is not in the bucket.
        RecordError: it is damaged, or was changed after it was written.
    """
    remedy = "evaluate again with 'boneseg evaluate', which makes it anew"
    result = read_evaluation(workspace.store.read(workspace.store.key(uri)), uri, remedy)
    if PurePosixPath(workspace.store.key(uri)).parent.name != result.evaluation_hash:
        raise RecordError(f"{uri} was changed after it was written; {remedy}")
    return result


def read_evaluation(data: bytes, place: str, remedy: str) -> EvaluationResult:
    """Read an evaluation back as ``Record.read`` does; one of this version must have its seal.

    Raises:
        RecordError: it is damaged, or was changed after it was written.
    """
    result = EvaluationResult.read(data, place, remedy)
    named = evaluation_identity(result.model_hash, result.test_hash, result.settings, result.ensemble)
    return (
        EvaluationResult.read(data, place, remedy, must_be_sealed=True) if result.evaluation_hash == named else result
    )


def evaluation_identity(
    model_hash: str, test_hash: str, settings: EvaluateSettings, ensemble: Sequence[str] = ()
) -> str:
    """Return the name of what this version of the code measures; without an ensemble that does not count."""
    decisive = identities.EVALUATE.select(settings.model_dump(mode="json"))
    beside = [sorted(ensemble)] if ensemble else []
    return stable_hash([model_hash, test_hash, decisive, EVALUATE_VERSION, *beside])


def known(value: float) -> float | None:
    """Return a number, or none where it is not one: JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
