"""Series become shards and a dataset."""

from typing import NamedTuple

from kfp import dsl

from components.base import component


@component
def prepare(
    settings: str,
    catalogue_uri: str,
    splits_hash: str,
    code_version: str,
    dataset: dsl.Output[dsl.Dataset],
) -> NamedTuple("Prepared", [("dataset_uri", str), ("dataset_hash", str), ("test_hash", str)]):  # type: ignore[valid-type]
    """Check and label the series of a catalogue, split them by patient and write one shard a series.

    Args:
        settings: Settings of the run as JSON.
        catalogue_uri: Catalogue that pull wrote.
        splits_hash: Part of the cache key: splits that are decided stay.
        code_version: Part of the cache key.
        dataset: Where the dataset is, how large it is, and what was left out.

    Returns:
        dataset_uri: Where the dataset is.
        dataset_hash: Hash of shards and splits.
        test_hash: Hash of the frozen test set.
    """
    from pathlib import Path

    from boneseg.dataset.prepare import prepare
    from boneseg.pipeline_step import step
    from boneseg.settings.loading import parse_settings

    run = parse_settings(settings)
    with step("prepare", run) as workspace:
        result = prepare(workspace, catalogue_uri, run.prepare, run.scheme)
    Path(dataset.path).write_bytes(result.to_json())
    dataset.metadata.update(dataset_uri=result.dataset_uri, dataset_hash=result.dataset_hash, series=result.series)
    return (result.dataset_uri, result.dataset_hash, result.test_hash)
