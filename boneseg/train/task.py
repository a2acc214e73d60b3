"""What one process of a training run is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from boneseg.dataset.manifest import ShardRecord
from boneseg.models.card import EpochRecord
from boneseg.scheme import Labelling
from boneseg.scheme.labelling import THREE_CLASSES
from boneseg.settings.schema import ModelSettings, TrainSettings
from boneseg.storage.workspace import Workspace

Report = Callable[[EpochRecord], None]
"""Hears of every epoch once it is saved, first of those before an interruption: where a log, Ray Train or a sweep
listens. Raises TrainingStopped where training is to end there."""


class TrainingStopped(Exception):  # noqa: N818 (nothing is wrong)
    """Whoever listens wants no further epoch. The state stays, so that the run can go on."""


@dataclass(frozen=True)
class Base:
    """The finished run from whose last state another one goes on."""

    run: str
    identity: str


@dataclass(frozen=True)
class Task:
    """What to train, on what, under which name. Crosses process borders."""

    workspace: Workspace
    run: str
    identity: str
    model: ModelSettings
    settings: TrainSettings
    training: tuple[ShardRecord, ...]
    validation: tuple[ShardRecord, ...]
    labelling: Labelling = THREE_CLASSES
    """What the values of the labels are."""
    base: Base | None = None
    """What to go on from where this run has no state yet; none = from the start."""
    slower: int = 0
    """Ways to compute that are passed over, from the fastest on: a process died computing so."""
