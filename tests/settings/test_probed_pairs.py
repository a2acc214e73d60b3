"""Pairs with timm's encoders when settings are loaded: refused, and tried only once."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from boneseg.errors import SettingsError
from boneseg.settings import probed_pairs
from boneseg.settings.loading import load_settings
from boneseg.settings.probed_pairs import faults_of

VIT = "tu-vit_tiny_patch16_224"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BONESEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The pairs of every process that is started; all of them work, but what is on a vision transformer."""
    asked: list[list[Any]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        pairs = json.loads(options["input"])
        asked.append(pairs)
        faults = ["it is flat" if "vit" in encoder and name != "dpt" else "" for name, encoder in pairs]
        return subprocess.CompletedProcess(command, 0, json.dumps(faults), "")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def load(architecture: str, encoder: str, *more: str) -> None:
    load_settings(overrides=(f"model.architecture={architecture}", f"model.encoder={encoder}", *more))


def test_a_pair_that_cannot_work_is_refused_with_what_can() -> None:
    with pytest.raises(SettingsError, match=f"unet does not work with encoder {VIT}: .*; {VIT} works with dpt$"):
        load("unet", VIT)
    load("dpt", VIT)


def test_a_pair_is_tried_once(asked: list[list[Any]]) -> None:
    for _ in range(2):
        load("unet", "tu-resnet10t")
    assert asked == [[["unet", "tu-resnet10t"]]]


def test_all_pairs_of_a_sweep_are_tried_together(asked: list[list[Any]]) -> None:
    load("unet", "resnet18", "tune.architectures=[unet, fpn]", "tune.encoders=[tu-resnet10t, resnet18]")
    assert asked == [[["unet", "tu-resnet10t"], ["fpn", "tu-resnet10t"]]]
    with pytest.raises(SettingsError, match=f"fpn does not work with encoder {VIT}: it is flat"):
        load("unet", "resnet18", "tune.architectures=[fpn]", f"tune.encoders=[{VIT}]")


def test_another_version_of_a_library_is_asked_anew(asked: list[list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    load("unet", "tu-resnet10t")
    monkeypatch.setattr(probed_pairs, "version", lambda library: f"{library} of tomorrow")
    load("unet", "tu-resnet10t")
    assert len(asked) == 2


@pytest.mark.parametrize("content", [b"", b"[]", b'{"fault": 1}', b'{"fault'])
def test_a_damaged_answer_is_found_out_again(asked: list[list[Any]], home: Path, content: bytes) -> None:
    load("unet", "tu-resnet10t")
    (file,) = (home / "encoders").iterdir()
    file.write_bytes(content)
    load("unet", "tu-resnet10t")
    assert len(asked) == 2
    assert json.loads(file.read_bytes())["fault"] == ""


def test_where_nothing_can_be_tried_training_will_tell(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise subprocess.CalledProcessError(-9, "probe")

    monkeypatch.setattr(subprocess, "run", run)
    assert faults_of([("unet", VIT)], home) == [None]
    load("unet", VIT)


def test_encoders_that_are_not_timms_start_no_process(asked: list[list[Any]]) -> None:
    load("unet", "resnet18")
    assert asked == []


def test_loading_settings_imports_no_heavy_library() -> None:
    heavy = "{'torch', 'timm', 'segmentation_models_pytorch'}"
    code = f"""
import sys
from boneseg.settings.loading import load_settings
load_settings(overrides=("model.encoder=resnet34",))
assert not {heavy} & set(sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_tried_is_said(asked: list[list[Any]], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load("unet", "tu-resnet10t")
    assert "unet on tu-resnet10t" in caplog.text
