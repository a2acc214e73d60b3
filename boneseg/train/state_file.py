"""The state of a training run as one file, from which it goes on as if nothing had happened.

Only tensors, numbers and text are in it; it is read with ``weights_only=True``, so that it cannot run code.
"""

from __future__ import annotations

import logging
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boneseg.atomic_write import atomic_write
from boneseg.errors import StoreError
from boneseg.models.card import Continuation, EpochRecord

log = logging.getLogger(__name__)

Weights = dict[str, Tensor]


@dataclass
class TrainingState:
    """Where a run is: between two epochs, or between two steps of one.

    Between epochs no random numbers are in it: they are drawn anew from the seed and the epoch's number.
    """

    epoch: int = 0
    """Epochs that are done."""
    history: tuple[EpochRecord, ...] = ()
    best_epoch: int = 0
    best_weights: Weights = field(default_factory=dict)
    """Of the best epoch so far."""
    weights: Weights = field(default_factory=dict)
    """Of the last step."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    computed: str = ""
    """Where and in which number format the last epochs were computed."""
    step: int = 0
    """Steps that are done of the epoch after ``epoch``."""
    sums: tuple[float, float] = (0.0, 0.0)
    """Of these steps, over all processes: loss, pixels that were right."""
    seconds: float = 0.0
    """That these steps took."""
    random: list[dict[str, Tensor]] = field(default_factory=list)
    """Of each process, in order of rank, the states of torch's random numbers; empty between epochs."""
    averaged: Weights = field(default_factory=dict)
    """The moving average of the weights, where the settings want one."""
    continued: tuple[Continuation, ...] = ()
    """When epochs were added."""

    @property
    def position(self) -> tuple[int, int]:
        """Epochs done, and steps of the next one."""
        return self.epoch, self.step

    @property
    def has_begun(self) -> bool:
        """Whether a step was taken."""
        return self.position > (0, 0)

    @property
    def measured(self) -> Weights:
        """The weights that are validated and saved: averaged ones where there are."""
        return self.averaged or self.weights

    @property
    def best_mean_iou(self) -> float:
        """Validation mean IoU of the best epoch; -1 before the first one."""
        return self.history[self.best_epoch - 1].validation_mean_iou if self.best_epoch else -1.0


def write_state(path: Path, state: TrainingState, identity: str) -> None:
    """Write a state; the file appears whole or not at all.

    Raises:
        StoreError: the disk is full.
    """
    just_best = state.step == 0 and state.best_epoch == state.epoch
    content = {
        "identity": identity,
        "epoch": state.epoch,
        "history": [record.model_dump_json() for record in state.history],
        "best_epoch": state.best_epoch,
        # Two names of one tensor are stored once.
        "best_weights": state.measured if just_best else state.best_weights,
        "weights": state.weights,
        "optimizer": state.optimizer,
        "computed": state.computed,
        "step": state.step,
        "sums": state.sums,
        "seconds": state.seconds,
        "random": state.random,
        "averaged": state.averaged,
        "continued": [each.model_dump_json() for each in state.continued],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(path, sole_writer=True) as partial:
            torch.save(content, partial)
    except (OSError, RuntimeError) as error:
        raise StoreError(
            f"{path.parent}: cannot write the training state ({type(error).__name__}); free some space there "
            "and start the run again to continue it"
        ) from error


def read_state(path: Path, identity: str) -> TrainingState | None:
    """Read a state of this or an earlier version.

    Returns:
        The state; an empty one where there is none or it belongs to other settings; none where it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums it wrote
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{damaged} does not have its checksum")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if content.pop("identity") != identity:
            return TrainingState()
        content["history"] = tuple(EpochRecord.model_validate_json(text) for text in content["history"])
        content["continued"] = tuple(Continuation.model_validate_json(text) for text in content.get("continued", ()))
        return TrainingState(**content)
    except FileNotFoundError:
        return TrainingState()
    except Exception as error:  # torch raises whatever damaged bytes lead to
        log.debug("a training state cannot be read", exc_info=error)
        return None
