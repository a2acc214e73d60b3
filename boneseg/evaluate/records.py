"""What an evaluation keeps: raw counts a series, tables, and all that a comparison of two models needs."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from boneseg.errors import RecordError
from boneseg.identity import stable_hash
from boneseg.metrics import counts
from boneseg.metrics.statistics import too_few
from boneseg.scheme import BONE
from boneseg.settings import identities
from boneseg.settings.schema import EvaluateSettings
from boneseg.storage.catalogue import Problem
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace

Cell = str | int | float | None
"""Content of a table; none = not defined, shown as a dash."""
CountRow = tuple[int, ...]
"""Nine pixel counts: reference class by reference class, the predicted classes side by side."""

PAPER = "paper"
"""Protocol: pixels pooled over the test set per class."""
PATIENT = "patient"
"""Protocol: one value a series, then mean, spread and 95 % interval over patients."""

EVALUATE_VERSION = 4
"""Raise it with every change of a number or of the report: evaluations that are kept are made again."""


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

    def slice_counts(self) -> counts.Counts:
        """Return the counts of each slice, (slices, 3, 3): reference by prediction."""
        return np.array(self.slices, dtype=np.int64).reshape(-1, counts.SIZE, counts.SIZE)

    def output_counts(self) -> counts.Counts:
        """Return the counts of each slice at the size of the network's own output, (slices, 3, 3)."""
        rows = self.slices if self.output_slices is None else self.output_slices
        return np.array(rows, dtype=np.int64).reshape(-1, counts.SIZE, counts.SIZE)

    def series_counts(self) -> counts.Counts:
        """Return the counts of the whole series, (3, 3)."""
        total: counts.Counts = self.slice_counts().sum(axis=0)
        return total

    def bone_dice(self) -> float | None:
        """Return the Dice of bone over the series, 0 to 1; none where neither mask holds bone."""
        return known(counts.dice(self.series_counts())[BONE])


class SeriesResult(Record):
    """One test series under both methods."""

    series: str
    """Content hash: the series' name everywhere."""
    content: str
    """Hash of the series and its label."""
    patient: str
    """Keyed hash of the patient."""
    network: Measurement
    threshold: Measurement

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
    name: str
    """Architecture/encoder."""
    epoch: int
    """The epoch that was kept."""
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

    def bone_dice_by_series(self) -> dict[str, float]:
        """Return the network's bone Dice of every series that has one, for a paired comparison of two models."""
        values = {row.series: row.network.bone_dice() for row in self.series}
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
        }
        return {key: float(value) for key, value in values.items() if isinstance(value, float)}


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
    named = evaluation_identity(result.model_hash, result.test_hash, result.settings)
    return (
        EvaluationResult.read(data, place, remedy, must_be_sealed=True) if result.evaluation_hash == named else result
    )


def evaluation_identity(model_hash: str, test_hash: str, settings: EvaluateSettings) -> str:
    """Return the name of what this version of the code measures."""
    decisive = identities.EVALUATE.select(settings.model_dump(mode="json"))
    return stable_hash([model_hash, test_hash, decisive, EVALUATE_VERSION])


def known(value: float) -> float | None:
    """Return a number, or none where it is not one: JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
