"""The training job for a schedule: it ends early where the bucket holds nothing new."""

from typing import List  # noqa: UP035 - the pipeline's interface knows this name, not list[str]

from kfp import dsl

from components.configure.component import configure
from pipelines.steps import prepare_data, pull_data, train_and_publish


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="bone-retraining",
    description="Train, measure and publish again where the bucket changed since the last published run.",
)
def retraining(
    endpoint: str = "",
    bucket: str = "boneseg",
    scheme: str = "",
    model_name: str = "bone",
    min_gain: float = 0.0,
    tracking_uri: str = "",
    overrides: List[str] = [],  # noqa: B006, UP006
    cpu: str = "2",
    memory: str = "8Gi",
    gpus: str = "0",
) -> None:
    """Run it as a recurring run: cron of six fields, no catch-up, one run at a time.

    Args:
        endpoint: URL of the S3 endpoint, such as https://s3.example.org. Empty: the environment's.
        bucket: Bucket that holds the CT series and everything made from them.
        scheme: Which bones to tell apart: bone, pelvis, skeleton, or a scheme of your own as JSON. Empty: bone.
        model_name: Name of the model in the registry.
        min_gain: How much the mean Dice of all bones must rise above the champion's before the model is promoted.
        tracking_uri: MLflow tracking URI. Empty: the environment's, or the embedded registry.
        overrides: The settings that proved best, as a list such as ["model.encoder=resnet50", "train.epochs=60"].
        cpu: Processors of each heavy step, such as 8 or 500m.
        memory: Memory of each heavy step, such as 32Gi.
        gpus: GPUs for training and evaluating.
    """
    settings = configure(
        endpoint=endpoint,
        bucket=bucket,
        scheme=scheme,
        model_name=model_name,
        min_gain=min_gain,
        tracking_uri=tracking_uri,
        overrides=overrides,
    ).output
    pulled = pull_data(settings, cpu, memory)
    with dsl.If(pulled.outputs["changed"] == True, name="data-changed"):  # noqa: E712 - kfp compiles the comparison
        prepared = prepare_data(settings, pulled, cpu, memory)
        train_and_publish(settings, pulled, prepared, cpu, memory, gpus)
