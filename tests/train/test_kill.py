import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boneseg.settings.schema import RunSettings
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace
from boneseg.train.train import train

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_run_killed_in_the_middle_continues_where_it_was(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    settings = quick.model_copy(update={"train": quick.train.model_copy(update={"epochs": 5})})
    kill_after_an_epoch(workspace, dataset_uri, settings)
    assert not workspace.store.exists(layout.run("quick", "result.json"))

    resumed = train(workspace, dataset_uri, settings)
    whole = train(workspace, dataset_uri, settings.model_copy(update={"name": "whole"}))
    assert [record.epoch for record in resumed.history] == list(range(1, 6))
    losses, expected = ([record.train_loss for record in result.history] for result in (resumed, whole))
    assert losses == pytest.approx(expected, rel=1e-3)
    assert resumed.best_mean_iou == pytest.approx(whole.best_mean_iou, rel=1e-2)


def kill_after_an_epoch(workspace: Workspace, dataset_uri: str, settings: RunSettings) -> None:
    """Start the run in another process and end that without warning as soon as an epoch is in the bucket."""
    store = workspace.store
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": store.credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": store.credentials.secret_key,
    }
    arguments = [str(workspace.folder), store.endpoint, store.bucket, dataset_uri, settings.model_dump_json()]
    command = [sys.executable, "-m", "tests.train.long_run", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        while not any(store.list(layout.run("quick", "states/"))):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.05)
        process.kill()
