"""A sweep for better settings."""

from typing import NamedTuple

from kfp import dsl

from components.base import component


@component
def tune(
    settings: str,
    dataset_uri: str,
    code_version: str,
    sweep: dsl.Output[dsl.Artifact],
    leaderboard: dsl.Output[dsl.Markdown],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Tuned", [("settings", str), ("table_uri", str), ("sweep_name", str)]):  # type: ignore[valid-type]
    """Try networks and training settings side by side, stopping the poor ones early.

    Args:
        settings: Settings of the run as JSON.
        dataset_uri: Dataset that prepare wrote.
        code_version: Part of the cache key.
        sweep: All trials with their settings and results.
        leaderboard: The best trials as a table.
        report: All trials: tables, figures, and a command for each.

    Returns:
        settings: The settings with the best trial's in place.
        table_uri: Where the table of trials is.
        sweep_name: Name of the sweep.
    """
    from pathlib import Path

    from boneseg.pipeline_step import step
    from boneseg.settings.loading import parse_settings
    from boneseg.sweep_report.sweep_report import report_sweep
    from boneseg.tune.space import apply_best
    from boneseg.tune.tune import tune

    run = parse_settings(settings)
    with step("tune", run) as workspace:
        result = tune(workspace, dataset_uri, run)
        told = report_sweep(workspace, result.name, run, dataset_uri)
    Path(sweep.path).write_bytes(result.to_json())
    sweep.metadata.update(table_uri=result.table_uri, best=result.best)
    Path(leaderboard.path).write_text(told.summary, encoding="utf-8")
    workspace.store.download(workspace.store.key(told.report_uri), Path(report.path))
    return (apply_best(run, result.best).model_dump_json(), result.table_uri, result.name)
