"""What changes the weights, and how fast: optimizers and schedules of the learning rate."""

from __future__ import annotations

import logging
import math

from torch import nn
from torch.optim import Adadelta, AdamW, Optimizer

from boneseg.settings.schema import TrainSettings
from boneseg.train.training_state import TrainingState

log = logging.getLogger(__name__)

WARMUP_SHARE, WARMUP_STEPS, FINAL_SHARE = 0.05, 200, 0.01


def build_optimizer(network: nn.Module, settings: TrainSettings) -> Optimizer:
    """Make the optimizer of a run. Adadelta (Zeiler, 2012) has Keras's constants, not torch's."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adadelta":
        return Adadelta(network.parameters(), lr=rate, rho=0.95, eps=1e-7, weight_decay=decay)
    return AdamW(network.parameters(), lr=rate, weight_decay=decay, fused=True)


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Return the rate of a step, counted from 0: constant, or linear warm-up and half a cosine down to 1 %."""
    highest = settings.learning_rate
    if settings.schedule == "constant":
        return highest
    warmup = max(1, min(WARMUP_STEPS, round(total * WARMUP_SHARE)))
    if step < warmup:
        return highest * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return highest * (FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2)


def restore(optimizer: Optimizer, state: TrainingState, run: str) -> None:
    """Give the optimizer what it had learned of the gradients, as far as it fits."""
    try:
        optimizer.load_state_dict(state.optimizer)
    except (ValueError, KeyError) as error:
        log.warning("run %s: its optimizer starts anew after epoch %d (%s)", run, state.epoch, error)
