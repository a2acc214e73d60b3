"""A dataset becomes a model."""

from typing import NamedTuple

from kfp import dsl

from components.base import component


@component
def train(
    settings: str,
    dataset_uri: str,
    code_version: str,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> NamedTuple("Trained", [("model_uri", str), ("model_hash", str)]):  # type: ignore[valid-type]
    """Train a network and keep the epoch with the best validation mean IoU. Started again, it continues.

    Args:
        settings: Settings of the run as JSON.
        dataset_uri: Dataset that prepare wrote.
        code_version: Part of the cache key.
        model: Where the model is, and what every epoch measured.
        metrics: Best epoch and its validation mean IoU.

    Returns:
        model_uri: Where the model is.
        model_hash: Hash of weights and of how they are used.
    """
    from pathlib import Path

    from boneseg.pipeline_step import step
    from boneseg.settings.loading import parse_settings
    from boneseg.tracking import trackers
    from boneseg.train.train import train

    run = parse_settings(settings)
    with step("train", run) as workspace:
        result = train(workspace, dataset_uri, run, trackers(run.publish))
    Path(model.path).write_bytes(result.to_json())
    model.metadata.update(model_uri=result.model_uri, model_hash=result.model_hash, run=result.run)
    # The cache takes a step's outputs as present only where each has a file.
    Path(metrics.path).write_bytes(result.to_json())
    metrics.log_metric("best epoch", result.best_epoch)
    metrics.log_metric("validation mean IoU", result.best_mean_iou)
    return (result.model_uri, result.model_hash)
