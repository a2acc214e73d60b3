"""Settings of a run: frozen, validated when made, with a hash that depends on nothing but their values."""

import json
import re
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_serializer, field_validator, model_validator

from boneseg.encoder_compatibility import refusal
from boneseg.errors import SettingsError
from boneseg.identity import stable_hash
from boneseg.ray_address import way_of
from boneseg.redaction import holds_password
from boneseg.scheme import BONE_SCHEME, BUILT_IN, LabelScheme
from boneseg.settings.recipes import RECIPES, merged


class Split(StrEnum):
    """The part of the data a patient belongs to, for ever."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Loss(StrEnum):
    """What the network minimises."""

    CROSS_ENTROPY = "cross_entropy"
    DICE = "dice"
    CROSS_ENTROPY_DICE = "cross_entropy_dice"


Length = Annotated[float, Field(gt=0.01, le=100)]
"""Mm."""


def _a_range_or_a_number(workers: Any) -> Any:
    """Check how many processes are to train together; ``3`` and ``3..3`` as text become the number."""
    if not isinstance(workers, str):
        return workers
    found = re.fullmatch(r"\s*([0-9]{1,6})\s*(?:\.\.\s*([0-9]{1,6})\s*)?", workers)
    if found is None:
        raise ValueError(f"{workers!r} is neither a number nor a range; write 4, or 2..8")
    least, most = int(found[1]), int(found[2] or found[1])
    if not 1 <= least <= most:
        raise ValueError(f"{workers!r} must be a range from 1 or more upwards; write 2..8, say")
    return least if least == most else f"{least}..{most}"


Workers = Annotated[Annotated[int, Field(ge=1)] | str, BeforeValidator(_a_range_or_a_number)]
"""A number, or a range as text."""


class Section(BaseModel):
    """Base of all settings: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def stable_hash(self) -> str:
        """Return 16 hex digits that depend on the values alone, not on their order or on time."""
        return stable_hash(self.model_dump(mode="json"))


class StoreSettings(Section):
    """Where the data is. Credentials come from the environment only."""

    endpoint: str | None = None
    """URL of an S3 endpoint, such as ``https://s3.example.org``; none = the embedded store on this machine."""
    bucket: str = "boneseg"
    """Bucket that holds raw series and everything made from them: small letters, digits, dots and dashes."""
    raw_prefix: str = "raw/"
    """Where in the bucket the CT series and labels are."""
    region: str = "us-east-1"

    @field_validator("endpoint")
    @classmethod
    def _no_password(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and holds_password(endpoint):
            raise ValueError("no user, password or token here: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead")
        return endpoint

    @field_validator("bucket")
    @classmethod
    def _is_a_buckets_name(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name):
            raise ValueError("a bucket's name has 3 to 63 small letters, digits, dots and dashes; rename it so")
        return name

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint {self.endpoint!r} must start with http:// or https://")
        if not self.raw_prefix.endswith("/"):
            raise ValueError(f"raw_prefix {self.raw_prefix!r} must end with a slash")
        return self


class PngSettings(Section):
    """What PNG pictures of CT slices and masks do not say of themselves. Without a spacing they are not used."""

    spacing_mm: tuple[Length, Length, Length] | None = None
    """Distance of two slices, of two rows and of two columns."""
    window: tuple[float, float] | None = None
    """HU of the darkest and of the brightest grey that a file can hold, of 0 and 255 or 65535; none = with 16 bits one
    HU a step from -1024 on."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError(f"window {self.window} must be (low, high)")
        return self


class PullSettings(Section):
    """How the bucket is read."""

    parallel: Annotated[int, Field(ge=1, le=64)] = 8
    """Downloads at the same time."""
    png: PngSettings = PngSettings()


class SplitSettings(Section):
    """How patients are divided. Once assigned, a patient stays where it is."""

    validation: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of patients for choosing the best epoch."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of patients in the frozen test set."""
    override: Path | None = None
    """CSV file with the columns ``series`` (a prefix below raw_prefix), and ``patient`` or ``split`` or both."""

    @model_validator(mode="after")
    def _something_to_train(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must stay below 1, or nothing is left to train on")
        return self


class PrepareSettings(Section):
    """How series become shards."""

    label_map: dict[int | Literal["others"], int | str] | None = None
    """Label value in the files -> class, by its value in the scheme or by its name (in scheme ``bone`` 0 background, 1
    patient outline, 2 bone); ``others`` stands for all values that are not named. None = found out by itself: by
    names of segments and files, and by the values by which the scheme says that files call its classes."""
    max_gap: Annotated[float, Field(gt=1)] = 1.5
    """Largest distance of two neighbouring slices, in units of the median distance, before a series is refused."""
    max_tilt_degrees: Annotated[float, Field(ge=0, le=45)] = 1.0
    """Largest gantry tilt: angle between the slice normal and the line along which slices are stacked."""
    parallel: Annotated[int, Field(ge=0)] = 0
    """Series prepared at the same time; 0 = one per CPU that the process may use, on a cluster as many as its nodes
    have CPUs and memory for."""
    splits: SplitSettings = SplitSettings()

    def class_of(self, scheme: LabelScheme) -> dict[int | str, int] | None:
        """Return ``label_map`` with the classes' values in a scheme.

        Raises:
            ValueError: a class is not in the scheme.
        """
        if self.label_map is None:
            return None
        found: dict[int | str, int] = {}
        for value, wanted in self.label_map.items():
            known = scheme.value_of(wanted) if isinstance(wanted, str) else wanted
            if known is None or not 0 <= known < scheme.size:
                classes = ", ".join(f"{number} {name}" for number, name in enumerate(scheme.names))
                raise ValueError(f"label_map leads to class {wanted}; classes of scheme {scheme.name} are {classes}")
            found[value] = known
        return found


class PreprocessSettings(Section):
    """From HU to what the network sees. Belongs to the model's card: training and prediction cannot differ."""

    window: tuple[float, float] = (-500.0, 1300.0)
    """HU that become 0 and 1; outside values are clipped."""
    spacing_mm: Annotated[float, Field(gt=0, le=10)] | None = 1.5
    """In-plane pixel spacing to which slices are resampled; none = as they are, which is also what ``size`` means."""
    size: Annotated[int, Field(ge=32, le=4096)] | None = None
    """Rows and columns to which every slice is resized, whatever its spacing, as the paper does; none = not."""
    slices: Literal[1, 3, 5, 7] = 1
    """Slices the network sees at once, as channels: the one to label in the middle, neighbours on both sides."""
    slice_distance_mm: Annotated[float, Field(gt=0, le=20)] | None = None
    """Distance of these neighbours; the nearest slice is taken. None = the very next slices."""

    @model_validator(mode="before")
    @classmethod
    def _size_stands_for_spacing(cls, values: Any) -> Any:
        sized = isinstance(values, dict) and values.get("size") is not None
        return {"spacing_mm": None, **values} if sized else values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.window[0] >= self.window[1]:
            raise ValueError(f"window {self.window} must be (low, high)")
        if self.size is not None and self.spacing_mm is not None:
            raise ValueError("size and spacing_mm exclude each other: set one of them to none")
        return self


class ModelSettings(Section):
    """The network."""

    architecture: str = "unet"
    encoder: str = "resnet18"
    """An encoder of segmentation-models-pytorch, ``tu-`` and the name of a timm model, or ``plain``: the encoder of
    the paper's own networks."""
    weights: Literal["none", "imagenet"] = "none"
    """What the encoder starts from: random numbers, or weights learned on ImageNet."""
    preprocess: PreprocessSettings = PreprocessSettings()

    @model_validator(mode="after")
    def _works(self) -> Self:
        if (reason := refusal(self.architecture, self.encoder)) is not None:
            raise ValueError(reason)
        return self


class TrainSettings(Section):
    """How the network is trained."""

    epochs: Annotated[int, Field(ge=1)] = 20
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps an epoch; none = as many as show one crop per training slice.
    Which slices these are, ``bone_share`` decides: with 0 it is every slice once."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Slices a step, of all workers together: how many workers share them changes neither steps nor result."""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """Most slices that a process computes at once, where memory is short: gradients add up over the rest of its share.
    None = all of its share. Only batch normalisation notices: it sees the slices that all workers compute at once.
    Dice is that of the whole batch, for one more forward pass a step."""
    crop: Annotated[int, Field(ge=32, multiple_of=32)] = 192
    """Side of the square, in pixels, cut from a slice for training."""
    optimizer: Literal["adamw", "adadelta"] = "adamw"
    """adadelta has Keras's constants: rho 0.95, epsilon 1e-7."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    schedule: Literal["cosine", "constant", "plateau", "one-cycle"] = "cosine"
    """cosine = warm-up, then half a cosine down to 1 % of the learning rate; plateau = lower whenever validation mean
    IoU no longer rises; one-cycle = up to the learning rate, down again, and momentum the other way round."""
    plateau_patience: Annotated[int, Field(ge=0)] = 5
    """Epochs without a better validation mean IoU that ``plateau`` bears with before it lowers the rate."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """By which ``plateau`` multiplies the rate."""
    early_stopping: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better validation mean IoU after which training ends before its last epoch; none = never."""
    early_stopping_gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """What validation mean IoU must rise by, at least, to count as better for ``early_stopping``."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential moving average of the weights, such as 0.999: the averaged network is then what is
    validated and saved. It averages over about 1 / (1 - decay) steps, and over fewer early on. None = no average."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    gradient_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Longer gradients are shortened to this; none = never."""
    loss: Loss = Loss.CROSS_ENTROPY_DICE
    augmentation: Literal["none", "basic", "ct", "paper"] = "ct"
    """ct = differences between scanners, in HU; basic = a few changes of pictures; paper = the paper's many."""
    bone_share: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Share of training crops that are centred near bone."""
    told_share: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Of the crops near bone, the share at least that shows slices whose bones are told apart, where others are
    labelled only as ``bone``; 0 = each slice as often as any other."""
    workers: Workers = 1
    """Processes that train together (DDP), one GPU each where there are GPUs: a number, or a range such as ``2..8`` of
    as many as the cluster has room for, now and when machines come or go."""
    backend: Literal["auto", "local", "ray"] = "auto"
    """``ray`` = Ray Train; ``local`` = the same loop in this process; auto = ray for two workers and more."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto = bf16 autocast where the hardware computes in it."""
    compile: Literal["off", "on", "auto"] = "off"
    """Whether ``torch.compile`` makes the training step's code, which takes a minute at the start of each run; auto =
    on a GPU only. Where it fails, training goes on without."""
    save_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps of an epoch after which the state is saved, too, and not only at its end; for long epochs on
    machines that may be lost. None = after each epoch only."""
    keep_last: Annotated[int, Field(ge=1)] = 2
    """States of a run that the bucket keeps to go on from, the newest ones, besides that of the best epoch. One is
    about four times the model. An older one is used where a newer one is damaged."""
    keep_final: bool = True
    """Whether a finished run's last state stays in the bucket, so that epochs can be added to it."""
    loader_threads: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Threads that prepare batches ahead of the network; 0 = none, auto = by the CPUs that each worker has."""
    pictures_every: Annotated[int, Field(ge=0)] = 5
    """Epochs from one picture of validation slices to the next; 0 = none are made."""
    weights_mirror: str | None = None
    """Folder that holds ``<encoder>/model.safetensors``; none = ``weights/`` in the bucket, then the internet."""
    seed: int = 0

    @property
    def workers_range(self) -> tuple[int, int]:
        """Fewest and most processes that train together."""
        least, _, most = str(self.workers).partition("..")
        return int(least), int(most or least)

    @field_validator("compile", mode="before")
    @classmethod
    def _yaml_word(cls, word: Any) -> Any:
        return {True: "on", False: "off"}.get(word, word) if isinstance(word, bool) else word  # YAML's on and off


class TuneSettings(Section):
    """The sweep. Each list is a set of choices; learning rates are drawn log-uniformly between the two bounds."""

    trials: Annotated[int, Field(ge=1)] = 4
    parallel: Annotated[int, Field(ge=1)] = 1
    """Trials at the same time."""
    epochs: Annotated[int, Field(ge=1)] = 4
    """Epochs of a trial that ASHA does not stop."""
    architectures: tuple[str, ...] = ("unet", "fpn")
    encoders: tuple[str, ...] = ("resnet18", "mobilenet_v2")
    losses: tuple[Loss, ...] = (Loss.CROSS_ENTROPY, Loss.CROSS_ENTROPY_DICE)
    learning_rate: tuple[float, float] = (1e-4, 3e-3)
    space: dict[str, Any] | None = None
    """Setting by dotted name -> what it is chosen from, in place of the lists above; or a YAML file with it."""
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    """asha = the poorer half of the trials stops at each milestone; pbt = population based training: poor trials go
    on from good ones, with changed settings; none = every trial has all its epochs."""
    searcher: Literal["optuna", "random", "grid"] = "optuna"
    """optuna = Tree-structured Parzen Estimator; grid = every combination, whatever ``trials`` says."""
    metrics: tuple[Literal["mean_iou", "bone_dice", "ms_per_slice"], ...] = ("mean_iou",)
    """What trials are chosen by, of validation. The first one ranks them and decides which stop; Optuna weighs all."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """Wall time after which no trial starts, and those that run stop after their epoch; none = no limit."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """The same for the hours of all GPUs that trials held together."""

    @model_validator(mode="after")
    def _measured(self) -> Self:
        if not self.metrics or self.metrics[0] == "ms_per_slice" or len(set(self.metrics)) < len(self.metrics):
            raise ValueError("metrics must begin with mean_iou or bone_dice, which rank trials, and name each once")
        return self

    @model_validator(mode="after")
    def _choices(self) -> Self:
        if not (self.architectures and self.encoders and self.losses):
            raise ValueError("architectures, encoders and losses each need at least one choice")
        if not 0 < self.learning_rate[0] < self.learning_rate[1]:
            raise ValueError(f"learning_rate {self.learning_rate} must be (low, high) above 0")
        for architecture, encoder in product(self.architectures, self.encoders):
            if (reason := refusal(architecture, encoder)) is not None:
                raise ValueError(f"every architecture must work with every encoder: {reason}")
        return self


class EvaluateSettings(Section):
    """What is measured."""

    surface_tolerance_mm: Annotated[float, Field(gt=0)] = 2.0
    """Tolerance of the normalised surface distance."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples behind a 95 % interval."""
    threshold_hu: float = 150.0
    """Threshold of the classical method that stands beside the network; on pelves 150 scores higher than 200."""
    batch_size: Annotated[int, Field(ge=1)] = 4


class PublishSettings(Section):
    """Where a model is registered and when it is promoted."""

    model_name: str = "bone"
    tracking_uri: str | None = None
    """MLflow tracking URI, without user and password; none = SQLite in the bucket."""
    headline: str = "bone"
    """Whose Dice decides: ``bone``, all bones together, or a bone or group of the scheme."""
    min_gain: float = 0.0
    """The 95 % interval of the gain of the headline's mean Dice over the champion must lie above this."""

    @field_validator("model_name")
    @classmethod
    def _is_a_models_name(cls, name: str) -> str:
        if not re.fullmatch(r"[^\s/:@%'\"]+", name):
            raise ValueError("a model's name is not empty and has no spaces, quotes or any of / : @ %; rename it so")
        return name

    @field_validator("tracking_uri")
    @classmethod
    def _no_password(cls, uri: str | None) -> str | None:
        if uri is not None and holds_password(uri):
            raise ValueError(
                "no user, password or token here: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or "
                "MLFLOW_TRACKING_TOKEN) instead, or for a database all of it as MLFLOW_TRACKING_URI"
            )
        return uri


class RaySettings(Section):
    """Where work that is spread over processes or machines runs."""

    address: str | None = None
    """A cluster: ``host:6379`` on one of its machines, ``ray://host:10001`` through Ray's client, or
    ``http://host:8265``, where the command is sent as a job. None = ``RAY_ADDRESS``, else a cluster on this machine
    for the time of the work."""

    @field_validator("address")
    @classmethod
    def _has_a_known_form(cls, address: str | None) -> str | None:
        try:
            way_of(address)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return address


class RunSettings(Section):
    """All settings of a run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,50}$")] | None = None
    """Name of the training run; starting a run of the same name again continues it. None = from settings and data."""
    scheme: LabelScheme = BONE_SCHEME
    """The classes to tell apart: ``bone``, ``pelvis``, ``skeleton``, or a YAML file with a scheme of your own."""
    store: StoreSettings = StoreSettings()
    pull: PullSettings = PullSettings()
    prepare: PrepareSettings = PrepareSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    tune: TuneSettings = TuneSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    publish: PublishSettings = PublishSettings()
    ray: RaySettings = RaySettings()
    recipe: Literal["boneseg", "paper", "paper-tf-keras"] = "boneseg"
    """Settings the run starts from; all that is given beside it stands above it. See ``recipes.RECIPES``."""

    @model_validator(mode="before")
    @classmethod
    def _on_recipe(cls, values: Any) -> Any:
        recipe = values.get("recipe", "boneseg") if isinstance(values, dict) else None
        return merged(RECIPES[recipe], values) if isinstance(recipe, str) and recipe in RECIPES else values

    @field_validator("scheme", mode="before")
    @classmethod
    def _by_name(cls, scheme: Any) -> Any:
        if isinstance(scheme, str) and scheme.lstrip().startswith("{"):
            try:
                return json.loads(scheme)  # as a form carries it
            except ValueError as error:
                raise ValueError(f"not valid JSON ({error})") from None
        if isinstance(scheme, str):
            if scheme not in BUILT_IN:
                raise ValueError(
                    f"there is no scheme of this name; known are {', '.join(BUILT_IN)}, or give a YAML file or JSON"
                )
            return BUILT_IN[scheme]
        return scheme

    @field_serializer("scheme")
    def _as_name(self, scheme: LabelScheme) -> Any:
        known = BUILT_IN.get(scheme.name) == scheme
        return scheme.name if known else scheme.model_dump(mode="json")

    @model_validator(mode="after")
    def _known_classes(self) -> Self:
        self.prepare.class_of(self.scheme)
        return self

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        size, crop = self.model.preprocess.size, self.train.crop
        if size is not None and crop > size:
            fitting = size // 32 * 32
            raise ValueError(f"train.crop {crop} is larger than model.preprocess.size {size}: set it to {fitting}")
        return self
