"""Where a study's setting differs from the paper's, in words."""

from __future__ import annotations

from dataclasses import dataclass

from boneseg.dataset.manifest import Dataset
from boneseg.settings.schema import Split
from boneseg.study import paper_numbers as printed
from boneseg.study.plan import Plan, Trial


@dataclass(frozen=True)
class Difference:
    """One matter, there and here."""

    topic: str
    paper: str
    here: str


def differences(plan: Plan, dataset: Dataset, note: str, device: str) -> list[Difference]:
    """List what differs, the data first.

    Args:
        plan: of the study.
        dataset: it ran on.
        note: what the user says of the data; may be empty.
        device: on which images were timed.
    """
    return [*_data(dataset, note), *_training(plan), _time(device)]


def _data(dataset: Dataset, note: str) -> list[Difference]:
    computed = sum(shard.outline_computed for split in Split for shard in dataset.of(split))
    series = sum(len(dataset.of(split)) for split in Split)
    origin = note or (
        "Other CT series. Whether they are real or semi-synthetic, and whether a person drew the labels or a program "
        "derived them, the one who collected them must say (--note)."
    )
    if computed:
        origin += f" In {computed} of {series} series the patient outline was computed here."
    return [
        Difference("Data", "The authors' own CT series and labels.", origin),
        Difference(
            "Training images",
            f"{printed.TRAIN_IMAGES} of {printed.TRAIN_SERIES} series, {printed.VALIDATION_IMAGES} of them for "
            "validation.",
            f"{_amount(dataset, Split.TRAIN)}; for validation {_amount(dataset, Split.VALIDATION)}.",
        ),
        Difference(
            "Test images",
            f"{printed.TEST_IMAGES} of {printed.TEST_SERIES} series.",
            f"{_amount(dataset, Split.TEST)}.",
        ),
        Difference(
            "Split",
            "Test series apart; validation images come from the training series.",
            "By patient: no patient is in two of training, validation and test.",
        ),
    ]


def _training(plan: Plan) -> list[Difference]:
    shared = plan.settings
    train, preprocess = shared.train, shared.model.preprocess
    size = f"{preprocess.size}x{preprocess.size}" if preprocess.size else "as in the series, or resampled by spacing"
    window = f"HU {preprocess.window[0]:g} to {preprocess.window[1]:g} are shown as black to white."
    optimizer = f"{train.optimizer}, learning rate {train.learning_rate:g}, {train.schedule}."
    return [
        Difference(
            "Image size",
            f"{printed.SIZE}x{printed.SIZE} pixels.",
            f"{size} pixels; crops of {train.crop}. {window}",
        ),
        Difference(
            "Budget",
            f"{printed.EPOCHS[1]} epochs (Table 1), {printed.EPOCHS[3]} (Table 3), of {printed.STEPS} steps of "
            f"{printed.BATCH} images.",
            f"{_epochs(plan.trials)} of {train.steps_per_epoch} steps of {train.batch_size} images.",
        ),
        Difference(
            "Optimizer",
            "Adadelta with its library's default learning rate, which is not printed: 1.0 in Keras 2, 0.001 in "
            "tf.keras.",
            f"Recipe {plan.recipe}: {optimizer} Loss {str(train.loss).replace('_', ' ')}.",
        ),
        Difference(
            "Augmentation",
            "Ten random versions of each image, made before training.",
            f"{train.augmentation}: a new random version whenever an image is shown.",
        ),
        Difference(
            "Batch normalisation",
            "Running statistics with momentum 0.99, which follow within some 500 steps.",
            "The same; while fewer steps are taken, each validation measures the statistics anew over training images.",
        ),
        Difference(
            "Initial weights",
            "Encoders VGG16 and ResNet50 learned on ImageNet before, the others start from random numbers.",
            _weights(plan.trials),
        ),
    ]


def _time(device: str) -> Difference:
    return Difference(
        "Time of an image",
        f"{printed.SIZE}x{printed.SIZE} pixels on an {printed.DEVICE}.",
        f"The same size on {device}.",
    )


def _amount(dataset: Dataset, split: Split) -> str:
    shards = dataset.of(split)
    images, patients = sum(len(shard.class_counts) for shard in shards), len({shard.patient for shard in shards})
    return f"{images} of {len(shards)} series of {patients} {'patient' if patients == 1 else 'patients'}"


def _epochs(trials: tuple[Trial, ...]) -> str:
    counts = sorted({trial.settings.train.epochs for trial in trials})
    return f"{' or '.join(map(str, counts))} {'epoch' if counts == [1] else 'epochs'}"


def _weights(trials: tuple[Trial, ...]) -> str:
    known = {True: [], False: []}  # type: dict[bool, list[str]]
    for trial in trials:
        names = known[trial.settings.model.weights == "imagenet"]
        title = printed.TITLES.get(trial.network, trial.network)
        if title not in names:
            names.append(title)
    if not known[True]:
        return "All networks start from random numbers, VGG16 and ResNet50 too."
    if not known[False]:
        return "Encoders of all networks start from ImageNet weights."
    return f"ImageNet for the encoder of {', '.join(known[True])}; random numbers for {', '.join(known[False])}."
