"""What a sweep found: a row a trial, and the settings of the best one."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from boneseg.models.card import EpochRecord
from boneseg.storage.records import Record

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
"""States of a trial: it had all its epochs, it was ended before, it could not go on."""


class TrialRow(Record):
    """One trial."""

    architecture: str
    encoder: str
    learning_rate: float
    loss: str
    epochs: int
    """Done; fewer than the sweep's where the trial was stopped early."""
    best_mean_iou: float | None
    """Of validation, at the best epoch; none where the trial failed before its first epoch."""
    bone_dice: float | None
    """Of validation, at the last epoch."""
    run: str
    """Name of the training run."""
    error: str | None
    """Why the trial failed."""
    choice: dict[str, Any] = Field(default_factory=dict)
    """Setting by dotted name, such as ``model.encoder`` -> value; empty in records of before spaces."""
    history: tuple[EpochRecord, ...] = ()
    """Every epoch, oldest first."""
    seconds: float = 0.0
    """Wall time in which the trial trained, all its attempts together."""
    device_hours: float = 0.0
    """Hours of GPUs that the trial held, or of CPU processes where there is no GPU."""
    parameters: int | None = None
    """How many numbers the network has; none where it was never built."""
    ms_per_slice: float | None = None
    """Milliseconds of inference a slice, where the trial ran; none where it was not measured."""
    stopped: str | None = None
    """Why the trial ended before its last epoch without a failure, in words."""
    state: str = ""
    """``finished``, ``stopped`` or ``failed``; empty in records of before states."""


class TuneResult(Record):
    """A finished sweep."""

    name: str
    best: dict[str, Any]
    """Settings to train with, by section; see ``apply_best``."""
    table_uri: str
    rows: tuple[TrialRow, ...]
    """Best first, failed ones last."""
    reused: bool
    """Whether the sweep was finished before and no trial ran."""
    space: dict[str, Any] = Field(default_factory=dict)
    """Setting by dotted name -> what it was chosen from, as written in the space; empty in earlier records."""
    scheduler: str = "asha"
    searcher: str = "optuna"
    metric: str = "mean_iou"
    """By which the rows are ranked: ``mean_iou`` or ``bone_dice`` of validation."""
    budget_used: dict[str, float] = Field(default_factory=dict)
    """``trials``, ``hours`` (wall time) and ``device_hours`` that the sweep took; empty in earlier records."""
    ended: str | None = None
    """Why it ended before all its trials were done, such as a budget that was used up; with a larger one it goes on."""
