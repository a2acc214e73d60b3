import csv
import io
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boneseg.dataset.shards import load_dataset
from boneseg.errors import SettingsError
from boneseg.settings.schema import Loss, RunSettings, TrainSettings, TuneSettings
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace
from boneseg.train.train import train
from boneseg.tune.resume import to_resume
from boneseg.tune.space import apply_best, overrides
from boneseg.tune.tune import sweep_name, tune
from tests.train.data import put_dataset

CHOICE = {
    "model.architecture": "fpn",
    "model.encoder": "resnet34",
    "train.learning_rate": 0.001235,
    "train.loss": "dice",
}


def test_the_best_choice_becomes_settings_and_leaves_the_rest() -> None:
    settings = RunSettings(train=TrainSettings(epochs=7))
    applied = apply_best(settings, overrides(CHOICE))
    assert (applied.model.architecture, applied.model.encoder) == ("fpn", "resnet34")
    assert (applied.train.learning_rate, applied.train.loss) == (0.001235, Loss.DICE)
    assert (applied.train.epochs, applied.prepare) == (7, settings.prepare)


def test_best_settings_from_elsewhere_are_refused() -> None:
    with pytest.raises(SettingsError, match="best settings of the sweep"):
        apply_best(RunSettings(), {"model": {"architectur": "fpn"}})


SPACE = {
    "train.learning_rate": [0.003, 1e30],  # the second one diverges
    "model.architecture": ["fpn", "unet"],
    "model.encoder": ["mobilenet_v2"],
}


KILLED_IN_SECOND_TRIAL = """
import os, pickle, signal, sys
from boneseg.tune.journal import Journal
from boneseg.tune.tune import tune

workspace, uri, settings = pickle.load(open(sys.argv[1], "rb"))
put = Journal.put

def put_and_die(journal, trial, seconds):
    put(journal, trial, seconds)
    if trial.number == 2 and trial.history:
        os.kill(os.getpid(), signal.SIGKILL)

Journal.put = put_and_die
tune(workspace, uri, settings)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_goes_on_on_another_machine_ranks_its_trials_and_is_used_again(
    workspace: Workspace, tmp_path: Path
) -> None:
    uri = put_dataset(workspace)
    settings = RunSettings(
        train=TrainSettings(crop=64, batch_size=4, steps_per_epoch=4, augmentation="none"),
        tune=TuneSettings(epochs=2, space=SPACE, searcher="grid", scheduler="none"),
    )
    given = tmp_path / "given.pickle"
    given.write_bytes(pickle.dumps((workspace, uri, settings)))
    driver = subprocess.run([sys.executable, "-c", KILLED_IN_SECOND_TRIAL, str(given)], check=False)
    assert driver.returncode == -signal.SIGKILL

    elsewhere = Workspace(workspace.store, tmp_path / "elsewhere")
    dataset, started_with = to_resume(elsewhere, "", RunSettings())
    assert (dataset, started_with.tune) == (uri, settings.tune)
    name = sweep_name(load_dataset(elsewhere, uri), settings)
    first = workspace.store.read(layout.sweep(name, "trials/0001.json"))
    result = tune(elsewhere, dataset, started_with)

    assert workspace.store.read(layout.sweep(name, "trials/0001.json")) == first  # it did not run again
    assert len(result.rows) == 4
    failed = [row for row in result.rows if row.error]
    finished = [row for row in result.rows if not row.error]
    assert {row.learning_rate for row in failed} == {1e30}
    assert all("not a number" in str(row.error) for row in failed)
    assert result.rows[-len(failed) :] == tuple(failed)
    scores = [row.best_mean_iou for row in finished]
    assert scores == sorted(scores, reverse=True)
    assert all(len(row.history) == 2 and row.seconds > 0 and row.ms_per_slice and row.parameters for row in finished)
    table = list(csv.DictReader(io.StringIO(workspace.store.read(workspace.store.key(result.table_uri)).decode())))
    assert [row["run"] for row in table] == [row.run for row in result.rows]

    best = apply_best(settings, result.best)
    assert (best.model.architecture, best.model.encoder) == (finished[0].architecture, finished[0].encoder)
    assert not any(item.key.endswith(".pt") for item in workspace.store.list("runs/"))

    again = tune(workspace, uri, settings)
    assert again.reused
    assert again.rows == result.rows
    # The best trial is a finished run: training with its settings as they were uses it again.
    trial = best.model_copy(update={"train": best.train.model_copy(update={"epochs": settings.tune.epochs})})
    assert train(workspace, uri, trial).run == finished[0].run
