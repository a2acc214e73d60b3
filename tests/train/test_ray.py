import subprocess

import psutil
import pytest

from boneseg.config import RunSettings, Split
from boneseg.dataset.shards import load_dataset
from boneseg.models.card import EpochRecord
from boneseg.models.checkpoint import fetch_model, load_model
from boneseg.storage.workspace import Workspace
from boneseg.train.train import train_run


@pytest.mark.slow
def test_two_workers_finish_a_run_although_one_is_killed(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    settings = quick.train.model_copy(update={"workers": 2, "epochs": 4})
    killed: list[int] = []
    heard: list[int] = []

    def report(record: EpochRecord) -> None:
        heard.append(record.epoch)
        if not killed:
            killed.append(kill_a_worker())

    dataset = load_dataset(workspace, dataset_uri)
    result = train_run(workspace, dataset, quick.model, settings, "quick", report)

    assert killed
    assert [record.epoch for record in result.history] == [1, 2, 3, 4]
    assert heard.count(1) == 2  # once more when the new workers continued
    assert heard[-1] == 4
    assert load_model(fetch_model(workspace, result.model_uri))[1].history == result.history
    assert len(dataset.of(Split.VALIDATION)) == 1
    assert not workers(), "Ray is still there after training"
    assert_no_credentials(workspace)


def workers() -> list[psutil.Process]:
    """Return the Ray Train workers among this process's descendants."""
    family = psutil.Process().children(recursive=True)
    return [process for process in family if "TrainWorker" in " ".join(process.cmdline())]


def kill_a_worker() -> int:
    victim = workers()[-1]
    victim.kill()
    return victim.pid


def assert_no_credentials(workspace: Workspace) -> None:
    """Look through what Ray wrote, here and in its logs."""
    secret = workspace.store.credentials.secret_key
    places = [str(workspace.folder), "/tmp/ray/session_latest/"]
    found = subprocess.run(["grep", "-rlF", secret, *places], capture_output=True, text=True, check=False)
    assert found.stdout == ""
