"""What publish accepts: a person's decision, evaluations that belong together, what earlier versions published."""

import pytest

from boneseg.errors import ModelError, RecordError
from boneseg.evaluate.records import EvaluationResult, load_evaluation
from boneseg.registry.publish import PublishResult, publish
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
    second = publish_a_model(workspace, 2, BETTER, dataset)
    assert second.promoted
    assert asked == [uri, uri], "the champion is measured as the new model was"
