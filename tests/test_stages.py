"""What one stage leaves for the next."""

from types import SimpleNamespace

import pytest

from boneseg.settings.loading import load_settings
from boneseg.stages import Latest, Stages
from boneseg.storage.workspace import Workspace


def measured(workspace: Workspace, model: str, dataset: str, *_: object) -> SimpleNamespace:
    return SimpleNamespace(evaluation_uri=f"evaluation of {model} on {dataset}")


def test_what_is_measured_on_the_side_is_not_what_publish_goes_on_with(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boneseg.evaluate.evaluate.evaluate", measured)
    stages = Stages(workspace, load_settings())
    stages._remember(model_uri="ours", dataset_uri="data")
    stages.evaluate()
    assert stages.latest.evaluation_uri == "evaluation of ours on data"
    assert stages.evaluate("the champion").evaluation_uri == "evaluation of the champion on data"
    assert stages.evaluate(None, "other data").evaluation_uri == "evaluation of ours on other data"
    assert stages.latest == Latest(model_uri="ours", dataset_uri="data", evaluation_uri="evaluation of ours on data")
