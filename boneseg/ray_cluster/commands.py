"""A command of boneseg as a job: what of this machine it needs, and how it is put together again on the cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from boneseg.errors import SettingsError
from boneseg.identity import stable_hash
from boneseg.ray_cluster.handover import handed_over, loopback_name, require_reachable, text_of
from boneseg.ray_cluster.job_server import PREFIX
from boneseg.ray_cluster.node import received, set_up
from boneseg.ray_cluster.sealed import HandedOver
from boneseg.ray_cluster.versions import require_same, versions_here
from boneseg.settings.loading import work_folder
from boneseg.settings.schema import RunSettings
from boneseg.storage import embedded
from boneseg.storage.client import ObjectStore
from boneseg.storage.open import open_workspace
from boneseg.storage.scratch import scratch_folder

SETTINGS, OVERRIDE = "settings", "prepare.splits.override"
SCRATCH = "job-"


def to_hand_over(command: tuple[str, ...], settings: RunSettings) -> HandedOver:
    """Gather what a command needs on the cluster: its settings, files of this machine that they name, the store.

    Args:
        command: and its options, without those for settings.
        settings: of the run.

    Raises:
        SettingsError: a file that the settings name cannot be read.
        StoreError: the embedded store does not run.
    """
    files = {SETTINGS: settings.model_dump_json()}
    override = settings.prepare.splits.override
    if override is not None:
        files[OVERRIDE] = text_of(override, OVERRIDE)
    return handed_over(_store(settings), command, files)


def job_name(command: tuple[str, ...], settings: RunSettings) -> str:
    """Return the name of a command's job: the same command on the same bucket has the same."""
    values = settings.model_dump(mode="json", exclude={"ray"})
    run = f"{settings.name}-" if settings.name and command[0] == "train" else ""
    return f"{PREFIX}{command[0]}-{run}{stable_hash([command, values, _endpoint(settings)])[:8]}"


@contextmanager
def handed_command() -> Iterator[tuple[str, ...]]:
    """Yield the command that this process, of a job, is to run, with a file for its settings.

    Raises:
        SettingsError: this is no job of ours, the caller runs other code, or the store cannot be reached from here.
    """
    handed = received()
    if handed is None or not handed.command:
        raise SettingsError(
            "this command is for jobs on a Ray cluster: give yours with 'boneseg --ray http://host:8265'"
        )
    require_same(handed.versions, versions_here())
    set_up()
    require_reachable(handed.environment["BONESEG_S3_ENDPOINT"], handed.loopback, loopback_name())
    with scratch_folder(work_folder(), SCRATCH) as folder:
        values = json.loads(handed.files[SETTINGS])
        values["ray"] = {}  # it is there already
        if OVERRIDE in handed.files:
            override = folder / "patients.csv"
            override.write_text(handed.files[OVERRIDE], encoding="utf-8")
            values["prepare"]["splits"]["override"] = str(override)
        file = folder / "settings.yaml"
        file.write_text(json.dumps(values), encoding="utf-8")
        yield (*handed.command, "--config", str(file))


def _store(settings: RunSettings) -> ObjectStore:
    """Return the store of the settings; only the embedded one must be reached from here."""
    endpoint = _endpoint(settings)
    if endpoint is None:
        return open_workspace(settings).store
    return ObjectStore(endpoint, settings.store.bucket, region=settings.store.region)


def _endpoint(settings: RunSettings) -> str | None:
    return settings.store.endpoint or embedded.named_elsewhere()
