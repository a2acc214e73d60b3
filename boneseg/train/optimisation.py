"""What changes the weights, and how fast: optimizers, schedules of the learning rate, and when to stop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, AdamW, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from boneseg.models.card import EpochRecord
from boneseg.settings.schema import TrainSettings
from boneseg.train.training_state import TrainingState

log = logging.getLogger(__name__)

WARMUP_SHARE, WARMUP_STEPS, FINAL_SHARE = 0.05, 200, 0.01
RISING_SHARE, FIRST_DIVISOR, LAST_DIVISOR = 0.3, 25.0, 1e4
"""Of ``one-cycle``: the share of steps in which the rate rises, from the highest one divided by 25, to fall to 1/10000
of where it began; as in torch's ``OneCycleLR``."""
HIGH_MOMENTUM, LOW_MOMENTUM = 0.95, 0.85


def build_optimizer(network: nn.Module, settings: TrainSettings) -> Optimizer:
    """Make the optimizer of a run. Adadelta (Zeiler, 2012) has Keras's constants, not torch's."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adadelta":
        return Adadelta(network.parameters(), lr=rate, rho=0.95, eps=1e-7, weight_decay=decay)
    return AdamW(network.parameters(), lr=rate, weight_decay=decay, fused=True)


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Return the rate of a step, counted from 0, by its place among all steps alone; ``plateau`` is constant here."""
    highest = settings.learning_rate
    if settings.schedule == "one-cycle":
        rising, place = _place_in_cycle(step, total)
        first = highest / FIRST_DIVISOR
        return _along_cosine(first, highest, place) if rising else _along_cosine(highest, first / LAST_DIVISOR, place)
    if settings.schedule != "cosine":
        return highest
    warmup = max(1, min(WARMUP_STEPS, round(total * WARMUP_SHARE)))
    if step < warmup:
        return highest * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return highest * (FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2)


def momentum(step: int, total: int) -> float:
    """Return the momentum of ``one-cycle``: low where the rate is high (Smith and Topin, Super-convergence, 2018)."""
    rising, place = _place_in_cycle(step, total)
    start, end = (HIGH_MOMENTUM, LOW_MOMENTUM) if rising else (LOW_MOMENTUM, HIGH_MOMENTUM)
    return _along_cosine(start, end, place)


def lowered_rate(history: Sequence[EpochRecord], settings: TrainSettings) -> float:
    """Return the rate to which ``plateau`` has come after some epochs.

    It is played again each time, so that it is the same after an interruption.
    """
    optimizer = SGD([torch.zeros(1)], lr=settings.learning_rate)
    plateau = ReduceLROnPlateau(optimizer, "max", settings.plateau_factor, settings.plateau_patience)
    for record in history:
        plateau.step(record.validation_mean_iou)
    return float(optimizer.param_groups[0]["lr"])


def stops_early(history: Sequence[EpochRecord], settings: TrainSettings, since: int = 0) -> bool:
    """Say whether training ends after some epochs because validation mean IoU has not risen for too long.

    Args:
        history: the epochs that are done.
        settings: ``early_stopping`` and ``early_stopping_gain`` matter.
        since: epochs that do not count as waiting: those before epochs were added.
    """
    best, waited = -math.inf, 0
    for record in history:
        if record.validation_mean_iou > best + settings.early_stopping_gain:
            best, waited = record.validation_mean_iou, 0
        elif record.epoch > since:
            waited += 1
    return settings.early_stopping is not None and waited >= settings.early_stopping


@dataclass(frozen=True)
class Course:
    """How one epoch goes: from which of its steps on, with which rates, and what is done after each step.

    Attributes:
        settings: of the training.
        before: steps of all epochs before this one.
        total: steps of the whole training.
        rate: to which ``plateau`` has come.
        first: steps of this epoch that were taken before an interruption.
        sums: what they had summed up, over all processes: loss, right pixels.
        after_step: told, after each step, how many steps of the epoch are taken, and this process's sums.
    """

    settings: TrainSettings
    before: int
    total: int
    rate: float
    first: int = 0
    sums: tuple[float, float] = (0.0, 0.0)
    after_step: Callable[[int, Tensor], None] = lambda taken, sums: None

    @staticmethod
    def plain(settings: TrainSettings, epoch: int, steps: int) -> Course:
        """Return a whole epoch of some steps, nothing done after them."""
        return Course(settings, (epoch - 1) * steps, settings.epochs * steps, settings.learning_rate)

    def set_rates(self, optimizer: Optimizer, step: int) -> None:
        """Give an optimizer the rate of a step of this epoch, counted from 0, and with ``one-cycle`` its momentum."""
        overall, schedule = self.before + step, self.settings.schedule
        rate = self.rate if schedule == "plateau" else learning_rate(overall, self.total, self.settings)
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate
            if schedule == "one-cycle" and "betas" in parameters:
                parameters["betas"] = (momentum(overall, self.total), parameters["betas"][1])


def restore(optimizer: Optimizer, state: TrainingState, run: str) -> None:
    """Give the optimizer what it had learned of the gradients, as far as it fits."""
    try:
        optimizer.load_state_dict(state.optimizer)
    except (ValueError, KeyError) as error:
        log.warning("run %s: its optimizer starts anew after epoch %d (%s)", run, state.epoch, error)


def _place_in_cycle(step: int, total: int) -> tuple[bool, float]:
    """Return whether the rate rises, and the share of that half which is done."""
    top = RISING_SHARE * total - 1
    if step <= top:
        return True, step / top if top > 0 else 1.0
    return False, (step - top) / max(total - 1 - top, 1)


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
