"""The six stages one after another, each remembering what it made so that the next can be started alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boneseg.atomic_write import atomic_write_bytes
from boneseg.errors import DataError, RecordError
from boneseg.settings.schema import RunSettings
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace

if TYPE_CHECKING:
    from boneseg.dataset.prepare import PrepareResult
    from boneseg.evaluate.records import EvaluationResult
    from boneseg.ingest.pull import PullResult
    from boneseg.registry.publish import PublishResult
    from boneseg.sweep_report.sweep_report import SweepReport
    from boneseg.train.runs import TrainResult
    from boneseg.tune.tune import TuneResult

log = logging.getLogger(__name__)


class Latest(Record):
    """What the stages made last in this work folder and bucket."""

    catalogue_uri: str | None = None
    dataset_uri: str | None = None
    best: str | None = None
    """Overrides found by the last sweep, as JSON."""
    sweep: str | None = None
    """Name of the last sweep."""
    model_uri: str | None = None
    evaluation_uri: str | None = None


class Stages:
    """The stages on one workspace with one set of settings. Heavy libraries load when a stage that needs them starts.

    Args:
        workspace: bucket and local folder.
        settings: of the run.
    """

    def __init__(self, workspace: Workspace, settings: RunSettings) -> None:
        self.workspace = workspace
        self.settings = settings

    @property
    def _memory(self) -> Path:
        return self.workspace.folder / f"latest-{self.workspace.store.bucket}.json"

    @property
    def latest(self) -> Latest:
        """Return what the stages made last."""
        if not self._memory.is_file():
            return Latest()
        try:
            return Latest.read(self._memory.read_bytes(), str(self._memory), "what the stages made last is forgotten")
        except RecordError as error:
            log.warning("%s", error)
            return Latest()

    def _remember(self, **made: str | None) -> None:
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(self._memory, self.latest.model_copy(update=made).to_json())

    def pull(self) -> PullResult:
        """Find out what the bucket holds."""
        from boneseg.ingest.pull import pull

        run = self.settings
        result = pull(
            self.workspace, run.store, run.pull, run.publish.model_name, run.prepare.splits.override, run.scheme
        )
        self._remember(catalogue_uri=result.catalogue_uri)
        return result

    def prepare(self, catalogue_uri: str | None = None) -> PrepareResult:
        """Make shards and a dataset of a catalogue; none = of the last pull."""
        from boneseg.dataset.prepare import prepare

        catalogue = _given(catalogue_uri or self.latest.catalogue_uri, "catalogue", "boneseg pull")
        result = prepare(self.workspace, catalogue, self.settings.prepare, self.settings.scheme)
        self._remember(dataset_uri=result.dataset_uri)
        return result

    def tune(self, dataset_uri: str | None = None, resume: str | None = None) -> TuneResult:
        """Search for the best settings on a dataset; none = on the last one prepared.

        ``resume`` goes on with a sweep that was started before, by its name; empty = with the unfinished one.
        """
        from boneseg.tune.resume import to_resume
        from boneseg.tune.tune import tune

        settings = self.settings
        if resume is not None:
            dataset_uri, settings = to_resume(self.workspace, resume, settings)
        result = tune(self.workspace, self._dataset(dataset_uri), settings)
        self._remember(best=json.dumps(result.best), sweep=result.name)
        return result

    def sweep_report(self, name: str | None = None, best: int = 0, out: Path | None = None) -> SweepReport:
        """Write the report of a sweep; none = of the last one. ``best``: how many to measure, alone and together."""
        from boneseg.sweep_report.sweep_report import report_sweep

        sweep = _given(name or self.latest.sweep, "sweep", "boneseg tune")
        dataset = self._dataset(None) if best else self.latest.dataset_uri
        return report_sweep(self.workspace, sweep, self.settings, dataset, best, out)

    def train(self, dataset_uri: str | None = None, tuned: bool = False) -> TrainResult:
        """Train on a dataset; none = on the last one prepared. ``tuned`` applies what the last sweep found."""
        from boneseg.tracking import trackers
        from boneseg.train.train import train

        settings = self.settings
        if tuned:
            from boneseg.tune.tune import apply_best

            settings = apply_best(settings, json.loads(_given(self.latest.best, "sweep", "boneseg tune")))
        result = train(self.workspace, self._dataset(dataset_uri), settings, trackers(settings.publish))
        self._remember(model_uri=result.model_uri)
        return result

    def model_uri(self) -> str:
        """Return the model trained last."""
        return _given(self.latest.model_uri, "model", "boneseg train")

    def evaluate(
        self, model_uri: str | None = None, dataset_uri: str | None = None, ensemble: Sequence[str] = ()
    ) -> EvaluationResult:
        """Measure a model on a dataset's test split; none = the last of each. ``ensemble``: URIs of models together."""
        from boneseg.evaluate.evaluate import evaluate

        model, dataset = model_uri or self.model_uri(), self._dataset(dataset_uri)
        result = evaluate(self.workspace, model, dataset, self.settings.evaluate, ensemble)
        if not ensemble and (model, dataset) == (
            self.latest.model_uri,
            self.latest.dataset_uri,
        ):  # what publish goes on with
            self._remember(evaluation_uri=result.evaluation_uri)
        return result

    def publish(self, promote: bool = False) -> PublishResult:
        """Register the last model with its last evaluation; ``promote`` makes it champion whatever was measured."""
        from boneseg.registry.publish import publish

        evaluation = _given(self.latest.evaluation_uri, "evaluation", "boneseg evaluate")
        return publish(self.workspace, self.model_uri(), evaluation, self._dataset(None), self.settings, promote)

    def _dataset(self, uri: str | None) -> str:
        return _given(uri or self.latest.dataset_uri, "dataset", "boneseg prepare")


def _given(value: str | None, what: str, command: str) -> str:
    if value is None:
        raise DataError(f"there is no {what} yet in this work folder; run '{command}' first")
    return value
