"""The steps as plain functions, on a real store."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from boneseg.errors import BonesegError, DataError, SettingsError
from boneseg.pipeline_step import RUN_VARIABLE, step
from boneseg.scheme import BUILT_IN
from boneseg.settings.loading import load_settings, parse_settings
from boneseg.settings.schema import RunSettings
from boneseg.storage import layout
from boneseg.storage.retry import StoreAwayError
from boneseg.storage.workspace import Workspace
from components.configure.component import configure
from components.evaluate.component import evaluate
from components.prepare.component import prepare
from components.publish.component import publish
from components.pull.component import pull
from components.train.component import train
from tests.pipelines.tiny import as_on_a_cluster, overrides, put_phantoms


def test_configure_keeps_defaults_for_what_is_not_given() -> None:
    assert parse_settings(configure.python_func()) == RunSettings()


def test_configure_takes_typed_parameters_and_lets_overrides_win() -> None:
    made = parse_settings(
        configure.python_func(name="2020", epochs=7, learning_rate=1e-5, bucket="mine", overrides=["train.epochs=9"])
    )
    assert made == load_settings(
        overrides=('name="2020"', "train.epochs=9", "train.learning_rate=0.00001", "store.bucket=mine")
    )


def test_a_form_holds_a_sweep_and_its_space() -> None:
    space = {"model.encoder": ["resnet18", "resnet34"], "train.learning_rate": {"loguniform": [1e-4, 1e-2]}}
    made = parse_settings(
        configure.python_func(space=json.dumps(space), trials=12, trial_epochs=6, searcher="random", hours=2.5)
    )
    assert made.tune.space == space
    assert (made.tune.trials, made.tune.epochs, made.tune.searcher, made.tune.hours) == (12, 6, "random", 2.5)
    assert made.tune.scheduler == RunSettings().tune.scheduler
    assert configure.python_func(space="") == configure.python_func()
    with pytest.raises(SettingsError, match=r"model\.encodre"):
        configure.python_func(space='{"model.encodre": ["resnet18"]}')
    with pytest.raises(SettingsError, match="valid YAML"):
        configure.python_func(space="{")


def test_a_form_names_a_scheme_or_holds_one() -> None:
    assert parse_settings(configure.python_func(scheme="pelvis")).scheme == BUILT_IN["pelvis"]
    classes = [{"name": "background", "role": "background"}, {"name": "femur", "role": "bone", "calls": ["thigh"]}]
    own = json.dumps({"name": "thighs", "classes": classes})
    made = parse_settings(configure.python_func(scheme=own))
    assert made.scheme.names == ("background", "femur")
    assert parse_settings(made.model_dump_json()) == made
    with pytest.raises(SettingsError, match=r"scheme = 'hip': .*known are bone, pelvis, skeleton"):
        configure.python_func(scheme="hip")
    with pytest.raises(SettingsError, match=r"scheme = .*"):
        configure.python_func(scheme='{"name": "x"')


def test_fields_left_as_they_are_follow_the_recipe_and_others_stand_above_it() -> None:
    made = parse_settings(configure.python_func(recipe="paper", architecture="", epochs=0, learning_rate=0.0))
    assert made == load_settings(overrides=("recipe=paper",))
    usual = RunSettings()
    typed = {"epochs": usual.train.epochs, "batch_size": usual.train.batch_size, "loss": usual.train.loss.value}
    made = parse_settings(configure.python_func(recipe="paper", architecture="unet", encoder="resnet18", **typed))
    assert (made.model.architecture, made.model.encoder) == ("unet", "resnet18")
    assert (made.train.epochs, made.train.batch_size, made.train.loss) == (20, 8, usual.train.loss)
    assert (made.train.optimizer, made.model.preprocess.size) == ("adadelta", 512)


def test_a_retry_does_not_repeat_what_cannot_end_otherwise(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_a_cluster(workspace, monkeypatch)
    monkeypatch.setenv(RUN_VARIABLE, "run-1")
    settings = load_settings(overrides=(f"store.bucket={workspace.store.bucket}",))
    with pytest.raises(DataError, match="nothing is below"):
        pull.python_func(settings=settings.model_dump_json())
    upload = workspace.store.write("raw/a.txt", b"now there is something")
    with pytest.raises(BonesegError, match=r"nothing is below .* \(found at the first try"):
        pull.python_func(settings=settings.model_dump_json())
    assert upload
    monkeypatch.setenv(RUN_VARIABLE, "run-2")
    with pytest.raises(DataError, match="no CT series"):
        pull.python_func(settings=settings.model_dump_json())


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StoreAwayError("the store does not answer"), True),
        (OSError("the node's disk"), True),
        (SettingsError("a wrong setting"), False),
    ],
)
def test_only_failures_around_the_work_are_tried_again(
    error: Exception, again: bool, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_a_cluster(workspace, monkeypatch)
    monkeypatch.setenv(RUN_VARIABLE, "run")
    settings = load_settings(overrides=(f"store.bucket={workspace.store.bucket}",))
    with pytest.raises(type(error)), step("train", settings):
        raise error
    ran = False
    with contextlib.suppress(BonesegError), step("train", settings):
        ran = True
    assert ran == again


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"loss": "focal"}, "train.loss = 'focal'"),
        ({"endpoint": "s3.example.org"}, "must start with http"),
        ({"overrides": ["train.epoch=3"]}, "unknown key"),
        ({"epochs": -1}, "train.epochs = -1"),
    ],
)
def test_configure_names_a_wrong_value_before_any_data_is_touched(given: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        configure.python_func(**given)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_steps_carry_a_bucket_of_series_to_a_published_model(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_a_cluster(workspace, monkeypatch)
    put_phantoms(workspace, tmp_path)
    settings = configure.python_func(overrides=overrides(workspace, tmp_path))

    def artifact(kind: type, name: str) -> Any:
        return kind(name=name, uri=str(tmp_path / name), metadata={})

    fingerprint, catalogue_uri, splits_hash, changed, code_version = pull.python_func(settings=settings)
    assert changed
    dataset = artifact(dsl.Dataset, "dataset")
    dataset_uri, *_ = prepare.python_func(settings, catalogue_uri, splits_hash, code_version, dataset)
    assert dataset.metadata["series"] == {"train": 1, "validation": 1, "test": 1}

    model, training = artifact(dsl.Model, "model"), artifact(dsl.Metrics, "training")
    model_uri, model_hash = train.python_func(settings, dataset_uri, code_version, model, training)
    assert (model.metadata["model_uri"], model.metadata["model_hash"]) == (model_uri, model_hash)
    assert training.metadata["best epoch"] == 1

    metrics, confusion = artifact(dsl.Metrics, "metrics"), artifact(dsl.ClassificationMetrics, "confusion")
    summary, report, tables = (
        artifact(dsl.Markdown, "summary"),
        artifact(dsl.HTML, "report"),
        artifact(dsl.Dataset, "t"),
    )
    evaluation_uri, _ = evaluate.python_func(
        settings, model_uri, dataset_uri, code_version, metrics, confusion, summary, report, tables
    )
    assert 0 <= metrics.metadata["bone_dice_patient"] <= 1
    json.dumps([metrics.metadata, confusion.metadata], allow_nan=False)
    rows = [row["row"] for row in confusion.metadata["confusionMatrix"]["rows"]]
    assert sum(map(sum, rows)) == 12 * 96 * 96
    assert "| Method |" in Path(summary.path).read_text()
    assert "<html" in Path(report.path).read_text()

    decision = artifact(dsl.Markdown, "decision")
    version, promoted, reason = publish.python_func(
        settings, model_uri, evaluation_uri, dataset_uri, code_version, decision
    )
    assert (version, promoted) == ("1", True)
    assert reason in Path(decision.path).read_text()
    assert json.loads(workspace.store.read(layout.published("bone")))["fingerprint"] == fingerprint
    assert not pull.python_func(settings=settings)[3], "nothing changed since the model was published"
