"""A bucket of CT series becomes a sweep, its report, and a published model with the best settings."""

from typing import List  # noqa: UP035 - the pipeline's interface knows this name, not list[str]

from kfp import dsl

from components.configure.component import configure
from components.sweep_report.component import sweep_report
from components.tune.component import tune
from pipelines.cluster import compute, connect
from pipelines.steps import prepare_data, pull_data, train_and_publish


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="bone-sweep",
    description="Search networks and training settings, measure the best, train the winner in full and publish it.",
)
def sweep(
    name: str = "",
    endpoint: str = "",
    bucket: str = "boneseg",
    recipe: str = "boneseg",
    scheme: str = "",
    weights: str = "",
    space: str = "",
    trials: int = 0,
    trial_epochs: int = 0,
    parallel: int = 0,
    scheduler: str = "",
    searcher: str = "",
    hours: float = 0.0,
    best: int = 3,
    epochs: int = 0,
    workers: int = 0,
    model_name: str = "bone",
    min_gain: float = 0.0,
    tracking_uri: str = "",
    overrides: List[str] = [],  # noqa: B006, UP006
    cpu: str = "2",
    memory: str = "8Gi",
    gpus: str = "0",
) -> None:
    """Pull, prepare, sweep, measure the best trials alone and together, train the best, evaluate and publish.

    Args:
        name: Name of the training run; a run of the same name continues. Empty: named by settings and data.
        endpoint: URL of the S3 endpoint, such as https://s3.example.org. Empty: the environment's.
        bucket: Bucket that holds the CT series and everything made from them.
        recipe: Settings the run starts from: boneseg, paper or paper-tf-keras. Empty fields and 0 below follow it.
        scheme: Which bones to tell apart: bone, pelvis, skeleton, or a scheme of your own as JSON. Empty: bone.
        weights: What encoders start from: none = random numbers, or imagenet. Empty: as the recipe (boneseg: none).
        space: What to choose from, as JSON, such as {"model.encoder": ["resnet18", "resnet34"]}. Empty: tune's lists.
        trials: How many trials. 0: as the recipe (boneseg: 4).
        trial_epochs: Epochs of a trial that is not stopped early. 0: as the recipe (boneseg: 4).
        parallel: Trials at the same time. 0: as the recipe (boneseg: 1).
        scheduler: What stops poor trials early: asha, pbt or none. Empty: as the recipe (boneseg: asha).
        searcher: What chooses trials: optuna, random or grid. Empty: as the recipe (boneseg: optuna).
        hours: Wall time after which no trial starts. 0: no limit.
        best: How many of the best trials to measure on the test set, alone and as an ensemble. 0: none.
        epochs: Epochs of the training with the best settings. 0: as the recipe (boneseg: 20).
        workers: Processes that train together, one GPU each where there are GPUs. 0: as the recipe (boneseg: 1).
        model_name: Name of the model in the registry.
        min_gain: How much the mean Dice of all bones must rise above the champion's before the model is promoted.
        tracking_uri: MLflow tracking URI. Empty: the environment's, or the embedded registry.
        overrides: Any other settings, such as ["train.crop=128", "store.raw_prefix=raw/"]; they win over fields.
        cpu: Processors of each heavy step, such as 8 or 500m.
        memory: Memory of each heavy step, such as 32Gi.
        gpus: GPUs for the sweep, training and evaluating.
    """
    settings = configure(
        name=name,
        endpoint=endpoint,
        bucket=bucket,
        recipe=recipe,
        scheme=scheme,
        weights=weights,
        space=space,
        trials=trials,
        trial_epochs=trial_epochs,
        parallel=parallel,
        scheduler=scheduler,
        searcher=searcher,
        hours=hours,
        epochs=epochs,
        workers=workers,
        model_name=model_name,
        min_gain=min_gain,
        tracking_uri=tracking_uri,
        overrides=overrides,
    ).output
    pulled = pull_data(settings, cpu, memory)
    prepared = prepare_data(settings, pulled, cpu, memory)
    data = {"dataset_uri": prepared.outputs["dataset_uri"], "code_version": pulled.outputs["code_version"]}
    tuned = compute(connect(tune(settings=settings, **data)), cpu, memory, gpus)
    reported = sweep_report(settings=settings, sweep_name=tuned.outputs["sweep_name"], best=best, **data)
    compute(connect(reported), cpu, memory, gpus)
    train_and_publish(tuned.outputs["settings"], pulled, prepared, cpu, memory, gpus)
