"""One trial, in whatever process trains it: the plain training loop, with what the conductor wants to hear."""

from __future__ import annotations

import logging
from collections.abc import Callable

from boneseg.models.card import EpochRecord
from boneseg.train.runs import RunRecord
from boneseg.train.train import train_run
from boneseg.train.training_state import StateKeeper
from boneseg.tune.conductor import Order
from boneseg.tune.cost import Cost, cost_of
from boneseg.tune.sweep import Sweep, trial_settings

log = logging.getLogger(__name__)

Tell = Callable[[EpochRecord, Cost], None]
"""Hears of every epoch, those of before an interruption first."""
_MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "outofmemoryerror")


def train_trial(sweep: Sweep, order: Order, tell: Tell) -> None:
    """Train a trial to its last epoch and save its model.

    Raises:
        BonesegError: it cannot be trained, or its loss is not a number.
    """
    settings = trial_settings(sweep.settings, order.choice, order.micro_batch)
    cost = cost_of(settings, sweep.dataset)

    def report(record: EpochRecord) -> None:
        tell(record, cost)

    if order.sources:
        _inherit(sweep, order, RunRecord.of(sweep.dataset.dataset_hash, settings.model, settings.train).identity)
    result = train_run(sweep.workspace, sweep.dataset, settings.model, settings.train, order.run, report, order.slower)
    if result.reused:
        for record in result.history:
            report(record)


def _inherit(sweep: Sweep, order: Order, identity: str) -> None:
    """Give a run the state of another one, where it has none yet."""
    keeper = StateKeeper(sweep.workspace, order.run, identity)
    if keeper.load().epoch:
        return
    for run, its_identity in order.sources:
        state = StateKeeper(sweep.workspace, run, its_identity).load()
        if state.epoch:
            keeper.save(state)
            keeper.wait()
            return


def is_want_of_memory(error: BaseException) -> bool:
    """Say whether an exception, or one that it comes from, says that memory ran out: of a GPU, a process or a node."""
    seen: BaseException | None = error
    while seen is not None:
        words = f"{type(seen).__name__} {seen}".lower()
        if isinstance(seen, MemoryError) or any(word in words for word in _MEMORY_WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
