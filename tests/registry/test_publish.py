"""Models into the registry and out of it, on a real store and a real MLflow."""

import traceback
from pathlib import Path

import pytest

from boneseg.dataset.prepare import prepare
from boneseg.errors import ModelError, RecordError
from boneseg.evaluate.evaluate import evaluate
from boneseg.ingest.pull import pull
from boneseg.registry.publish import publish, resolve
from boneseg.settings.loading import load_settings
from boneseg.settings.schema import RunSettings, SplitSettings
from boneseg.storage import layout
from boneseg.storage.published import Published, read_published
from boneseg.storage.workspace import Workspace
from tests.pipelines.tiny import SPLITS, put_phantoms
from tests.registry.factory import BAD, BETTER, GOOD, a_dataset, client_of, upload_a_model, write_an_evaluation

SETTINGS = RunSettings()


def test_the_first_model_becomes_champion_and_can_be_found_by_every_name(workspace: Workspace, dataset: str) -> None:
    uri, model_hash = upload_a_model(workspace, 1)
    result = publish(workspace, uri, write_an_evaluation(workspace, model_hash, GOOD), dataset, SETTINGS)
    assert (result.name, result.version, result.promoted, result.champion) == ("bone", "1", True, "bone:1")
    for ref in ("bone", "bone:1", "bone@champion", "bone@challenger", uri):
        folder = resolve(workspace, ref, SETTINGS)
        assert (folder / "model.safetensors").is_file(), ref
        assert resolve(workspace, str(folder), SETTINGS) == folder


def test_a_worse_model_stays_challenger_and_a_better_one_takes_over(workspace: Workspace, dataset: str) -> None:
    results = []
    for seed, dice in ((1, GOOD), (2, BAD), (3, BETTER)):
        uri, model_hash = upload_a_model(workspace, seed)
        results.append(publish(workspace, uri, write_an_evaluation(workspace, model_hash, dice), dataset, SETTINGS))
    assert [result.promoted for result in results] == [True, False, True]
    assert [result.champion for result in results] == ["bone:1", "bone:1", "bone:3"]
    client = client_of(workspace)
    assert client.get_model_version_by_alias("bone", "champion").source == uri
    kept = client.get_model_version("bone", "2")
    assert kept.tags["reason"] == results[1].reason
    assert kept.description.startswith(results[1].reason)


def test_publishing_the_same_again_changes_nothing(workspace: Workspace, dataset: str) -> None:
    first, first_hash = upload_a_model(workspace, 1)
    second, second_hash = upload_a_model(workspace, 2)
    evaluation = write_an_evaluation(workspace, first_hash, GOOD)
    before = publish(workspace, first, evaluation, dataset, SETTINGS)
    publish(workspace, second, write_an_evaluation(workspace, second_hash, BETTER), dataset, SETTINGS)
    again = publish(workspace, first, evaluation, dataset, SETTINGS)
    assert (again.version, again.promoted, again.reason, again.run_id) == ("1", True, before.reason, before.run_id)
    assert again.champion == "bone:2"
    assert len(client_of(workspace).search_model_versions("name = 'bone'")) == 2


def test_run_and_version_lead_back_to_the_data(workspace: Workspace, dataset: str) -> None:
    uri, model_hash = upload_a_model(workspace, 1)
    evaluation = write_an_evaluation(workspace, model_hash, GOOD)
    result = publish(workspace, uri, evaluation, dataset, SETTINGS)
    client = client_of(workspace)
    tags = client.get_model_version("bone", "1").tags
    assert tags["model_hash"] == model_hash
    made = a_dataset()
    assert (tags["dataset_hash"], tags["test_hash"], tags["fingerprint"]) == (
        made.dataset_hash,
        made.test_hash,
        made.fingerprint,
    )
    assert tags["evaluation_uri"] == evaluation
    assert tags["report_uri"].endswith("report.html")
    run = client.get_run(result.run_id)
    assert run.data.params["model.architecture"] == "unet"
    assert run.data.params["train.learning_rate"] == "0.001"
    assert run.data.metrics["test_bone_dice_patient"] == pytest.approx(0.8475)
    history = client.get_metric_history(result.run_id, "validation_iou_bone")
    assert [(point.step, point.value) for point in history] == [(1, 0.7)]


def test_the_fingerprint_is_written_down_for_the_next_scheduled_run(workspace: Workspace, dataset: str) -> None:
    uri, model_hash = upload_a_model(workspace, 1)
    publish(workspace, uri, write_an_evaluation(workspace, model_hash, GOOD), dataset, SETTINGS)
    state, _ = read_published(workspace.store, "bone")
    assert state == Published(
        fingerprint=a_dataset().fingerprint, dataset_hash=a_dataset().dataset_hash, model="bone:1"
    )
    assert read_published(workspace.store, "hip") == (None, None)


def test_the_card_beside_the_model_tells_what_a_user_needs(workspace: Workspace, dataset: str) -> None:
    uri, model_hash = upload_a_model(workspace, 1)
    publish(workspace, uri, write_an_evaluation(workspace, model_hash, GOOD), dataset, SETTINGS)
    readme = workspace.store.read(layout.model(model_hash, "README.md")).decode()
    for part in (
        "# bone",
        "not a medical device",
        "| Method",
        "boneseg predict --model bone@champion",
        a_dataset().dataset_hash,
        model_hash,
    ):
        assert part in readme
    assert "p-a" not in readme  # no patient, not even under a keyed hash


def test_the_registry_follows_the_bucket_to_another_machine(workspace: Workspace, dataset: str, tmp_path: Path) -> None:
    elsewhere = Workspace(workspace.store, tmp_path / "elsewhere")
    for seed, place, dice in ((1, workspace, GOOD), (2, elsewhere, BETTER), (3, workspace, BAD)):
        uri, model_hash = upload_a_model(place, seed)
        result = publish(place, uri, write_an_evaluation(place, model_hash, dice), dataset, SETTINGS)
    assert (result.version, result.champion) == ("3", "bone:2")


def test_an_interrupted_publish_is_finished_by_the_next(
    workspace: Workspace, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, model_hash = upload_a_model(workspace, 1)
    evaluation = write_an_evaluation(workspace, model_hash, GOOD)
    with monkeypatch.context() as patch:
        patch.setattr("boneseg.registry.client.Registry.tag", _killed)
        with pytest.raises(KeyboardInterrupt):
            publish(workspace, uri, evaluation, dataset, SETTINGS)
    assert read_published(workspace.store, "bone") == (None, None)
    result = publish(workspace, uri, evaluation, dataset, SETTINGS)
    assert (result.version, result.promoted) == ("1", True)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("lost", ["card", "weights"])
def test_a_champion_whose_files_are_gone_or_damaged_gives_way(workspace: Workspace, dataset: str, lost: str) -> None:
    first, first_hash = upload_a_model(workspace, 1)
    evaluation = write_an_evaluation(workspace, first_hash, BETTER)
    publish(workspace, first, evaluation, dataset, SETTINGS)
    if lost == "card":
        workspace.store.delete(layout.model(first_hash, "card.json"))
    else:  # it would be measured again, but cannot
        workspace.store.delete(workspace.store.key(evaluation))
        workspace.store.write(layout.model(first_hash, "model.safetensors"), b"cut short")
    second, second_hash = upload_a_model(workspace, 2)
    result = publish(workspace, second, write_an_evaluation(workspace, second_hash, GOOD), dataset, SETTINGS)
    assert result.promoted
    assert "gone" in result.reason


@pytest.mark.slow
def test_the_champion_is_measured_again_where_the_test_set_has_grown(workspace: Workspace, tmp_path: Path) -> None:
    settings = load_settings(overrides=("evaluate.bootstrap=100", "prepare.parallel=1"))
    published = []
    for seed, names in ((1, "abc"), (2, "abcd")):
        put_phantoms(workspace, tmp_path, names)
        lines = ["series,patient,split", *(f"{name},p-{name},{SPLITS.get(name, 'test')}" for name in names)]
        (tmp_path / "splits.csv").write_text("\n".join(lines) + "\n")
        splits = SplitSettings(override=tmp_path / "splits.csv")
        pulled = pull(workspace, settings.store, settings.pull)
        prepared = prepare(workspace, pulled.catalogue_uri, settings.prepare.model_copy(update={"splits": splits}))
        uri, _ = upload_a_model(workspace, seed)
        evaluation = evaluate(workspace, uri, prepared.dataset_uri, settings.evaluate)
        published.append(publish(workspace, uri, evaluation.evaluation_uri, prepared.dataset_uri, settings))
    assert "there was no champion" in published[0].reason
    assert "of bone:1 on the same 2 test series" in published[1].reason


def test_a_model_that_is_damaged_in_the_bucket_is_not_published(workspace: Workspace, dataset: str) -> None:
    uri, model_hash = upload_a_model(workspace, 1)
    evaluation = write_an_evaluation(workspace, model_hash, GOOD)
    for file in ("model.safetensors", "card.json"):
        key = layout.model(model_hash, file)
        whole = workspace.store.read(key)
        workspace.store.write(key, whole[:-20])
        with pytest.raises((ModelError, RecordError), match="boneseg train"):
            publish(workspace, uri, evaluation, dataset, SETTINGS)
        workspace.store.write(key, whole)
    assert publish(workspace, uri, evaluation, dataset, SETTINGS).promoted


def test_an_evaluation_of_another_model_is_refused(workspace: Workspace, dataset: str) -> None:
    uri, _ = upload_a_model(workspace, 1)
    with pytest.raises(ModelError, match="measures model other"):
        publish(workspace, uri, write_an_evaluation(workspace, "other", GOOD), dataset, SETTINGS)


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("hip@champion", "there are bone"),
        ("bone@best", r"there are bone:1 \(challenger, champion\)"),
        ("bone:7", "no version 7; there are bone:1"),
        ("models/gone", "there is no folder models/gone"),
    ],
)
def test_an_unknown_reference_lists_what_there_is(workspace: Workspace, dataset: str, ref: str, told: str) -> None:
    uri, model_hash = upload_a_model(workspace, 1)
    publish(workspace, uri, write_an_evaluation(workspace, model_hash, GOOD), dataset, SETTINGS)
    with pytest.raises(ModelError, match=told):
        resolve(workspace, ref, SETTINGS)


def test_an_empty_registry_says_what_to_do(workspace: Workspace) -> None:
    with pytest.raises(ModelError, match="boneseg publish"):
        resolve(workspace, "bone@champion", SETTINGS)


def test_a_registry_that_does_not_answer_is_named_without_its_password(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hid@den@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hid@den")
    with pytest.raises(ModelError, match=r"127\.0\.0\.1:9") as raised:
        resolve(workspace, "bone@champion", SETTINGS)
    assert "den" not in "".join(traceback.format_exception(raised.value))
