"""A model meets the champion."""

from typing import NamedTuple

from kfp import dsl

from components.base import component


@component
def publish(
    settings: str,
    model_uri: str,
    evaluation_uri: str,
    dataset_uri: str,
    code_version: str,
    decision: dsl.Output[dsl.Markdown],
) -> NamedTuple("Published", [("version", str), ("promoted", bool), ("reason", str)]):  # type: ignore[valid-type]
    """Register a model and promote it if it is better than the champion on the same frozen test set.

    Args:
        settings: Settings of the run as JSON.
        model_uri: Model that train wrote.
        evaluation_uri: Evaluation of that model.
        dataset_uri: Dataset with the frozen test set.
        code_version: Kept with the model.
        decision: Who is champion now, and why.

    Returns:
        version: Version in the registry.
        promoted: Whether it is champion now.
        reason: Why, in a sentence.
    """
    from pathlib import Path

    from boneseg.pipeline_step import step
    from boneseg.registry.publish import publish
    from boneseg.settings.loading import parse_settings

    run = parse_settings(settings)
    with step("publish", run) as workspace:
        result = publish(workspace, model_uri, evaluation_uri, dataset_uri, run)
    Path(decision.path).write_text(f"### {result.name}:{result.version}\n\n{result.reason}\n", encoding="utf-8")
    decision.metadata.update(champion=result.champion, run_id=result.run_id)
    return (result.version, result.promoted, result.reason)
