import logging
import subprocess
import sys

import pytest

from boneseg.errors import SettingsError
from boneseg.redaction import RedactingFormatter, holds_password, redacted
from boneseg.settings.loading import load_settings

PASSWORD = "t0p&s3cret"


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{PASSWORD}@mlflow.example.org/path",
        f"postgresql+psycopg2://user:{PASSWORD}@db.example.org:5432/mlflow",
        "https://user:t0p%26s3cret@mlflow.example.org",
        f"https://user:a@b/{PASSWORD}@mlflow.example.org",
        "s3://user:t0ps3cret@example.org/models/x",
        f"https://mlflow.example.org/?access_token={PASSWORD.replace('&', '')}&x=1",
        f"{{'Authorization': 'Bearer {PASSWORD}'}}",
    ],
)
def test_no_password_is_left_in_a_text_and_the_host_is(text: str) -> None:
    shown = redacted(f"cannot reach {text}!", {})
    assert "s3cret" not in shown
    assert "***" in shown
    assert "example.org" in shown or "Authorization" in shown


@pytest.mark.parametrize("text", ["s3://bucket/raw/a@b.dcm", "see https://example.org/a?page=2", "mail me@example.org"])
def test_what_is_no_password_stays(text: str) -> None:
    assert redacted(text, {}) == text
    assert not holds_password(text)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "AWS_SESSION_TOKEN"])
def test_secrets_of_the_environment_are_shown_nowhere(name: str) -> None:
    assert redacted(f"signed with {PASSWORD}, {PASSWORD.replace('&', '%26')}", {name: PASSWORD}).count("***") == 2


def test_log_lines_and_their_tracebacks_are_redacted() -> None:
    try:
        raise ValueError(f"https://u:{PASSWORD}@h.example.org")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "at %s", (f"http://u:{PASSWORD}@h",), sys.exc_info())
    assert PASSWORD not in RedactingFormatter("%(message)s").format(record)


@pytest.mark.parametrize("setting", ["publish.tracking_uri", "store.endpoint"])
def test_a_password_in_a_setting_is_refused_without_being_printed(setting: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(overrides=(f"{setting}=https://user:{PASSWORD}@h.example.org",))
    assert "s3cret" not in str(caught.value)
    assert setting in str(caught.value)


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_the_command_line_prints_no_password_whatever_fails(debug: list[str]) -> None:
    address = f"https://user:{PASSWORD}@127.0.0.1:1/x"
    settings = ["--set", f"publish.tracking_uri={address}", "--set", f"train.epoch={PASSWORD}"]
    run = subprocess.run(
        [sys.executable, "-m", "boneseg", *debug, "pull", *settings], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "s3cret" not in (run.stdout + run.stderr).replace("train.epoch = 't0p&s3cret'", "")


def test_the_working_directory_is_no_password() -> None:
    assert redacted("/home/somebody/x is damaged", {"PWD": "/home/somebody"}) == "/home/somebody/x is damaged"
    assert redacted("s3cret!", {"DB_PWD": "s3cret!"}) == "***"
