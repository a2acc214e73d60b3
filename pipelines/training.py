"""A bucket of CT series becomes a published model."""

from typing import List  # noqa: UP035 - the pipeline's interface knows this name, not list[str]

from kfp import dsl

from components.configure.component import configure
from components.tune.component import tune
from pipelines.cluster import compute, connect
from pipelines.steps import prepare_data, pull_data, train_and_publish


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="bone-training", description="A bucket of CT series becomes a published bone segmentation model."
)
def training(
    name: str = "",
    endpoint: str = "",
    bucket: str = "boneseg",
    recipe: str = "boneseg",
    scheme: str = "",
    weights: str = "",
    architecture: str = "",
    encoder: str = "",
    epochs: int = 0,
    batch_size: int = 0,
    loss: str = "",
    learning_rate: float = 0.0,
    augmentation: str = "",
    workers: int = 0,
    trials: int = 0,
    model_name: str = "bone",
    min_gain: float = 0.0,
    tracking_uri: str = "",
    overrides: List[str] = [],  # noqa: B006, UP006
    cpu: str = "2",
    memory: str = "8Gi",
    gpus: str = "0",
) -> None:
    """Pull, prepare, perhaps tune, train, evaluate and publish.

    Args:
        name: Name of the training run; a run of the same name continues. Empty: named by settings and data.
        endpoint: URL of the S3 endpoint, such as https://s3.example.org. Empty: the environment's.
        bucket: Bucket that holds the CT series and everything made from them.
        recipe: Settings the run starts from: boneseg, paper or paper-tf-keras. Empty fields and 0 below follow it.
        scheme: Which bones to tell apart: bone, pelvis, skeleton, or a scheme of your own as JSON. Empty: bone.
        weights: What the encoder starts from: none = random numbers, or imagenet. Empty: as the recipe (boneseg: none).
        architecture: Network, such as unet, fpn, deeplabv3plus or unetplusplus. Empty: as the recipe (boneseg: unet).
        encoder: Encoder, such as resnet18, resnet50 or mobilenet_v2. Empty: as the recipe (boneseg: resnet18).
        epochs: Training epochs; the one with the best validation mean IoU is kept. 0: as the recipe (boneseg: 20).
        batch_size: Slices a step, of all workers together. 0: as the recipe (boneseg: 8).
        loss: cross_entropy, dice or cross_entropy_dice. Empty: as the recipe (boneseg: cross_entropy_dice).
        learning_rate: Learning rate at the start. 0: as the recipe (boneseg: 0.001).
        augmentation: Random changes of the training slices: ct, paper or none. Empty: as the recipe (boneseg: ct).
        workers: Processes that train together, one GPU each where there are GPUs. 0: as the recipe (boneseg: 1).
        trials: Trials of a sweep over networks and training settings before the training. 0: no sweep.
        model_name: Name of the model in the registry.
        min_gain: How much the mean Dice of all bones must rise above the champion's before the model is promoted.
        tracking_uri: MLflow tracking URI. Empty: the environment's, or the embedded registry.
        overrides: Any other settings, such as ["train.crop=128", "store.raw_prefix=raw/"]; they win over fields.
        cpu: Processors of each heavy step, such as 8 or 500m.
        memory: Memory of each heavy step, such as 32Gi.
        gpus: GPUs for tuning, training and evaluating.
    """
    settings = configure(
        name=name,
        endpoint=endpoint,
        bucket=bucket,
        recipe=recipe,
        scheme=scheme,
        weights=weights,
        architecture=architecture,
        encoder=encoder,
        epochs=epochs,
        batch_size=batch_size,
        loss=loss,
        learning_rate=learning_rate,
        augmentation=augmentation,
        workers=workers,
        trials=trials,
        model_name=model_name,
        min_gain=min_gain,
        tracking_uri=tracking_uri,
        overrides=overrides,
    ).output
    pulled = pull_data(settings, cpu, memory)
    prepared = prepare_data(settings, pulled, cpu, memory)
    with dsl.If(trials == 0, name="without-sweep"):
        train_and_publish(settings, pulled, prepared, cpu, memory, gpus)
    with dsl.If(trials > 0, name="with-sweep"):
        data = {"dataset_uri": prepared.outputs["dataset_uri"], "code_version": pulled.outputs["code_version"]}
        tuned = compute(connect(tune(settings=settings, **data)), cpu, memory, gpus)
        train_and_publish(tuned.outputs["settings"], pulled, prepared, cpu, memory, gpus)
