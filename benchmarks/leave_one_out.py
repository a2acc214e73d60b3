"""Which recipe holds on patients it never saw: ``python -m benchmarks.leave_one_out --data FOLDER``.

Each patient in turn is left out, with all series of that patient; each recipe trains on the others and is measured on
the series left out: as they are, and as other scanners would have made them: pixels of 3 mm, pixels of 0.6 mm (only 12
slices in the middle), slices of 6 mm. One epoch, so that no choice of an epoch looks at any patient. The classical
threshold stands beside.

Can be interrupted: what is done is used again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from boneseg.dataset.manifest import Dataset, DatasetEntry, ShardRecord
from boneseg.dataset.shards import load_dataset, open_shard
from boneseg.evaluate.classical import threshold_segmentation
from boneseg.geometry import Geometry, axial
from boneseg.identity import stable_hash
from boneseg.inference import predict_volume
from boneseg.metrics import counts
from boneseg.models.checkpoint import fetch_model, load_model
from boneseg.scheme.roles import BONE, COMMON_CLASSES
from boneseg.settings.loading import parse_settings
from boneseg.settings.recipes import merged
from boneseg.settings.schema import RunSettings, Split, StoreSettings
from boneseg.stages import Stages
from boneseg.storage import embedded
from boneseg.storage.open import open_workspace
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace
from boneseg.train.train import train_run

Volume = tuple[NDArray[np.int16], NDArray[np.uint8], Geometry]

AS_IT_IS: dict[str, Any] = {"model": {"preprocess": {"spacing_mm": None}}}
CT_MM: dict[str, Any] = {"train": {"augmentation": "ct"}, "model": {"preprocess": {"spacing_mm": 1.5}}}
VARIANTS: dict[str, dict[str, Any]] = {
    "basic": merged(AS_IT_IS, {"train": {"augmentation": "basic"}}),
    "ct": merged(AS_IT_IS, {"train": {"augmentation": "ct"}}),
    "ct 1.5 mm": CT_MM,
    "ct 1.5 mm, 3 slices": merged(CT_MM, {"model": {"preprocess": {"slices": 3, "slice_distance_mm": 3.0}}}),
}
MEASURED_SLICES = 24
"""Of each series, spread evenly."""
THRESHOLD = "threshold 150 HU"


def as_it_is(volume: Volume) -> Volume:
    return volume


def one_hot(plane: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    return [(plane == label).astype(np.float32) for label in range(len(COMMON_CLASSES))]


def pixels(spacing_mm: float) -> Callable[[Volume], Volume]:
    """Scan with other pixels: averaged where they are larger, interpolated where they are smaller."""

    def scan(volume: Volume) -> Volume:
        hu, label, geometry = volume
        rows, columns = (
            max(1, round(n * mm / spacing_mm)) for n, mm in zip(hu.shape[1:], geometry.spacing[1:], strict=True)
        )
        method = cv2.INTER_AREA if rows < hu.shape[1] else cv2.INTER_LINEAR
        finer = np.stack([cv2.resize(plane, (columns, rows), interpolation=method) for plane in hu])
        shares = [
            [cv2.resize(part, (columns, rows), interpolation=method) for part in one_hot(plane)] for plane in label
        ]
        mask = np.stack([np.argmax(share, axis=0) for share in shares]).astype(np.uint8)
        return finer, mask, axial(finer.shape, (geometry.spacing[0], spacing_mm, spacing_mm))

    return scan


def middle(slices: int, scan: Callable[[Volume], Volume]) -> Callable[[Volume], Volume]:
    """Scan only some slices in the middle: fine pixels are many."""

    def part(volume: Volume) -> Volume:
        hu, label, geometry = volume
        first = max(0, (len(hu) - slices) // 2)
        hu, label = hu[first : first + slices], label[first : first + slices]
        return scan((hu, label, axial(hu.shape, geometry.spacing)))

    return part


def slabs(thickness_mm: float) -> Callable[[Volume], Volume]:
    """Scan with thick slices: means over neighbours, and the label most of them have."""

    def scan(volume: Volume) -> Volume:
        hu, label, geometry = volume
        together = max(1, round(thickness_mm / geometry.spacing[0]))
        used = len(hu) // together * together
        mean = hu[:used].reshape(-1, together, *hu.shape[1:]).mean(axis=1).round().astype(np.int16)
        parts = label[:used].reshape(-1, together, *hu.shape[1:])
        mask = np.stack([(parts == k).sum(axis=1) for k in range(len(COMMON_CLASSES))]).argmax(axis=0).astype(np.uint8)
        return mean, mask, axial(mean.shape, (geometry.spacing[0] * together, *geometry.spacing[1:]))

    return scan


SCANS: dict[str, Callable[[Volume], Volume]] = {
    "as it is": as_it_is,
    "3 mm pixels": pixels(3.0),
    "0.6 mm pixels, middle": middle(12, pixels(0.6)),
    "6 mm slices": slabs(6.0),
}


def scores(label: NDArray[np.uint8], mask: NDArray[np.uint8]) -> list[float]:
    """Return Dice, precision and recall of bone."""
    table = counts.confusion(label, mask)
    hit = float(table[BONE, BONE])
    return [
        2 * hit / float(table[BONE].sum() + table[:, BONE].sum()),
        hit / max(1.0, float(table[:, BONE].sum())),
        hit / max(1.0, float(table[BONE].sum())),
    ]


def measure(model_folder: Path | None, volume: Volume, threshold_hu: float) -> dict[str, list[float]]:
    """Measure a model, or the threshold, on every scan of a series."""
    made = {}
    for name, scan in SCANS.items():
        hu, label, geometry = scan(volume)
        indices = np.unique(np.linspace(0, len(hu) - 1, MEASURED_SLICES).round().astype(int)).tolist()
        if model_folder is None:
            mask = threshold_segmentation(hu, geometry, threshold_hu)[indices]
        else:
            network, card = load_model(model_folder)
            mask = predict_volume(network, card.model.preprocess, hu, geometry, slices=indices)
        made[name] = scores(label[indices], mask)
    return made


def without(dataset: Dataset, patient: str) -> Dataset:
    """Return the dataset with one patient as its test part and all others to train on.

    Validation needs a series; with a single epoch it decides nothing.
    """
    shards = [entry.shard for entry in dataset.entries]
    others = [shard for shard in shards if shard.patient != patient]
    entries = [DatasetEntry(split=Split.TRAIN, shard=shard) for shard in others]
    entries += [DatasetEntry(split=Split.VALIDATION, shard=others[0])]
    entries += [DatasetEntry(split=Split.TEST, shard=shard) for shard in shards if shard.patient == patient]
    name = stable_hash([dataset.dataset_hash, patient])
    return dataset.model_copy(update={"dataset_hash": name, "test_hash": name, "entries": tuple(entries)})


def volume_of(workspace: Workspace, record: ShardRecord) -> Volume:
    shard = open_shard(workspace, record)
    return np.asarray(shard.image), np.asarray(shard.label), record.geometry.geometry()


def run(
    workspace: Workspace, dataset: Dataset, variants: Sequence[str], patients: Sequence[str], base: dict[str, Any]
) -> list[dict[str, Any]]:
    """Train and measure every variant without every patient."""
    rows: list[dict[str, Any]] = []
    for patient in patients:
        part = without(dataset, patient)
        for variant in (THRESHOLD, *variants):
            settings = parse_settings(merged(base, VARIANTS.get(variant, {})))
            name = stable_hash([part.dataset_hash, variant, settings.model_dump(mode="json"), list(SCANS)])
            kept = workspace.folder / "leave-one-out" / f"{name}.json"
            if not kept.is_file():
                kept.parent.mkdir(exist_ok=True)
                kept.write_text(json.dumps(fold(workspace, part, variant, settings)))
            rows += json.loads(kept.read_text())
            for row in rows[-len(part.of(Split.TEST)) :]:
                line = "  ".join(f"{scan} {100 * values[0]:.1f}" for scan, values in row["scans"].items())
                print(f"{variant:<22}{row['source']:<42}{line}  ({row['seconds']:.0f} s)", flush=True)
    return rows


def fold(workspace: Workspace, dataset: Dataset, variant: str, settings: RunSettings) -> list[dict[str, Any]]:
    started, folder = time.monotonic(), None
    if variant != THRESHOLD:
        result = train_run(workspace, dataset, settings.model, settings.train)
        folder = fetch_model(workspace, result.model_uri)
    seconds = time.monotonic() - started
    return [
        {
            "variant": variant,
            "source": shard.source,
            "patient": shard.patient,
            "seconds": seconds,
            "scans": measure(folder, volume_of(workspace, shard), settings.evaluate.threshold_hu),
        }
        for shard in dataset.of(Split.TEST)
    ]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return one line a method and series, and the means over patients."""
    lines = ["| method | left out | " + " | ".join(SCANS) + " |", "|---|---|" + "---:|" * len(SCANS)]
    methods = list(dict.fromkeys(row["variant"] for row in rows))
    for source in dict.fromkeys(row["source"] for row in rows):
        for row in (row for method in methods for row in rows if (row["variant"], row["source"]) == (method, source)):
            lines.append(f"| {row['variant']} | {source} | " + " | ".join(map(_cell, row["scans"].values())) + " |")
    for method in methods:
        cells = []
        for scan in SCANS:
            by_patient: dict[str, list[list[float]]] = {}
            for row in rows:
                if row["variant"] == method:
                    by_patient.setdefault(row["patient"], []).append(row["scans"][scan])
            cells.append(_cell(np.mean([np.mean(values, axis=0) for values in by_patient.values()], axis=0)))
        lines.append(f"| **{method}** | **mean over patients** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    dice, precision, recall = (100 * value for value in values)
    return f"{dice:.1f} ({precision:.0f} / {recall:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder of labelled CT series.")
    parser.add_argument("--variants", default=";".join(VARIANTS), help="Separated by semicolons.")
    parser.add_argument("--left-out", default="", help="Only patients whose series' names hold one of these.")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--crop", type=int, default=192)
    arguments = parser.parse_args()
    base = {
        "store": StoreSettings(bucket="leave-one-out").model_dump(),
        "train": {"epochs": 1, "steps_per_epoch": arguments.steps, "crop": arguments.crop},
    }
    settings = parse_settings(base)
    folder = Path.cwd() / ".boneseg" / "leave-one-out"
    embedded.start(folder)
    try:
        workspace = open_workspace(settings, folder)
        upload_folder(workspace.store, arguments.data, settings.store.raw_prefix, settings.pull.parallel)
        stages = Stages(workspace, settings)
        stages.pull()
        dataset = load_dataset(workspace, stages.prepare().dataset_uri)
        shards = [entry.shard for entry in dataset.entries]
        words = [word for word in arguments.left_out.split(",") if word] or [""]
        chosen = dict.fromkeys(s.patient for word in words for s in shards if word in s.source)
        rows = run(workspace, dataset, [v for v in arguments.variants.split(";") if v], list(chosen), base)
        print(f"\nBone Dice % (precision / recall), {arguments.steps} steps\n\n{markdown(rows)}")
    finally:
        embedded.stop(folder)


if __name__ == "__main__":
    main()
