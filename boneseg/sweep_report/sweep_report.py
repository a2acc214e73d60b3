"""The report of a sweep: what ``boneseg sweep-report`` and the pipelines call."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from boneseg.errors import DataError, SettingsError
from boneseg.evaluate.evaluate import CONTENT_TYPES
from boneseg.metrics.statistics import Summary
from boneseg.settings.schema import RunSettings
from boneseg.storage import layout
from boneseg.storage.records import Record
from boneseg.storage.scratch import scratch_folder
from boneseg.storage.workspace import Workspace
from boneseg.sweep_report.best import measure_best
from boneseg.sweep_report.files import HTML_FILE, LEADERBOARD_FILE, Report, markdown, write_report
from boneseg.sweep_report.trials import left_behind, trials_of
from boneseg.tune.records import TuneResult
from boneseg.tune.tune import RESULT_FILE


class SweepReport(Record):
    """Where a sweep's report is, and the figures that sweeps are compared by."""

    name: str
    """Of the sweep."""
    report_uri: str
    leaderboard_uri: str
    """CSV: every trial with the command that trains it."""
    summary: str
    """The first rows of the tables as Markdown."""
    files: tuple[str, ...]
    """Beside the report."""
    scalars: dict[str, float]
    """Validation and, where it was measured, test of the best trial and of the ensemble; 0 to 1."""
    ensemble_uri: str | None = None
    """Evaluation of the best trials together; none = nobody asked for it, or fewer than two have a model."""


def report_sweep(
    workspace: Workspace,
    name: str,
    settings: RunSettings,
    dataset_uri: str | None = None,
    best: int = 0,
    out: Path | None = None,
) -> SweepReport:
    """Write the report of a finished sweep, of this version or an earlier one, into the bucket.

    Args:
        workspace: bucket and local folder.
        name: of the sweep, or the URI of its record.
        settings: of the run around the sweep: the commands of the report train with its epochs and workers.
        dataset_uri: of the data; needed where ``best`` is not 0.
        best: how many of the best trials to measure on the test split, alone and together as an ensemble.
        out: folder of this machine for a copy; none = in the bucket alone.

    Raises:
        SettingsError: there is nothing to measure the best on.
        DataError: there is no such sweep, the dataset has no test series, or the copy cannot be written.
        ModelError: a model cannot be loaded.
        RecordError: the record of the sweep is damaged.
    """
    result = _result(workspace, name)
    trials = trials_of(result, left_behind(workspace, result.rows), settings, dataset_uri)
    measured = None
    if best:
        if dataset_uri is None:
            raise SettingsError("the best trials are measured on a dataset's test split; give its URI by --dataset")
        measured = measure_best(workspace, trials, dataset_uri, settings.evaluate, best)
    report = Report(result, trials, measured)
    store = workspace.store
    with scratch_folder(workspace.folder, "sweep-report-") as folder:
        files = write_report(folder, report)
        for file in files:
            content = CONTENT_TYPES.get(Path(file).suffix, "text/plain")
            store.upload(folder / file, layout.sweep(result.name, file), content)
        if out is not None:
            _copy(folder, files, out)
    return SweepReport(
        name=result.name,
        report_uri=store.uri(layout.sweep(result.name, HTML_FILE)),
        leaderboard_uri=store.uri(layout.sweep(result.name, LEADERBOARD_FILE)),
        summary=markdown(report),
        files=tuple(files),
        scalars=_scalars(report),
        ensemble_uri=measured.ensemble.evaluation_uri
        if measured is not None and measured.ensemble is not None
        else None,
    )


def _result(workspace: Workspace, name: str) -> TuneResult:
    store = workspace.store
    key = store.key(name) if name.startswith("s3://") else layout.sweep(name, RESULT_FILE)
    data = store.read_if_there(key)
    if data is None:
        raise DataError(f"{store.uri(key)} is not there; name a sweep that 'boneseg tune' finished")
    return TuneResult.read(data, store.uri(key), "run 'boneseg tune' again, which finds its finished trials")


def _copy(folder: Path, files: list[str], out: Path) -> None:
    try:
        for file in files:
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file, out / file)
    except OSError as error:
        raise DataError(f"{out}: cannot write the report ({error.strerror}); choose another --out") from error


def _scalars(report: Report) -> dict[str, float]:
    first, measured = report.trials[0], report.measured
    found: dict[str, float | None] = {
        "trials": float(len(report.trials)),
        "validation_mean_iou": first.mean_iou,
        "validation_bone_dice": first.bone_dice,
        "device_hours": sum(trial.device_hours or 0.0 for trial in report.trials) or None,
    }
    if measured is not None:
        found["test_bone_dice_best"] = _mean(measured.of(measured.networks[0][0]))
        found["test_bone_dice_ensemble"] = _mean(measured.together())
    return {key: value for key, value in found.items() if value is not None and math.isfinite(value)}


def _mean(summary: Summary | None) -> float | None:
    return None if summary is None else summary.mean
