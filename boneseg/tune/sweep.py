"""What all trials of a sweep share, and the settings of one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from boneseg.dataset.manifest import Dataset
from boneseg.encoder_compatibility import TIMM
from boneseg.errors import SettingsError
from boneseg.settings.probed_pairs import faults_of
from boneseg.settings.schema import RunSettings, TrainSettings
from boneseg.storage.workspace import Workspace
from boneseg.train.runs import RunRecord
from boneseg.tune.space import Choice, apply_best, overrides

MICRO_BATCH = "micro_batch"
"""Setting of training: slices that are computed at once; a smaller one needs less memory and changes no result."""


@dataclass(frozen=True)
class Sweep:
    """What all trials share. Crosses process borders."""

    name: str
    workspace: Workspace
    dataset: Dataset
    settings: RunSettings

    def run_of(self, choice: Choice) -> RunRecord | None:
        """Return the training run that a choice stands for; none where its settings cannot work together."""
        try:
            chosen = trial_settings(self.settings, choice)
        except SettingsError:
            return None
        pair = chosen.model.architecture, chosen.model.encoder
        if pair[1].startswith(TIMM) and faults_of([pair], self.workspace.folder)[0]:
            return None
        return RunRecord.of(self.dataset.dataset_hash, chosen.model, chosen.train)


def trial_settings(settings: RunSettings, choice: Choice, micro_batch: int | None = None) -> RunSettings:
    """Return a trial's settings: the sweep's epochs, its own choice, and what plays no part as it is by default.

    Raises:
        SettingsError: what was chosen cannot work together.
    """
    chosen = apply_best(settings, overrides(choice))
    changes: dict[str, Any] = {"epochs": settings.tune.epochs}
    if settings.train.workers == 1:
        changes["backend"] = "local"
    if micro_batch is not None and has_micro_batch():
        changes[MICRO_BATCH] = micro_batch
    model, preprocess = chosen.model, chosen.model.preprocess
    if preprocess.slices == 1 and preprocess.slice_distance_mm is not None:  # of neighbours that are not looked at
        model = model.model_copy(update={"preprocess": preprocess.model_copy(update={"slice_distance_mm": None})})
    return chosen.model_copy(update={"model": model, "train": chosen.train.model_copy(update=changes)})


def has_micro_batch() -> bool:
    """Say whether training can compute a batch in smaller pieces."""
    return MICRO_BATCH in TrainSettings.model_fields
