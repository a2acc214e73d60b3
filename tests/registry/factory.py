"""Models, datasets and evaluations in a bucket, with whatever Dice a test needs."""

import uuid

import torch
from mlflow import MlflowClient

from boneseg.dataset.manifest import Dataset, DatasetEntry, ShardRecord
from boneseg.evaluate.records import (
    EvaluationResult,
    Measurement,
    RegionMeasure,
    SeriesResult,
    SplitSummary,
    evaluation_identity,
)
from boneseg.evaluate.tables import all_tables
from boneseg.geometry import axial
from boneseg.models.build import build_model
from boneseg.models.card import EpochRecord
from boneseg.models.checkpoint import save_model, upload_model
from boneseg.settings.schema import EvaluateSettings, ModelSettings, Split, TrainSettings
from boneseg.storage import layout
from boneseg.storage.catalogue import GeometryRecord, ObjectRef
from boneseg.storage.workspace import Workspace

SMALL = ModelSettings(architecture="unet", encoder="tu-mobilenetv3_small_050")
PIXELS = 1000
GOOD = {"a": 0.8, "b": 0.9, "c": 0.85, "d": 0.83, "e": 0.87, "f": 0.835}
BETTER = {series: dice + gain / 100 for (series, dice), gain in zip(GOOD.items(), (5, 6, 4, 5, 6, 5), strict=True)}
BAD = {series: dice - 0.5 for series, dice in GOOD.items()}


def client_of(workspace: Workspace) -> MlflowClient:
    """Open what the bucket holds as its registry, in a copy."""
    path = workspace.folder / f"seen-{uuid.uuid4().hex}.db"
    workspace.store.download(layout.REGISTRY_STATE, path)
    return MlflowClient(f"sqlite:///{path}", f"sqlite:///{path}")


def upload_a_model(workspace: Workspace, seed: int) -> tuple[str, str]:
    """Put a small network into the bucket; return URI and hash."""
    torch.manual_seed(seed)
    epoch = EpochRecord(
        epoch=1,
        train_loss=0.5,
        train_accuracy=0.8,
        validation_loss=0.6,
        validation_accuracy=0.7,
        validation_iou=(0.9, 0.8, 0.7),
        validation_dice=(0.95, 0.9, 0.8),
        validation_mean_iou=0.8,
        validation_mean_dice=0.88,
        seconds=1.5,
    )
    card = save_model(
        workspace.folder / f"made-{seed}",
        build_model(SMALL),
        model=SMALL,
        train=TrainSettings(),
        dataset_hash="d0",
        fingerprint="f0",
        run=f"run-{seed}",
        best_epoch=1,
        history=(epoch,),
    )
    return upload_model(workspace, workspace.folder / f"made-{seed}"), card.model_hash


def a_dataset(series: str = "abcdefghijkl") -> Dataset:
    """Return a dataset with test series of these letters, each of a patient of its own."""
    entries = tuple(DatasetEntry(split=Split.TEST, shard=a_shard(letter)) for letter in series)
    return Dataset.made_of(f"fingerprint-{series}", entries, ())


def write_a_dataset(workspace: Workspace, dataset: Dataset | None = None) -> str:
    """Put a dataset into the bucket, ``a_dataset`` unless given another; return its URI."""
    dataset = dataset or a_dataset()
    return workspace.store.write(layout.dataset(dataset.dataset_hash), dataset.to_json())


def a_shard(series: str) -> ShardRecord:
    """Return the record of a series without any pixels."""
    nothing = ObjectRef(key=f"shards/{series}/x.npy", etag="", size=0, sha256="")
    return ShardRecord(
        shard=series,
        series=series,
        source=series,
        patient=f"p-{series}",
        study=series,
        geometry=GeometryRecord.of(axial((1, 4, 4), (1.0, 1.0, 1.0))),
        hu_range=(0, 1),
        class_counts=((1, 1, 1),),
        outline_computed=False,
        pixel_hash=series,
        image=nothing,
        label=nothing,
    )


def write_an_evaluation(
    workspace: Workspace, model_hash: str, dice: dict[str, float], regions: dict[str, float] | None = None
) -> str:
    """Put an evaluation on ``a_dataset`` with a given bone Dice a series into the bucket; return its URI.

    ``regions``: of each class or group, how far its Dice is from that of bone.
    """
    settings, dataset = EvaluateSettings(bootstrap=100), a_dataset()
    name = evaluation_identity(model_hash, dataset.test_hash, settings)
    series = tuple(a_series(key, value, model_hash, regions) for key, value in dice.items())
    result = EvaluationResult(
        evaluation_hash=name,
        evaluation_uri=workspace.store.uri(layout.evaluation(name, "evaluation.json")),
        report_uri=workspace.store.uri(layout.evaluation(name, "report.html")),
        model_hash=model_hash,
        test_hash=dataset.test_hash,
        dataset_hash=dataset.dataset_hash,
        name="unet/small",
        epoch=1,
        settings=settings,
        data=(SplitSummary(split=Split.TEST, series=len(dice), patients=len(dice), slices=len(dice)),),
        series=series,
        tables=all_tables(series, "unet/small", 1, settings),
        problems=(),
        bone_dice=sum(dice.values()) / len(dice),
        bone_dice_interval=None,
        bone_dice_pooled=0.5,
        threshold_bone_dice=0.5,
        threshold_bone_dice_interval=None,
        threshold_bone_dice_pooled=0.5,
        confusion=((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        files=(),
        versions={},
    )
    return workspace.store.write(layout.evaluation(name, "evaluation.json"), result.to_json())


def a_region(name: str, dice: float) -> RegionMeasure:
    """Return a class or group with a given Dice."""
    right = round(dice * PIXELS)
    return RegionMeasure(
        name=name,
        hits=right,
        missed=PIXELS - right,
        extra=PIXELS - right,
        untold=0,
        hd95_mm=1.0,
        average_surface_mm=0.5,
        normalised_surface=0.9,
    )


def a_series(name: str, dice: float, model_hash: str, regions: dict[str, float] | None = None) -> SeriesResult:
    """Return a series on which both methods reach a given bone Dice: as many misses as false alarms."""
    right = round(dice * PIXELS)
    wrong = PIXELS - right
    counts = (PIXELS, 0, 0, 0, PIXELS, wrong, 0, wrong, right)
    measured = Measurement(
        method=model_hash,
        content=name,
        tolerance_mm=2.0,
        slices=(counts,),
        hd95_mm=1.0,
        average_surface_mm=0.5,
        normalised_surface=0.9,
        spacing_mm=(1.0, 1.0, 1.0),
        regions=tuple(a_region(region, dice + gain) for region, gain in (regions or {}).items()),
    )
    return SeriesResult(series=name, content=name, patient=f"p-{name}", network=measured, threshold=measured)
