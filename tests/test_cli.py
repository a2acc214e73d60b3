"""The command line as a user meets it: help, settings, errors, exit codes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from boneseg.cli import cli, main
from boneseg.errors import StoreError
from boneseg.storage.workspace import Workspace

HEAVY = ("torch", "ray", "kfp", "mlflow", "matplotlib", "pydicom", "albumentations", "numpy", "pydantic", "minio")


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "boneseg", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={"BONESEG_HOME": str(home), "PATH": "/usr/bin:/bin"}
    )


def test_help_loads_no_heavy_library() -> None:
    code = f"import sys, boneseg.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("path", [(), *commands(cli)], ids=" ".join)
def test_every_command_explains_itself_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0
    assert f"Example: boneseg {' '.join(path)}".strip() in result.output


def test_unknown_setting_names_the_known_ones(tmp_path: Path) -> None:
    result = run("pull", "--set", "train.epoch=3", home=tmp_path)
    assert result.returncode == 1
    assert "train.epoch" in result.stderr
    assert "epochs" in result.stderr
    assert "Traceback" not in result.stderr


def test_stage_without_a_store_says_how_to_start_one(tmp_path: Path) -> None:
    result = run("pull", home=tmp_path)
    assert result.returncode == 1
    assert "boneseg store start" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_record_is_removed_and_raw_data_never(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    store = workspace.store
    monkeypatch.setattr("boneseg.storage.open.open_workspace", lambda settings: workspace)
    kept = ("raw/ct.nii.gz", "raw/patients.csv", "state/splits.json")
    for key in (*kept, "raw/.boneseg/names.json", "state/private.json"):
        store.write(key, b"x")
    for key in ("raw/.boneseg/names.json", store.uri("state/private.json")):
        assert CliRunner().invoke(cli, ["store", "remove", key]).exit_code == 0
    refused = [
        kept[0],
        store.uri(kept[1]),
        f"/{kept[0]}",
        "raw//ct.nii.gz",
        "raw/./ct.nii.gz",
        "state/../raw/ct.nii.gz",
    ]
    refused += ["raw/.boneseg/../ct.nii.gz", "elsewhere/x", "raw/x/.boneseg/y"]
    for key, told in (*((key, "none of boneseg's own") for key in refused), ("state/nothing.json", "not there")):
        failed = CliRunner().invoke(cli, ["store", "remove", key, "--set", "store.raw_prefix=other/"])
        assert isinstance(failed.exception, StoreError)
        assert told in str(failed.exception)
    assert tuple(sorted(item.key for item in store.list() if item.key != "state/private.json")) == kept


def test_demo_on_a_missing_folder_names_it(tmp_path: Path) -> None:
    result = run("demo", "--data", str(tmp_path / "nowhere"), home=tmp_path)
    assert result.returncode == 1
    assert "nowhere" in result.stderr
    assert "Traceback" not in result.stderr


def test_unknown_command_exits_with_usage(tmp_path: Path) -> None:
    result = run("pul", home=tmp_path)
    assert result.returncode == 2
    assert "No such command" in result.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = run("--debug", "pull", home=tmp_path)
    assert result.returncode != 0
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "/data/x"), ["disk is full", "/data/x", "BONESEG_HOME"]),
        (ValueError("odd"), ["unexpected ValueError", "--debug"]),
    ],
)
def test_faults_outside_our_own_are_one_sentence(
    error: Exception, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("boneseg.settings.loading.load_settings", fail)
    with pytest.raises(SystemExit) as stop:
        main(["pull"])
    assert stop.value.code == 1
    printed = capsys.readouterr().err
    assert all(word in printed for word in words)
    assert printed.count("\n") == 1
