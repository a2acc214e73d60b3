"""Whole pipelines on this machine, every step a process of its own."""

from pathlib import Path

import pytest

from boneseg.errors import BonesegError, SettingsError
from boneseg.registry.publish import resolve
from boneseg.settings.loading import load_settings
from boneseg.storage.workspace import Workspace
from pipelines.local import run_local, run_pipeline
from tests.pipelines.tiny import as_on_a_cluster, overrides, put_phantoms


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(SettingsError, match="no parameter epoch"):
        run_local("training", {"epoch": 3})


@pytest.mark.slow
def test_a_failing_step_is_named_with_its_reason_and_no_traceback(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_on_a_cluster(workspace, monkeypatch)
    with pytest.raises(BonesegError, match=r"^step pull failed: nothing is below s3://.*training\.log"):
        run_local("training", {"overrides": overrides(workspace, tmp_path)})
    shown = capsys.readouterr().out
    assert shown.count("step pull") == 1
    assert "Traceback" not in shown


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_then_retraining_on_unchanged_and_on_new_data(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_on_a_cluster(workspace, monkeypatch)
    put_phantoms(workspace, tmp_path)
    settings = load_settings(overrides=tuple(overrides(workspace, tmp_path)))

    told = run_pipeline("training", settings)
    folder = Path(told.rpartition(" ")[2])
    assert "| Method |" in (folder / "evaluate" / "summary").read_text()
    assert "<html" in (folder / "evaluate" / "report").read_text()
    assert (folder / "evaluate" / "metrics").is_file()
    assert "becomes champion" in (folder / "publish" / "decision").read_text()
    assert (resolve(workspace, "bone@champion", settings) / "model.safetensors").is_file()
    shown = capsys.readouterr().out
    steps = [line.removeprefix("step ") for line in shown.splitlines() if line.startswith("step ")]
    assert steps == ["configure", "pull", "prepare", "train", "evaluate", "publish"]

    parameters = {"overrides": overrides(workspace, tmp_path), "bucket": workspace.store.bucket}
    unchanged = run_local("retraining", parameters)
    assert {path.name for path in unchanged.iterdir()} == {"configure", "pull"}
