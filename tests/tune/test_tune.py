import csv
import io

import pytest

from boneseg.errors import SettingsError
from boneseg.settings.schema import Loss, ModelSettings, RunSettings, TrainSettings, TuneSettings
from boneseg.storage.workspace import Workspace
from boneseg.train.train import train
from boneseg.tune.space import apply_best, overrides
from boneseg.tune.tune import tune
from tests.train.data import put_dataset

CHOICE = {"architecture": "fpn", "encoder": "resnet34", "learning_rate": 0.00123456, "loss": "dice"}


def test_the_best_choice_becomes_settings_and_leaves_the_rest() -> None:
    settings = RunSettings(train=TrainSettings(epochs=7))
    applied = apply_best(settings, overrides(CHOICE))
    assert (applied.model.architecture, applied.model.encoder) == ("fpn", "resnet34")
    assert (applied.train.learning_rate, applied.train.loss) == (0.001235, Loss.DICE)
    assert (applied.train.epochs, applied.prepare) == (7, settings.prepare)


def test_best_settings_from_elsewhere_are_refused() -> None:
    with pytest.raises(SettingsError, match="best settings of the sweep"):
        apply_best(RunSettings(), {"model": {"architectur": "fpn"}})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_ranks_its_trials_goes_on_after_a_failure_and_is_used_again(workspace: Workspace) -> None:
    uri = put_dataset(workspace)
    settings = RunSettings(
        model=ModelSettings(),
        train=TrainSettings(crop=64, batch_size=4, steps_per_epoch=4, augmentation="none"),
        tune=TuneSettings(
            trials=4, epochs=2, architectures=("fpn", "pspnet"), encoders=("mobilenet_v2", "tu-rexnet_100")
        ),  # no rule of pairs says that pspnet does not work with rexnet: it is found out when training starts
    )
    result = tune(workspace, uri, settings)

    assert len(result.rows) == 4
    failed = [row for row in result.rows if row.error]
    finished = [row for row in result.rows if not row.error]
    assert {(row.architecture, row.encoder) for row in failed} == {("pspnet", "tu-rexnet_100")}
    assert result.rows[-len(failed) :] == tuple(failed)
    scores = [row.best_mean_iou for row in finished]
    assert scores == sorted(scores, reverse=True)
    table = list(csv.DictReader(io.StringIO(workspace.store.read(workspace.store.key(result.table_uri)).decode())))
    assert [row["run"] for row in table] == [row.run for row in result.rows]

    best = apply_best(settings, result.best)
    assert (best.model.architecture, best.model.encoder) == (finished[0].architecture, finished[0].encoder)
    assert not any(item.key.endswith("state.pt") for item in workspace.store.list("runs/"))

    again = tune(workspace, uri, settings)
    assert again.reused
    assert again.rows == result.rows
    # The best trial is a finished run: training with its settings as they were uses it again.
    trial = best.model_copy(update={"train": best.train.model_copy(update={"epochs": settings.tune.epochs})})
    assert train(workspace, uri, trial).run == finished[0].run
