"""Pipeline parameters in, one validated set of settings out."""

from typing import List  # noqa: UP035 - the compiled step knows this name, not list[str]

from components.base import component


@component
def configure(
    name: str = "",
    endpoint: str = "",
    bucket: str = "",
    recipe: str = "",
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
    space: str = "",
    trials: int = 0,
    trial_epochs: int = 0,
    parallel: int = 0,
    scheduler: str = "",
    searcher: str = "",
    hours: float = 0.0,
    model_name: str = "",
    min_gain: float = 0.0,
    tracking_uri: str = "",
    overrides: List[str] = [],  # noqa: B006, UP006
) -> str:
    """Check the parameters before any data is touched. What is empty or 0 follows the recipe.

    Args:
        name: Name of the training run; empty = from settings and data.
        endpoint: URL of the S3 endpoint; empty = the environment's.
        bucket: Bucket of the series.
        recipe: Settings the run starts from.
        scheme: Which bones to tell apart.
        weights: What the encoder starts from.
        architecture: Network.
        encoder: Encoder of the network.
        epochs: Training epochs.
        batch_size: Slices a step, of all workers together.
        loss: What the network minimises.
        learning_rate: Learning rate.
        augmentation: Recipe of augmentations.
        workers: Processes that train together.
        space: What the sweep chooses from, as JSON.
        trials: Trials of the sweep; 0 = no sweep.
        trial_epochs: Epochs of a trial.
        parallel: Trials at the same time.
        scheduler: What stops poor trials early.
        searcher: What chooses trials.
        hours: Wall time of the sweep.
        model_name: Name in the registry.
        min_gain: Gain of mean bone Dice that a promotion needs.
        tracking_uri: Registry; empty = the environment's.
        overrides: Any other setting, as "section.key=value".

    Returns:
        The settings as JSON.
    """
    from boneseg.identity import flattened
    from boneseg.settings.loading import check_headline, form_overrides, load_settings
    from boneseg.tune.space_file import with_space

    tune = {"trials": trials, "epochs": trial_epochs, "parallel": parallel}
    typed = {
        "name": name,
        "recipe": recipe,
        "scheme": scheme,
        "store": {"endpoint": endpoint, "bucket": bucket},
        "model": {"weights": weights, "architecture": architecture, "encoder": encoder},
        "train": {"epochs": epochs, "batch_size": batch_size, "loss": loss, "learning_rate": learning_rate},
        "train.augmentation": augmentation,
        "train.workers": workers,
        "tune": {**tune, "scheduler": scheduler, "searcher": searcher, "hours": hours},
        "publish": {"model_name": model_name, "min_gain": min_gain, "tracking_uri": tracking_uri},
    }
    searched = [f"tune.space={space}"] if space else []  # JSON is YAML
    settings = with_space(load_settings(overrides=(*form_overrides(flattened(typed)), *searched, *overrides)), None)
    check_headline(settings)
    return settings.model_dump_json()
