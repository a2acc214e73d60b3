"""What publish accepts: a person's decision, evaluations that belong together, what earlier versions published."""

import pytest

from boneseg.errors import ModelError, RecordError
from boneseg.evaluate.records import EvaluationResult, load_evaluation
from boneseg.registry.publish import PublishResult, publish, resolve
from boneseg.settings.schema import RunSettings
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace
from tests.registry.factory import BAD, BETTER, GOOD, a_dataset, upload_a_model, write_a_dataset, write_an_evaluation

SETTINGS = RunSettings()


def publish_a_model(workspace: Workspace, seed: int, dice: dict[str, float], dataset: str) -> PublishResult:
    uri, model_hash = upload_a_model(workspace, seed)
    return publish(workspace, uri, write_an_evaluation(workspace, model_hash, dice), dataset, SETTINGS)


def test_a_person_promotes_by_hand_and_the_reason_keeps_it(workspace: Workspace, dataset: str) -> None:
    publish_a_model(workspace, 1, GOOD, dataset)
    uri, model_hash = upload_a_model(workspace, 2)
    evaluation = write_an_evaluation(workspace, model_hash, BAD)
    assert not publish(workspace, uri, evaluation, dataset, SETTINGS).promoted
    for _ in range(2):
        result = publish(workspace, uri, evaluation, dataset, SETTINGS, promote=True)
        assert (result.version, result.promoted, result.champion) == ("2", True, "bone:2")
        assert "a person decided so" in result.reason
        assert result.reason.count("bone:2 stays challenger") == 1
    assert publish(workspace, uri, evaluation, dataset, SETTINGS).reason == result.reason


def test_an_evaluation_that_was_edited_or_belongs_elsewhere_is_refused(workspace: Workspace, dataset: str) -> None:
    uri, model_hash = upload_a_model(workspace, 1)
    evaluation = write_an_evaluation(workspace, model_hash, GOOD)
    data = workspace.store.read(workspace.store.key(evaluation))
    one, other = a_dataset(), a_dataset("mno")
    told = f"test set {one.test_hash}, but that of dataset {other.dataset_hash} is {other.test_hash}"
    with pytest.raises(ModelError, match=told):
        publish(workspace, uri, evaluation, write_a_dataset(workspace, other), SETTINGS)
    edited = data.replace(b"200,", b"0,")
    lines = [line for line in data.decode().splitlines() if '"seal"' not in line]
    unsealed = "\n".join(lines).replace("},\n}", "}\n}").rstrip().rstrip("}").rstrip().rstrip(",") + "}"
    for changed in (edited, unsealed.encode()):
        assert changed != data
        workspace.store.write(workspace.store.key(evaluation), changed)
        with pytest.raises(RecordError, match="changed after it was written"):
            publish(workspace, uri, evaluation, dataset, SETTINGS)
    other = write_an_evaluation(workspace, model_hash, {"a": 0.9, "stranger": 0.9})
    with pytest.raises(ModelError, match="series that are not in the test set"):
        publish(workspace, uri, other, dataset, SETTINGS)
    assert not workspace.store.exists(layout.REGISTRY_STATE)


def test_what_an_earlier_version_published_is_not_published_twice(
    workspace: Workspace, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its evaluation goes by another name, and is made anew to be compared."""
    uri, model_hash = upload_a_model(workspace, 1)
    with monkeypatch.context() as patch:
        patch.setattr("boneseg.evaluate.records.EVALUATE_VERSION", 3)
        old = write_an_evaluation(workspace, model_hash, GOOD)
        first = publish(workspace, uri, old, dataset, SETTINGS)
    asked = []

    def anew(_: Workspace, model_uri: str, *__: object) -> EvaluationResult:
        asked.append(model_uri)
        return load_evaluation(workspace, write_an_evaluation(workspace, model_hash, GOOD))

    monkeypatch.setattr("boneseg.evaluate.evaluate.evaluate", anew)
    again = publish(workspace, uri, old, dataset, SETTINGS)
    assert (again.version, again.reason) == (first.version, first.reason)
    measured_anew = publish(workspace, uri, write_an_evaluation(workspace, model_hash, GOOD), dataset, SETTINGS)
    assert (measured_anew.version, measured_anew.reason) == (first.version, first.reason)
    second = publish_a_model(workspace, 2, BETTER, dataset)
    assert second.promoted
    assert asked == [uri, uri], "the champion is measured as the new model was"


def test_an_evaluation_under_another_ones_name_does_not_speak_for_the_champion(
    workspace: Workspace, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, first_hash = upload_a_model(workspace, 1)
    publish(workspace, first, champions := write_an_evaluation(workspace, first_hash, GOOD), dataset, SETTINGS)
    second, second_hash = upload_a_model(workspace, 2)
    own = write_an_evaluation(workspace, second_hash, BAD)
    store = workspace.store
    store.write(store.key(champions), store.read(store.key(own)))
    measured = []

    def again(space: Workspace, model_uri: str, *_: object) -> EvaluationResult:
        measured.append(model_uri)
        return load_evaluation(space, write_an_evaluation(space, first_hash, GOOD))

    monkeypatch.setattr("boneseg.evaluate.evaluate.evaluate", again)
    assert not publish(workspace, second, own, dataset, SETTINGS).promoted
    assert measured == [first]


def test_a_model_under_another_ones_name_is_neither_used_nor_published(workspace: Workspace, dataset: str) -> None:
    first, first_hash = upload_a_model(workspace, 1)
    _, second_hash = upload_a_model(workspace, 2)
    store = workspace.store
    for file in ("card.json", "model.safetensors"):
        store.write(layout.model(first_hash, file), store.read(layout.model(second_hash, file)))
    elsewhere = Workspace(store, workspace.folder.with_name("elsewhere"))
    with pytest.raises(ModelError, match=rf"holds model {second_hash}, not {first_hash}"):
        resolve(elsewhere, first, SETTINGS)
    with pytest.raises(ModelError):
        publish(elsewhere, first, write_an_evaluation(workspace, first_hash, GOOD), dataset, SETTINGS)


def test_a_damaged_champion_is_made_whole_where_a_copy_is_at_hand(workspace: Workspace, dataset: str) -> None:
    first, first_hash = upload_a_model(workspace, 1)
    evaluation = write_an_evaluation(workspace, first_hash, BETTER)
    publish(workspace, first, evaluation, dataset, SETTINGS)
    resolve(workspace, "bone@champion", SETTINGS)
    workspace.store.delete(layout.model(first_hash, "card.json"))
    second, second_hash = upload_a_model(workspace, 2)
    assert not publish(workspace, second, write_an_evaluation(workspace, second_hash, GOOD), dataset, SETTINGS).promoted
    assert workspace.store.exists(layout.model(first_hash, "card.json"))
