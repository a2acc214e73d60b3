"""The whole way of the data, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = ("--set", "train.epochs=1", "--set", "train.steps_per_epoch=2", "--set", "train.batch_size=2")


def boneseg(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "BONESEG_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    environment.pop("BONESEG_S3_ENDPOINT", None)
    command = [sys.executable, "-m", "boneseg", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_goes_from_bucket_to_registry_and_reuses_everything_the_second_time(tmp_path: Path) -> None:
    first = boneseg("demo", *SMALL, home=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "patient outline" in first.stdout
    assert "threshold" in first.stdout
    assert "bone version 1" in first.stdout
    report = tmp_path / "report.html"
    assert report.stat().st_size > 100_000
    assert str(report) in first.stdout
    assert "no store is running" in boneseg("store", "status", home=tmp_path).stdout

    second = boneseg("demo", *SMALL, home=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "0 new files" in second.stdout
    assert "0 objects read" in second.stdout
    assert "0 made" in second.stdout
    assert "(reused)" in second.stdout
    assert "bone version 1" in second.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_stages_run_one_by_one_and_say_what_is_missing(tmp_path: Path) -> None:
    assert boneseg("store", "start", home=tmp_path).returncode == 0
    try:
        empty = boneseg("pull", home=tmp_path)
        assert empty.returncode == 1
        assert "s3://boneseg/raw/" in empty.stderr
        early = boneseg("train", home=tmp_path)
        assert early.returncode == 1
        assert "boneseg prepare" in early.stderr
        phantoms = boneseg(
            "phantom", "--out", str(tmp_path / "p"), "--count", "3", "--slices", "8", "--size", "96", home=tmp_path
        )
        assert phantoms.returncode == 0, phantoms.stderr
        for command in (("upload", str(tmp_path / "p")), ("pull",), ("prepare",)):
            result = boneseg(*command, home=tmp_path)
            assert result.returncode == 0, result.stderr
        unknown = boneseg("train", "--set", "model.architecture=unett", home=tmp_path)
        assert unknown.returncode == 1
        assert "unet" in unknown.stderr
        assert "Traceback" not in unknown.stderr
    finally:
        assert boneseg("store", "stop", home=tmp_path).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_series_alone_is_trained_on_and_not_measured(tmp_path: Path) -> None:
    phantom = ("phantom", "--out", str(tmp_path / "p"), "--count", "1", "--slices", "8", "--size", "96")
    assert boneseg(*phantom, home=tmp_path).returncode == 0
    small = ("--set", "train.epochs=1", "--set", "train.steps_per_epoch=2", "--set", "train.crop=64")
    result = boneseg("demo", "--data", str(tmp_path / "p"), *small, home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "model   s3://" in result.stdout
    assert "neither measured nor published" in result.stdout
    assert "publish bone" not in result.stdout
