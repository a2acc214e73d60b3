"""Which cluster a command goes to, and what of it is sent as a job."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from boneseg.cli import cli

JOBS = "http://head:8265"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, tuple[str, ...], bool]]:
    """Collect what is sent as a job, instead of sending it: address, words, whether it is waited for."""
    found: list[tuple[str, tuple[str, ...], bool]] = []

    def send(address: str, words: tuple[str, ...], settings: Any, detach: bool) -> None:
        found.append((address, words, detach))

    monkeypatch.setattr("boneseg.cli_ray._send", send)
    monkeypatch.setenv("BONESEG_HOME", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "")
    return found


Sent = list[tuple[str, tuple[str, ...], bool]]


def run(*words: str) -> Any:
    return CliRunner().invoke(cli, list(words))


@pytest.mark.parametrize(
    ("option", "setting", "variable", "wins"),
    [
        ("http://a:1", "http://b:1", "http://c:1", "http://a:1"),
        (None, "http://b:1", "http://c:1", "http://b:1"),
        (None, None, "http://c:1", "http://c:1"),
        ("http://a:1", None, "c:6379", "http://a:1"),
    ],
)
def test_the_option_counts_before_the_setting_and_that_before_the_variable(
    option: str | None,
    setting: str | None,
    variable: str,
    wins: str,
    sent: Sent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", variable)
    before = ("--ray", option) if option else ()
    after = ("--set", f"ray.address={setting}") if setting else ()
    result = run(*before, "pull", *after)
    assert result.exit_code == 0, result.output
    assert sent == [(wins, ("pull",), False)]


@pytest.mark.parametrize(("option", "sends"), [("head:6379", False), ("ray://head:10001", False), (JOBS, True)])
def test_only_a_job_server_gets_the_command_itself(option: str, sends: bool, sent: Sent) -> None:
    import os

    result = run("--ray", option, "pull")  # without a store it ends where it would begin to work
    assert bool(sent) is sends
    assert sends or "no object store" in str(result.exception)
    assert os.environ["RAY_ADDRESS"] == option


def test_what_is_sent_is_the_command_without_its_settings(sent: Sent, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("train: {epochs: 3}\n")
    words = ("train", "--tuned", "--config", str(config), "--set", "train.seed=7", "--dataset", "s3://b/d/dataset.json")
    assert run("--ray", JOBS, "--detach", *words).exit_code == 0
    assert sent == [(JOBS, ("train", "--dataset", "s3://b/d/dataset.json", "--tuned"), True)]


@pytest.mark.parametrize("words", [("evaluate", "--data", "{}"), ("evaluate", "--model", "{}")])
def test_a_folder_of_this_machine_is_not_sent(words: tuple[str, ...], sent: Sent, tmp_path: Path) -> None:
    result = run("--ray", JOBS, *(word.format(tmp_path) for word in words))
    assert "a folder of this machine" in str(result.exception)
    assert sent == []


def test_commands_of_this_machine_refuse_the_option_and_pass_over_the_variable(
    sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = run("--ray", JOBS, "upload", str(tmp_path))
    assert "boneseg upload works on this machine and is not sent as a job" in str(refused.exception)
    monkeypatch.setenv("RAY_ADDRESS", JOBS)
    passed = run("upload", str(tmp_path))
    assert "no object store" in str(passed.exception)
    assert sent == []


@pytest.mark.parametrize("words", [("--detach", "pull"), ("--ray", "head:6379", "--detach", "pull")])
def test_only_a_job_can_be_left_alone(words: tuple[str, ...], sent: Sent) -> None:
    result = run(*words)
    assert result.exit_code != 0
    assert "--detach needs a job server" in result.output


@pytest.mark.parametrize("words", [("jobs", "list"), ("jobs", "attach", "x"), ("jobs", "stop", "x")])
def test_jobs_need_a_job_server(words: tuple[str, ...], sent: Sent) -> None:
    for before in ((), ("--ray", "head:6379")):
        assert "no job server is given" in str(run(*before, *words).exception)


def test_a_command_that_is_a_job_already_is_not_sent_again(
    sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # Ray sets it for the command of a job
    monkeypatch.delenv("BONESEG_HANDED_OVER_KEY", raising=False)
    result = run("jobs", "run")
    assert "this command is for jobs on a Ray cluster" in str(result.exception)
    assert sent == []
