"""What a sweep was started with, in the bucket, so that any machine can go on with it by its name alone."""

from __future__ import annotations

from boneseg.errors import DataError
from boneseg.settings.schema import RunSettings
from boneseg.storage import layout
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace

START_FILE, RESULT_FILE = "start.json", "sweep.json"


class SweepStart(Record):
    """What a sweep was started with."""

    name: str
    dataset_uri: str
    settings: RunSettings


def remember(workspace: Workspace, name: str, dataset_uri: str, settings: RunSettings) -> None:
    """Write down what a sweep is started with."""
    start = SweepStart(name=name, dataset_uri=dataset_uri, settings=settings)
    workspace.store.write(layout.sweep(name, START_FILE), start.to_json(), "application/json")


def to_resume(workspace: Workspace, name: str, present: RunSettings) -> tuple[str, RunSettings]:
    """Return the dataset and the settings of a sweep that was started before.

    Args:
        workspace: bucket and local folder.
        name: of the sweep; empty = the one that is not finished.
        present: settings of this command: where the store is, how many trials run in parallel, and a larger budget.

    Raises:
        DataError: there is no such sweep, or several that are not finished.
    """
    names = _started(workspace)
    if not name:
        open_ones = [each for each in names if not workspace.store.exists(layout.sweep(each, RESULT_FILE))]
        if len(open_ones) != 1:
            found = (
                f"several sweeps are not finished: {', '.join(open_ones)}" if open_ones else "no sweep is unfinished"
            )
            raise DataError(f"{found}; name one with --resume NAME, or start one with 'boneseg tune'")
        name = open_ones[0]
    if name not in names:
        known = ", ".join(names) or "none"
        raise DataError(f"there is no sweep {name} in bucket {workspace.store.bucket}; known are {known}")
    key = layout.sweep(name, START_FILE)
    start = SweepStart.read(
        workspace.store.read(key),
        workspace.store.uri(key),
        "give the sweep's space and settings again, without --resume",
    )
    given = {key: getattr(present.tune, key) for key in ("parallel", "hours", "gpu_hours")}
    changes = {key: value for key, value in given.items() if key in present.tune.model_fields_set}
    tune = start.settings.tune.model_copy(update=changes)
    return start.dataset_uri, start.settings.model_copy(update={"tune": tune, "store": present.store})


def _started(workspace: Workspace) -> list[str]:
    prefix = layout.sweep("x").removesuffix("x/")
    keys = [item.key.removeprefix(prefix).split("/") for item in workspace.store.list(prefix)]
    return [parts[0] for parts in keys if parts[1:] == [START_FILE]]
