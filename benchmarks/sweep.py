"""ASHA with TPE against a full grid, on phantoms: the best bone Dice that each finds, and what it costs.

``python -m benchmarks.sweep`` prints both and exits with 1 where ASHA with TPE misses the grid's best by more than 1 %
or takes more than 40 % of its epochs. ``--epochs``, ``--steps`` and ``--size`` make it longer or shorter. Cost is
counted in epochs trained, which other work on this machine does not change; device hours are printed too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from boneseg.settings.schema import RunSettings
from boneseg.stages import Stages
from boneseg.storage import embedded
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace
from boneseg.tune.records import TuneResult
from boneseg.tune.tune import tune

SPACE: dict[str, Any] = {
    "model.architecture": ["fpn", "unet"],
    "model.encoder": ["mobilenet_v2", "resnet18"],
    "train.learning_rate": {"loguniform": [1e-4, 1e-2], "points": 4},
}
MOST_LOST, MOST_COST = 0.01, 0.40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--trials", type=int, default=9, help="of ASHA with TPE; the grid has 16")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        embedded.start(folder)
        try:
            grid, ours = compare(folder, given)
        finally:
            embedded.stop(folder)
    sys.exit(0 if report(grid, ours) else 1)


def compare(folder: Path, given: argparse.Namespace) -> tuple[TuneResult, TuneResult]:
    """Run both sweeps on the same phantoms."""
    from boneseg.phantom.series import write_phantom

    for number in range(6):
        write_phantom(folder / "series" / f"phantom-{number}", number, slices=12, size=given.size)
    settings = settings_of(given)
    store = embedded.open_store(settings.store, folder)
    store.ensure_bucket()
    upload_folder(store, folder / "series", settings.store.raw_prefix, 2)
    workspace = Workspace(store, folder)
    stages = Stages(workspace, settings)
    stages.pull()
    dataset = stages.prepare().dataset_uri
    grid = tune(workspace, dataset, settings_of(given, searcher="grid", scheduler="none"))
    ours = tune(workspace, dataset, settings_of(given, searcher="optuna", scheduler="asha"))
    return grid, ours


def settings_of(given: argparse.Namespace, **sweep: Any) -> RunSettings:
    return RunSettings.model_validate(
        {
            "prepare": {"splits": {"validation": 0.34, "test": 0.16}},
            "model": {"preprocess": {"spacing_mm": None}},
            "train": {"crop": 96, "steps_per_epoch": given.steps, "augmentation": "none"},
            "tune": {
                "space": SPACE,
                "epochs": given.epochs,
                "trials": given.trials,
                "metrics": ["bone_dice"],
                **sweep,
            },
        }
    )


def report(grid: TuneResult, ours: TuneResult) -> bool:
    """Print both sides; return whether the aim is met."""
    best, cost, hours = zip(*(numbers(result) for result in (grid, ours)), strict=True)
    for name, result, number in (("grid", grid, 0), ("ASHA with TPE", ours, 1)):
        print(
            f"{name:<14} {len(result.rows):>3} trials {cost[number]:>4} epochs {hours[number]:.3f} device hours  "
            f"best bone Dice {best[number]:.4f}"
        )
    lost, share = 1 - best[1] / best[0], cost[1] / cost[0]
    print(f"bone Dice lost {lost:.2%} (at most {MOST_LOST:.0%}), cost {share:.0%} (at most {MOST_COST:.0%})")
    return bool(lost <= MOST_LOST and share <= MOST_COST)


def numbers(result: TuneResult) -> tuple[float, int, float]:
    """Return the best bone Dice of a sweep, the epochs it trained, and its device hours."""
    dice = max(record.bone_dice for row in result.rows for record in row.history)
    return dice, sum(row.epochs for row in result.rows), sum(row.device_hours for row in result.rows)


if __name__ == "__main__":
    main()
