"""A sweep without Ray, bucket or networks: trials are curves, time is counted by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from boneseg.dataset.manifest import Dataset
from boneseg.models.card import EpochRecord
from boneseg.settings.schema import RunSettings
from boneseg.storage.client import ObjectInfo
from boneseg.storage.workspace import Workspace
from boneseg.tune.conductor import Conductor, NoRule, Order, StopRule
from boneseg.tune.journal import Journal
from boneseg.tune.population import Population
from boneseg.tune.searchers import Searcher
from boneseg.tune.sweep import Sweep

SPACE: dict[str, Any] = {
    "model.architecture": ["unet", "fpn"],
    "model.encoder": ["resnet18", "mobilenet_v2", "resnet34"],
}


class Bucket:
    """What a journal needs of an object store."""

    bucket = "fake"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def uri(self, key: str) -> str:
        return f"s3://fake/{key}"

    def read(self, key: str) -> bytes:
        return self.objects[key]

    def exists(self, key: str) -> bool:
        return key in self.objects

    def write(self, key: str, data: bytes, content_type: str = "") -> str:
        self.objects[key] = data
        return self.uri(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield ObjectInfo(key, 1, "")

    def update(self, key: str, change: Callable[[bytes | None], bytes], content_type: str = "") -> bytes:
        self.objects[key] = change(self.objects.get(key))
        return self.objects[key]


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def settings(**tune: Any) -> RunSettings:
    return RunSettings.model_validate({"tune": {"space": SPACE, "epochs": 4, "trials": 6, **tune}})


def conductor(
    bucket: Any,
    settings: RunSettings,
    searcher: Searcher,
    folder: Path,
    rule: StopRule | None = None,
    clock: Any = None,
    population: Population | None = None,
) -> Conductor:
    """Start, or go on with, the sweep in a bucket."""
    sweep = Sweep("s", Workspace(bucket, folder), Dataset.made_of("f", (), ()), settings)
    journal = Journal(bucket, "s")
    journal.take_over()
    return Conductor(sweep, journal, searcher, rule or NoRule(), clock or Clock(), population)


def epoch(number: int, value: float) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        train_loss=1.0,
        train_accuracy=0.5,
        validation_loss=1.0,
        validation_accuracy=0.5,
        validation_iou=(value,),
        validation_dice=(value,),
        validation_mean_iou=value,
        validation_mean_dice=value,
        seconds=1.0,
    )


def play(conductor: Conductor, order: Order, curve: Callable[[int], float], until: int = 99, known: int = 0) -> bool:
    """Train a trial until an epoch; return whether it was stopped. At its last epoch it is finished."""
    conductor.begun(order.number, 1.0, has_gpus=True)
    last = min(until, conductor.settings.epochs)
    for number in range(1, last + 1):
        if number > known:
            conductor._clock.now += 10  # type: ignore[attr-defined]
        if conductor.heard(order.number, epoch(number, curve(number)), 1000, 5.0):
            return True
    if last == conductor.settings.epochs:
        conductor.finished(order.number)
    return False
