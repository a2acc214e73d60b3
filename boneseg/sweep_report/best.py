"""The best trials of a sweep on the test split: each network by itself, and all together as an ensemble."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from boneseg.evaluate.evaluate import evaluate
from boneseg.evaluate.names import ENSEMBLE, NETWORK
from boneseg.evaluate.records import EvaluationResult
from boneseg.evaluate.tables import bone_dice, summarise_measure
from boneseg.metrics.statistics import GAINS, SHARES, Difference, Summary, paired_difference
from boneseg.settings.schema import EvaluateSettings
from boneseg.storage.workspace import Workspace
from boneseg.sweep_report.trials import Trial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """The best trials on the test split."""

    networks: tuple[tuple[Trial, EvaluationResult], ...]
    """The best by validation first."""
    ensemble: EvaluationResult | None
    """Of the best network, with all of them together beside it; none = there is only one."""

    def of(self, trial: Trial) -> Summary | None:
        """Describe a trial's bone Dice over the test series; none where it was not measured."""
        return next((_summary(result, NETWORK) for row, result in self.networks if row.rank == trial.rank), None)

    def together(self) -> Summary | None:
        """Describe the ensemble's bone Dice over the test series; none where there is no ensemble."""
        return _summary(self.ensemble, ENSEMBLE) if self.ensemble is not None else None

    def gain(self) -> Difference | None:
        """Compare the ensemble's bone Dice with the best network's, series by series."""
        if self.ensemble is None:
            return None
        series, settings = self.ensemble.series, self.ensemble.settings
        ours, best = ([bone_dice(row.methods[method]) for row in series] for method in (ENSEMBLE, NETWORK))
        return paired_difference(ours, best, [row.patient for row in series], settings.bootstrap, bounds=GAINS)


def measure_best(
    workspace: Workspace, trials: Sequence[Trial], dataset_uri: str, settings: EvaluateSettings, count: int
) -> Measured | None:
    """Measure the best trials that have a model; what was measured before is used again.

    Args:
        workspace: bucket and local folder.
        trials: of the sweep, the best first.
        dataset_uri: with the test split.
        settings: tolerance, threshold, resamples.
        count: how many at most.

    Returns:
        None where no trial has a model, as after a sweep whose budget stopped all of them.

    Raises:
        DataError: the dataset has no test series.
        ModelError: a model cannot be loaded.
    """
    chosen = [trial for trial in trials if trial.model_uri is not None][:count]
    uris = [trial.model_uri for trial in chosen if trial.model_uri is not None]
    if not uris:
        log.warning(
            "no trial of the sweep has a model in the bucket to measure; train one with a command of the sweep's "
            "report, then evaluate it with 'boneseg evaluate'"
        )
        return None
    results = [evaluate(workspace, uri, dataset_uri, settings) for uri in uris]
    different = len(set(uris)) > 1  # settings of equal meaning may have made the very same model
    together = evaluate(workspace, uris[0], dataset_uri, settings, uris) if different else None
    return Measured(tuple(zip(chosen, results, strict=True)), together)


def _summary(result: EvaluationResult, method: str) -> Summary:
    return summarise_measure(result.series, method, bone_dice, result.settings, SHARES)
