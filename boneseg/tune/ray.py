"""Ray Tune: the trials of one process each, side by side on a cluster, as the conductor orders them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from boneseg.errors import BonesegError, SettingsError
from boneseg.models.card import EpochRecord
from boneseg.ray_cluster.connect import cluster
from boneseg.ray_cluster.exit_cause import FAULTS, cause_of_death, note_death, noted_signal
from boneseg.ray_cluster.outcome import ERROR
from boneseg.ray_cluster.resources import share, storage_path
from boneseg.tune.conductor import Conductor, Order
from boneseg.tune.cost import Cost
from boneseg.tune.sweep import Sweep
from boneseg.tune.trial import is_want_of_memory, train_trial

log = logging.getLogger(__name__)

ORDER, NUMBER, RECORD, COST, TRANSIENT = "order", "number", "record", "cost", "transient"
"""Names under which a trial gets its order, and reports."""
FORGOTTEN_ORDER = "its process reported nothing"


def run_trials(conductor: Conductor) -> None:
    """Run a sweep's trials side by side until the conductor has no more; one that fails does not stop the others.

    Raises:
        SettingsError: there is a budget of GPU hours and no GPU, or another driver took the sweep over.
    """
    sweep, parallel = conductor.sweep, conductor.settings.parallel
    # Tune would answer Ctrl-C with the results so far, as if it were done.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    with cluster(parallel, sweep.workspace):
        check_gpu_budget(conductor)
        resources = share(parallel)
        stage = _Stage(conductor, resources["gpu"] or 1.0, resources["gpu"] > 0, sweep.workspace.folder / FAULTS)
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trial, sweep=sweep), resources),
            param_space={},
            tune_config=tune.TuneConfig(
                num_samples=-1,  # until the searcher has no more
                search_alg=_Orders(stage, parallel),
                scheduler=_Decisions(stage),
                reuse_actors=True,  # a new process for each trial would import torch each time
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=sweep.name, storage_path=storage_path(sweep.workspace), verbose=0, callbacks=[_Ends(stage)]
            ),
        )
        tuner.fit()
    if conductor.fault is not None:
        raise conductor.fault


def check_gpu_budget(conductor: Conductor) -> None:
    """Refuse a budget of GPU hours where no GPU is."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if conductor.settings.gpu_hours is not None and not resources.get("GPU"):
        raise SettingsError("tune.gpu_hours is a budget of GPU hours, and there is no GPU here; set tune.hours instead")


def _trial(config: dict[str, Any], sweep: Sweep) -> None:
    """Do one trial, reporting after each epoch. Ray ends the work where the conductor stops it."""
    note_death(sweep.workspace.folder / FAULTS, {"trial": tune.get_context().get_trial_id()})

    def tell(record: EpochRecord, cost: Cost) -> None:
        tune.report({RECORD: record.model_dump_json(), COST: json.dumps(asdict(cost))})

    try:
        train_trial(sweep, _order(config[ORDER]), tell)
    except BonesegError as error:  # a pair that does not work, a loss that diverged: a row of the table
        tune.report({ERROR: str(error), TRANSIENT: error.transient})


def _order(text: str) -> Order:
    values = json.loads(text)
    return Order(**{**values, "sources": tuple((run, identity) for run, identity in values["sources"])})


class _Stage:
    """What the three parts of Tune that follow the conductor share."""

    def __init__(self, conductor: Conductor, devices: float, has_gpus: bool, faults: Path) -> None:
        self.conductor, self.devices, self.has_gpus, self.faults = conductor, devices, has_gpus, faults

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles its parts for a resume of its own, which nobody wants here.
        return object, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Stage:
        return self

    def safely(self, action: Callable[[], object]) -> object:
        """Do something; what cannot go on ends the sweep once its trials have heard of it."""
        if self.conductor.fault is not None:
            return True
        try:
            return action()
        except BonesegError as error:
            self.conductor.fault = error
            return True


class _Orders(Searcher):
    """Tune's searcher: whatever the conductor orders next."""

    def __init__(self, stage: _Stage, parallel: int) -> None:
        super().__init__()
        self._stage, self._parallel = stage, parallel

    def suggest(self, trial_id: str) -> Any:
        """Return the next order, none for now, or that there is none any more."""
        conductor = self._stage.conductor
        if conductor.fault is not None or conductor.is_done:
            return Searcher.FINISHED
        if conductor.running >= self._parallel:
            return None
        order = self._stage.safely(conductor.next)
        if not isinstance(order, Order):
            return None
        return {ORDER: json.dumps(asdict(order)), NUMBER: order.number}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: ``_Ends`` knows more."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is what a sweep goes on from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Decisions(FIFOScheduler):
    """Tune's scheduler: stops what the conductor stops."""

    def __init__(self, stage: _Stage) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stage = stage

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Hand an epoch to the conductor."""
        if RECORD not in result or result.get("done") or ERROR in result:
            return str(TrialScheduler.CONTINUE)
        record, cost = EpochRecord.model_validate_json(result[RECORD]), Cost(**json.loads(result[COST]))
        conductor, number = self._stage.conductor, trial.config[NUMBER]
        stops = self._stage.safely(lambda: conductor.heard(number, record, cost.parameters, cost.ms_per_slice))
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)


class _Ends(tune.Callback):
    """Tells the conductor of beginnings and ends."""

    def __init__(self, stage: _Stage) -> None:
        self._stage = stage

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A process was found for a trial."""
        stage = self._stage
        stage.safely(lambda: stage.conductor.begun(trial.config[NUMBER], stage.devices, stage.has_gpus))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial's work returned, or the conductor stopped it."""
        conductor, number, last = self._stage.conductor, trial.config[NUMBER], trial.last_result or {}
        if ERROR in last and last.get(TRANSIENT):
            self._stage.safely(lambda: conductor.lost(number, last[ERROR]))
        elif ERROR in last:
            self._stage.safely(lambda: conductor.failed(number, last[ERROR]))
        elif RECORD in last:
            self._stage.safely(lambda: conductor.finished(number))
        else:
            self._stage.safely(lambda: conductor.lost(number, FORGOTTEN_ORDER))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial's process is gone, or raised what nobody foresaw."""
        conductor, number = self._stage.conductor, trial.config[NUMBER]
        error = trial.get_pickled_error() or trial.get_error() or RuntimeError("its process failed")
        text = str(error).strip()
        key = {"trial": trial.trial_id}
        if is_want_of_memory(error):
            self._stage.safely(lambda: conductor.ran_out_of_memory(number))
        elif isinstance(error, RayActorError) or "actor died" in text.lower():
            cause = cause_of_death(self._stage.faults, key)
            if noted_signal(self._stage.faults, key) is not None:
                self._stage.safely(lambda: conductor.died(number, cause))
            else:
                self._stage.safely(lambda: conductor.lost(number, f"its process {cause}"))
        else:
            self._stage.safely(lambda: conductor.failed(number, text.splitlines()[-1] if text else repr(error)))
