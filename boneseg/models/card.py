"""A trained model as a folder: ``model.safetensors`` beside ``card.json``. The card says all that using it needs."""

from __future__ import annotations

from boneseg.scheme import BONE_SCHEME, LabelScheme
from boneseg.settings.schema import ModelSettings, TrainSettings
from boneseg.storage.records import Record

WEIGHTS_FILE, CARD_FILE = "model.safetensors", "card.json"


class EpochRecord(Record):
    """What one epoch measured. Lists are per class, in the order of the label scheme."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    train_accuracy: float
    """Share of training pixels that were right."""
    validation_loss: float
    validation_accuracy: float
    validation_iou: tuple[float, ...]
    validation_dice: tuple[float, ...]
    validation_mean_iou: float
    validation_mean_dice: float
    validation_bone_dice: float | None = None
    """Of all bones together; none in records of before schemes, whose last class is bone."""
    seconds: float
    images_per_second: float | None = None
    """That all processes together trained on; none in earlier records, as are all fields below."""
    waiting: float | None = None
    """Share of the time of training steps in which the process that waited most had no batch to work on."""
    waiting_hint: str = ""
    """What would shorten it; empty = there is no need."""
    memory_bytes: int | None = None
    """Of the process that took most."""
    gpu_memory_bytes: int | None = None
    """As above, at its peak since the run started or went on; none = not on a GPU."""

    @property
    def bone_dice(self) -> float:
        """Dice of all bones together."""
        return self.validation_dice[-1] if self.validation_bone_dice is None else self.validation_bone_dice


class Continuation(Record):
    """Epochs that were added to a finished run."""

    run: str
    """Name of the run that went on."""
    epoch: int
    """Its last epoch. The schedule of the rates was laid out anew there, over all epochs: this is not the run that as
    many epochs from the start would have been."""


class ModelCard(Record):
    """Settings, classes, preprocessing, data and versions of a trained model."""

    model_hash: str
    """Of the weights and of how they are used (architecture, preprocessing, classes)."""
    model: ModelSettings
    train: TrainSettings
    scheme: LabelScheme = BONE_SCHEME
    """What the values of its masks mean."""
    dataset_hash: str
    fingerprint: str
    run: str
    """Name of the training run."""
    best_epoch: int
    history: tuple[EpochRecord, ...]
    parameters: int
    """How many numbers training adjusted."""
    computed: str = ""
    """Where and in which number format training computed, and why not in a faster one; empty = nobody noted it."""
    continued: tuple[Continuation, ...] = ()
    """When epochs were added; empty = it was trained in one go."""
    versions: dict[str, str]
    """Of boneseg, torch, segmentation_models_pytorch and python."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of their values."""
        return self.scheme.names
