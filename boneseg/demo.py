"""The main job on this machine with embedded defaults: store, data, all stages, and where to find what came out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boneseg.atomic_write import atomic_write_bytes
from boneseg.errors import OneSeriesError
from boneseg.local_dataset import bucket_of, make_dataset, store_here, upload
from boneseg.progress import track
from boneseg.settings.loading import check_headline, load_settings, work_folder
from boneseg.settings.recipes import merged
from boneseg.settings.schema import RunSettings, Split, StoreSettings
from boneseg.stages import Stages
from boneseg.storage.workspace import Workspace

PATIENTS, SLICES = 8, 24

PHANTOM_SETTINGS: dict[str, dict[str, Any]] = {"train": {"epochs": 4, "steps_per_epoch": 45}}
"""What makes a useful network of eight phantoms in about two minutes on two cores."""

DATA_SETTINGS: dict[str, dict[str, Any]] = {"train": {"epochs": 8, "steps_per_epoch": 100}}
"""For a handful of real series: about a quarter of an hour on two cores."""


def run_demo(
    data: Path | None, keep: bool, config: Path | None, overrides: tuple[str, ...], say: Callable[[str], None]
) -> None:
    """Run all stages on phantoms or on a folder of series.

    Args:
        data: folder of CT series with labels; none = phantoms.
        keep: leave the embedded store running.
        config: YAML file with settings.
        overrides: settings as ``section.key=value``.
        say: prints a line for the user.

    Raises:
        DataError: the folder does not exist or nothing in it can be used.
    """
    settings = _settings(data, config, overrides)
    started = time.monotonic()
    with store_here(settings.store, keep, say) as store:
        stages = Stages(Workspace(store, work_folder(), settings.store.raw_prefix), settings)
        folder = data if data is not None else _phantoms(work_folder() / "phantoms")
        upload(store, folder, settings, say)
        _run_stages(stages, say)
        say(f"finished in {time.monotonic() - started:.0f} s")


def _settings(data: Path | None, config: Path | None, overrides: tuple[str, ...]) -> RunSettings:
    defaults = PHANTOM_SETTINGS if data is None else DATA_SETTINGS
    bucket = "demo" if data is None else bucket_of(data)
    given = load_settings(config, overrides)
    base = RunSettings(store=StoreSettings(bucket=bucket)).model_dump()
    settings = RunSettings.model_validate(merged(merged(base, defaults), given.model_dump(exclude_unset=True)))
    check_headline(settings)
    return settings


def _phantoms(folder: Path) -> Path:
    from boneseg.phantom.series import write_phantom

    for seed in track(range(PATIENTS), "phantoms"):
        if not (folder / f"phantom-{seed:04d}" / "label.dcm").is_file():
            write_phantom(folder / f"phantom-{seed:04d}", seed, slices=SLICES)
    return folder


def _run_stages(stages: Stages, say: Callable[[str], None]) -> None:
    from boneseg.evaluate.console import console_table

    try:
        prepared = make_dataset(stages, say)
    except OneSeriesError:
        say("there is one series only: it is trained on, and nothing is left to measure the network on")
        prepared = make_dataset(Stages(stages.workspace, _untested(stages.settings)), say)
    trained = stages.train()
    say(f"train: run {trained.run}{' (reused)' if trained.reused else ''}, best epoch {trained.best_epoch}")
    if not prepared.series[Split.TEST]:
        say(_not_measured(trained.model_uri))
        return
    evaluated = stages.evaluate()
    published = stages.publish()
    report = stages.workspace.folder / "report.html"
    atomic_write_bytes(report, stages.workspace.store.read(stages.workspace.store.key(evaluated.report_uri)))
    say(f"\n{console_table(evaluated)}\n")
    say(f"report  {report}")
    say(f"model   {trained.model_uri}")
    say(f"run     {stages.workspace.run_folder(trained.run)}")
    say(f"publish {published.name} version {published.version}: {published.reason}")


def _untested(settings: RunSettings) -> RunSettings:
    splits = settings.prepare.splits.model_copy(update={"test": 0.0})
    return settings.model_copy(update={"prepare": settings.prepare.model_copy(update={"splits": splits})})


def _not_measured(model_uri: str) -> str:
    return (
        f"\nmodel   {model_uri}\nIt is neither measured nor published, for no patient is in the test set: add series "
        "of another patient and run the same command again."
    )
