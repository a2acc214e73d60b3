"""Models, datasets and evaluations in a bucket, with whatever Dice a test needs."""

import torch

from boneseg.dataset.manifest import Dataset
from boneseg.evaluate.records import EvaluationResult, Measurement, SeriesResult, SplitSummary
from boneseg.evaluate.tables import all_tables
from boneseg.identity import stable_hash
from boneseg.models.build import build_model
from boneseg.models.card import EpochRecord
from boneseg.models.checkpoint import save_model, upload_model
from boneseg.settings.schema import EvaluateSettings, ModelSettings, Split, TrainSettings
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace

SMALL = ModelSettings(architecture="unet", encoder="tu-mobilenetv3_small_050")
PIXELS = 1000


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


def write_a_dataset(workspace: Workspace, name: str = "d1", test_hash: str = "t1") -> str:
    """Put an empty dataset into the bucket; return its URI."""
    dataset = Dataset(
        dataset_hash=name, test_hash=test_hash, fingerprint=f"fingerprint-{name}", entries=(), problems=()
    )
    return workspace.store.write(layout.dataset(name), dataset.to_json())


def write_an_evaluation(
    workspace: Workspace, model_hash: str, dice: dict[str, float], test_hash: str = "t1", dataset_hash: str = "d1"
) -> str:
    """Put an evaluation with a given bone Dice a series into the bucket; return its URI."""
    name = stable_hash([model_hash, dice, test_hash])
    series = tuple(a_series(key, value) for key, value in dice.items())
    result = EvaluationResult(
        evaluation_hash=name,
        evaluation_uri=workspace.store.uri(layout.evaluation(name, "evaluation.json")),
        report_uri=workspace.store.uri(layout.evaluation(name, "report.html")),
        model_hash=model_hash,
        test_hash=test_hash,
        dataset_hash=dataset_hash,
        name="unet/small",
        epoch=1,
        settings=EvaluateSettings(bootstrap=100),
        data=(SplitSummary(split=Split.TEST, series=len(dice), patients=len(dice), slices=len(dice)),),
        series=series,
        tables=all_tables(series, "unet/small", 1, EvaluateSettings(bootstrap=100)),
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


def a_series(name: str, dice: float) -> SeriesResult:
    """Return a series on which both methods reach a given bone Dice: as many misses as false alarms."""
    right = round(dice * PIXELS)
    wrong = PIXELS - right
    counts = (PIXELS, 0, 0, 0, PIXELS, wrong, 0, wrong, right)
    measured = Measurement(
        method="m",
        content=name,
        tolerance_mm=2.0,
        slices=(counts,),
        hd95_mm=1.0,
        average_surface_mm=0.5,
        normalised_surface=0.9,
        spacing_mm=(1.0, 1.0, 1.0),
    )
    return SeriesResult(series=name, content=name, patient=f"p-{name}", network=measured, threshold=measured)
