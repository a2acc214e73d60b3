"""The trials of a sweep as its report shows them, with what their runs left in the bucket."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from boneseg.errors import RecordError
from boneseg.models.card import CARD_FILE, ModelCard
from boneseg.redaction import redacted
from boneseg.settings.schema import RunSettings
from boneseg.storage import layout
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace
from boneseg.sweep_report.command import readable_command
from boneseg.train.runs import RESULT_FILE, RUN_FILE, RunRecord, TrainResult
from boneseg.tune.records import FAILED, FINISHED, STOPPED, TrialRow, TuneResult

log = logging.getLogger(__name__)

BONE_DICE = "bone_dice"
METRIC_WORDS = {"mean_iou": "mean IoU", BONE_DICE: "bone Dice"}
"""What a sweep ranks by -> what a person reads."""
Kind = TypeVar("Kind", bound=Record)
_PATH = re.compile(r"(?<![\w:/.])/(?:[^\s/:'\"]+/)+(?=[^\s/:'\"]*)")
"""The folders of a path of some machine; URIs and ``architecture/encoder`` are none."""


@dataclass(frozen=True)
class Left:
    """What a trial's run left in the bucket; none of it need be there."""

    record: RunRecord | None = None
    result: TrainResult | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class Trial:
    """One trial."""

    rank: int
    """From 1, the best."""
    network: str
    """Architecture/encoder."""
    settings: dict[str, Any]
    """What it chose, by dotted name."""
    state: str
    """``finished``, ``stopped`` or ``failed``."""
    why: str
    """Why it ended before its last epoch; empty where it did not."""
    epochs: int
    score: float | None
    """By which trials are ranked: the best of ``curve``; none where it never measured any."""
    mean_iou: float | None
    """Of validation, 0 to 1, the best of its epochs."""
    bone_dice: float | None
    """Of validation, 0 to 1, the best of its epochs; that of the last one where nobody noted the others."""
    curve: tuple[float, ...] = field(repr=False)
    """What trials are ranked by, 0 to 1, after each epoch; empty where nobody noted it."""
    seconds: float | None
    device_hours: float | None
    parameters: int | None
    ms_per_slice: float | None
    model_uri: str | None
    """None where it did not finish, or nobody noted it."""
    command: str
    """Trains its settings in full; empty where this version does not know them."""

    @property
    def name(self) -> str:
        """What figures call it."""
        return f"{self.rank}  {self.network}"


def trials_of(
    result: TuneResult, left: Mapping[str, Left], settings: RunSettings, dataset_uri: str | None = None
) -> tuple[Trial, ...]:
    """Return the trials of a sweep, the best first.

    Args:
        result: of the sweep, of this version or an earlier one.
        left: by name of the run.
        settings: of the run around the sweep.
        dataset_uri: for the commands; none = the last one prepared.
    """
    most = max((row.epochs for row in result.rows), default=0)
    made = []
    for rank, row in enumerate(result.rows, start=1):
        found = left.get(row.run, Left())
        command = readable_command(settings, choice_of(row), found.record, dataset_uri)
        made.append(_trial(rank, row, found, most, result.metric, command))
    return tuple(made)


def left_behind(workspace: Workspace, rows: Sequence[TrialRow]) -> dict[str, Left]:
    """Read what the runs of trials left in the bucket."""
    return {row.run: _left(workspace, row) for row in rows}


def varying(trials: Sequence[Trial]) -> list[str]:
    """Return the settings in which trials differ, in the order in which they chose."""
    names = dict.fromkeys(name for trial in trials for name in trial.settings)
    return [name for name in names if len({repr(trial.settings.get(name)) for trial in trials}) > 1]


def choice_of(row: TrialRow) -> dict[str, Any]:
    """Return what a trial chose, by dotted name; records of before spaces have four settings in columns."""
    if row.choice:
        return dict(row.choice)
    return {
        "model.architecture": row.architecture,
        "model.encoder": row.encoder,
        "train.learning_rate": row.learning_rate,
        "train.loss": row.loss,
    }


def without_paths(text: str) -> str:
    """Return a reason without passwords and without the folders of a machine."""
    return _PATH.sub("", redacted(text))


def _trial(rank: int, row: TrialRow, left: Left, most: int, metric: str, command: str) -> Trial:
    state, why = _ending(row, most)
    history = row.history or (left.result.history if left.result is not None else ())
    dice = [record.bone_dice for record in history]
    curve = dice if metric == BONE_DICE else [record.validation_mean_iou for record in history]
    seconds = row.seconds or sum(record.seconds for record in history)
    return Trial(
        rank=rank,
        network=f"{row.architecture}/{row.encoder}",
        settings=choice_of(row),
        state=state,
        why=without_paths(why),
        epochs=row.epochs,
        score=max(curve, default=row.bone_dice if metric == BONE_DICE else row.best_mean_iou),
        mean_iou=row.best_mean_iou,
        bone_dice=max(dice, default=row.bone_dice),
        curve=tuple(curve),
        seconds=seconds or None,
        # Trials of before costs were noted had one process each.
        device_hours=row.device_hours or seconds / 3600 or None,
        parameters=row.parameters if row.parameters is not None else left.parameters,
        ms_per_slice=row.ms_per_slice,
        model_uri=left.result.model_uri if left.result is not None and state == FINISHED else None,
        command=command,
    )


def _ending(row: TrialRow, most: int) -> tuple[str, str]:
    """Return the state of a trial, and why it ended early where it did."""
    if row.error is not None:
        return FAILED, row.error
    if row.state:
        usual = f"it was stopped after epoch {row.epochs}"
        return row.state, (row.stopped or usual) if row.state != FINISHED else ""
    if row.best_mean_iou is None:
        return FAILED, "it ended before it had measured an epoch"
    if row.epochs < most:  # of before states, when ASHA alone could stop a trial
        return STOPPED, f"ASHA stopped it after epoch {row.epochs} of {most}: others were better by then"
    return FINISHED, ""


def _left(workspace: Workspace, row: TrialRow) -> Left:
    record = _read(workspace, RunRecord, layout.run(row.run, RUN_FILE))
    result = _read(workspace, TrainResult, layout.run(row.run, RESULT_FILE))
    card = None
    if result is not None and row.parameters is None:
        card = _read(workspace, ModelCard, layout.model(result.model_hash, CARD_FILE))
    return Left(record, result, card.parameters if card is not None else None)


def _read(workspace: Workspace, kind: type[Kind], key: str) -> Kind | None:
    """Return a record that is whole in the bucket, else none: a report goes without."""
    data = workspace.store.read_if_there(key)
    if data is None:
        return None
    try:
        return kind.read(data, workspace.store.uri(key), "the report of the sweep goes without it")
    except RecordError as error:
        log.warning("%s", error)
        return None
