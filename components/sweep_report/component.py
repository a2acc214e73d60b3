"""The best trials of a sweep are measured."""

from typing import NamedTuple

from kfp import dsl

from components.base import component


@component
def sweep_report(
    settings: str,
    sweep_name: str,
    dataset_uri: str,
    best: int,
    code_version: str,
    metrics: dsl.Output[dsl.Metrics],
    leaderboard: dsl.Output[dsl.Markdown],
    report: dsl.Output[dsl.HTML],
    tables: dsl.Output[dsl.Dataset],
) -> NamedTuple("Reported", [("report_uri", str), ("leaderboard_uri", str)]):  # type: ignore[valid-type]
    """Measure the best trials on the frozen test set, alone and as an ensemble, and write the sweep's report with it.

    Args:
        settings: Settings of the run as JSON.
        sweep_name: Name of the sweep that tune made.
        dataset_uri: Dataset with the frozen test set.
        best: How many of the best trials to measure; 0 = none.
        code_version: Part of the cache key.
        metrics: Validation and test figures of the best trial and of the ensemble.
        leaderboard: The best trials as tables.
        report: All trials: tables, figures, and a command for each.
        tables: Where tables and plots are as files.

    Returns:
        report_uri: Where the report is.
        leaderboard_uri: Where the leaderboard is, as CSV.
    """
    from pathlib import Path

    from boneseg.pipeline_step import step
    from boneseg.settings.loading import parse_settings
    from boneseg.sweep_report.sweep_report import report_sweep

    run = parse_settings(settings)
    with step("sweep_report", run) as workspace:
        result = report_sweep(workspace, sweep_name, run, dataset_uri, best)
    for name, value in result.scalars.items():
        metrics.log_metric(name, value)
    # The cache takes a step's outputs as present only where each has a file.
    for artifact in (metrics, tables):
        Path(artifact.path).write_bytes(result.to_json())
    Path(leaderboard.path).write_text(result.summary, encoding="utf-8")
    workspace.store.download(workspace.store.key(result.report_uri), Path(report.path))
    tables.metadata.update(report_uri=result.report_uri, leaderboard_uri=result.leaderboard_uri)
    return (result.report_uri, result.leaderboard_uri)
