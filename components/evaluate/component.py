"""A model is measured."""

from typing import NamedTuple

from kfp import dsl

from components.base import component


@component
def evaluate(
    settings: str,
    model_uri: str,
    dataset_uri: str,
    code_version: str,
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    summary: dsl.Output[dsl.Markdown],
    report: dsl.Output[dsl.HTML],
    tables: dsl.Output[dsl.Dataset],
) -> NamedTuple("Evaluated", [("evaluation_uri", str), ("evaluation_hash", str)]):  # type: ignore[valid-type]
    """Measure a model on the frozen test set: class-wise and per series, in pixels and in millimetres.

    Args:
        settings: Settings of the run as JSON.
        model_uri: Model that train wrote.
        dataset_uri: Dataset with the frozen test set.
        code_version: Part of the cache key.
        metrics: The figures by which runs are compared; of many bones those of groups.
        confusion: Pixels of the test set: reference by prediction; the classes of a large scheme by group.
        summary: The tables; of many bones the lowest.
        report: Tables, plots and pictures in one page.
        tables: Where tables and plots are as files.

    Returns:
        evaluation_uri: Where the evaluation is.
        evaluation_hash: Hash of model, test set and settings.
    """
    from pathlib import Path

    from boneseg.evaluate.class_words import shown_confusion
    from boneseg.evaluate.evaluate import evaluate, markdown_tables
    from boneseg.pipeline_step import step
    from boneseg.settings.loading import parse_settings

    run = parse_settings(settings)
    with step("evaluate", run) as workspace:
        result = evaluate(workspace, model_uri, dataset_uri, run.evaluate)
    for name, value in result.headline_scalars().items():
        metrics.log_metric(name, value)
    names, matrix = shown_confusion(result)
    confusion.log_confusion_matrix(names, matrix.tolist())
    # The cache takes a step's outputs as present only where each has a file.
    for artifact in (metrics, confusion, tables):
        Path(artifact.path).write_bytes(result.to_json())
    Path(summary.path).write_text(markdown_tables(result), encoding="utf-8")
    workspace.store.download(workspace.store.key(result.report_uri), Path(report.path))
    tables.metadata.update(evaluation_uri=result.evaluation_uri, report_uri=result.report_uri)
    return (result.evaluation_uri, result.evaluation_hash)
