"""The part of the job that is the same in all pipelines."""

from typing import Any

from components.evaluate.component import evaluate
from components.prepare.component import prepare
from components.publish.component import publish
from components.pull.component import pull
from components.train.component import train
from pipelines.cluster import compute, connect


def pull_data(settings: Any, cpu: Any, memory: Any) -> Any:
    """Find out what the bucket holds; never from the cache, because the bucket changes by itself."""
    return compute(connect(pull(settings=settings), cached=False), cpu, memory)


def prepare_data(settings: Any, pulled: Any, cpu: Any, memory: Any) -> Any:
    """Make a dataset of what was pulled."""
    keys = {name: pulled.outputs[name] for name in ("catalogue_uri", "splits_hash", "code_version")}
    return compute(connect(prepare(settings=settings, **keys)), cpu, memory)


def train_and_publish(settings: Any, pulled: Any, prepared: Any, cpu: Any, memory: Any, gpus: Any) -> None:
    """Train, measure and register; publishing is never from the cache, because the registry changes by itself.

    Publishing may measure a champion anew on a test set that has grown, so it gets what evaluating gets.
    """
    data = {"dataset_uri": prepared.outputs["dataset_uri"], "code_version": pulled.outputs["code_version"]}
    trained = compute(connect(train(settings=settings, **data)), cpu, memory, gpus)
    model = trained.outputs["model_uri"]
    measured = compute(connect(evaluate(settings=settings, model_uri=model, **data)), cpu, memory, gpus)
    evaluation = measured.outputs["evaluation_uri"]
    published = publish(settings=settings, model_uri=model, evaluation_uri=evaluation, **data)
    compute(connect(published, cached=False), cpu, memory, gpus)
