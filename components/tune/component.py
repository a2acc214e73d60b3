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
) -> NamedTuple("Tuned", [("settings", str), ("table_uri", str)]):  # type: ignore[valid-type]
    """Try networks and training settings side by side, stopping the poor ones early.

    Args:
        settings: Settings of the run as JSON.
        dataset_uri: Dataset that prepare wrote.
        code_version: Part of the cache key.
        sweep: All trials with their settings and results.

    Returns:
        settings: The settings with the best trial's in place.
        table_uri: Where the table of trials is.
    """
    from pathlib import Path

    from boneseg.pipeline_step import step
    from boneseg.settings.loading import parse_settings
    from boneseg.tune.space import apply_best
    from boneseg.tune.tune import tune

    run = parse_settings(settings)
    with step("tune", run) as workspace:
        result = tune(workspace, dataset_uri, run)
    Path(sweep.path).write_bytes(result.to_json())
    sweep.metadata.update(table_uri=result.table_uri, best=result.best)
    return (apply_best(run, result.best).model_dump_json(), result.table_uri)
