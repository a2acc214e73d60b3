"""Sweeps that are made up: no network takes part."""

import random
from collections.abc import Sequence
from typing import Any

from boneseg.models.card import EpochRecord
from boneseg.tune.records import FAILED, FINISHED, STOPPED, TrialRow, TuneResult

ENCODERS = {
    "resnet18": (11.7, 4.0),
    "resnet34": (21.3, 7.1),
    "mobilenet_v2": (3.5, 3.0),
    "timm-efficientnet-b3": (12.0, 9.5),
    "mit_b2": (24.7, 14.2),
}
"""Millions of parameters, milliseconds a slice."""
EPOCHS = 8
OUT_OF_MEMORY = "out of memory with a micro-batch of 1 slice in /srv/nodes/7/runs/unet; choose a smaller train.crop"


def epoch(number: int, mean_iou: float, seconds: float = 20.0) -> EpochRecord:
    """Return an epoch of a made-up training."""
    return EpochRecord(
        epoch=number,
        train_loss=1 / number,
        train_accuracy=0.9,
        validation_loss=1.1 / number,
        validation_accuracy=0.9,
        validation_iou=(0.95, 0.9, mean_iou),
        validation_dice=(0.97, 0.95, mean_iou),
        validation_mean_iou=mean_iou,
        validation_mean_dice=mean_iou,
        validation_bone_dice=2 * mean_iou / (1 + mean_iou),
        seconds=seconds,
    )


def row(chosen: dict[str, Any], scores: Sequence[float], state: str, why: str | None = None, **more: Any) -> TrialRow:
    """Return a trial that measured these mean IoUs, one an epoch."""
    history = tuple(epoch(number, score) for number, score in enumerate(scores, start=1))
    architecture, encoder = chosen["model.architecture"], chosen["model.encoder"]
    size, speed = ENCODERS.get(encoder, (5.0, 5.0))
    slower = {"unet": 1.0, "fpn": 1.3, "unetplusplus": 2.2}.get(architecture, 1.0)
    values: dict[str, Any] = {
        "architecture": architecture,
        "encoder": encoder,
        "learning_rate": chosen.get("train.learning_rate", 1e-3),
        "loss": chosen.get("train.loss", "cross_entropy_dice"),
        "epochs": len(scores),
        "best_mean_iou": max(scores, default=None),
        "bone_dice": history[-1].bone_dice if history else None,
        "run": f"{architecture}-{encoder}-{abs(hash(str(chosen))) % 10**8}",
        "error": why if state == FAILED else None,
        "choice": chosen,
        "history": history,
        "seconds": 20.0 * len(scores) + 5,
        "device_hours": (20.0 * len(scores) + 5) / 3600,
        "parameters": round(size * 1e6 * (1 + slower / 5)),
        "ms_per_slice": speed * slower,
        "stopped": why if state == STOPPED else None,
        "state": state,
    }
    return TrialRow(**{**values, **more})


def sweep(trials: int = 30, seed: int = 0) -> TuneResult:
    """Return a sweep of some trials: some stopped, some failed; the encoder matters, the seed of training does not."""
    dice = random.Random(seed)
    rows = []
    for number in range(trials):
        encoder = dice.choice(list(ENCODERS))
        choice: dict[str, Any] = {
            "model.architecture": dice.choice(["unet", "fpn", *(["unetplusplus"] if encoder != "mit_b2" else [])]),
            "model.encoder": encoder,
            "train.learning_rate": float(f"{10 ** dice.uniform(-4, -2):.4g}"),
            "train.loss": dice.choice(["cross_entropy", "cross_entropy_dice", "dice"]),
            "model.preprocess.slices": dice.choice([1, 3]),
            "train.seed": dice.choice([0, 1]),
        }
        if choice["model.preprocess.slices"] == 3:
            choice["model.preprocess.slice_distance_mm"] = dice.choice([2.0, 4.0])
        best = 0.55 + 0.06 * list(ENCODERS).index(encoder) + dice.gauss(0, 0.015)
        curve = [best * (1 - 0.6 / done**1.3) + dice.gauss(0, 0.004) for done in range(1, EPOCHS + 1)]
        if number % 10 == 9:
            rows.append(row(choice, curve[: number % 4], FAILED, OUT_OF_MEMORY))
        elif number % 3 == 1:
            done = dice.choice([1, 2, 4])
            reason = f"after epoch {done} it was not among the better half (ASHA)"
            rows.append(row(choice, curve[:done], STOPPED, reason))
        else:
            rows.append(row(choice, curve, FINISHED))
    return result_of(rows)


def result_of(rows: Sequence[TrialRow]) -> TuneResult:
    """Return the record of a sweep of these trials."""
    rows = sorted(rows, key=lambda one: (one.error is not None, -(one.best_mean_iou or 0)))
    return TuneResult(
        name="sweep-invented",
        best={},
        table_uri="s3://bucket/sweeps/sweep-invented/table.csv",
        rows=tuple(rows),
        reused=False,
        space={"model.encoder": list(ENCODERS), "train.learning_rate": {"from": 1e-4, "to": 1e-2, "log": True}},
        budget_used={"trials": len(rows), "hours": 0.4, "device_hours": 0.9},
    )
