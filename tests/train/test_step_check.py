"""Networks that crash or compute wrong in bf16, as some do on some processors, are trained in a slower way."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from boneseg.errors import ModelError
from boneseg.models.precision import choose_precision
from boneseg.models.scores import ScoreConvolution
from boneseg.settings.schema import Loss
from boneseg.train.step_check import VARIABLE, fastest_correct, try_step
from boneseg.train.step_check_worker import Step, fault_of

FASTEST, PLAIN, SLOWEST = "bf16, channels last", "bf16", "fp32"


class Treacherous(torch.autograd.Function):
    """Passes values on; its backward pass kills the process or is wrong, in some ways of computing."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, feature: Tensor, deed: str, ways: str) -> Tensor:
        last = feature.is_contiguous(memory_format=torch.channels_last) and not feature.is_contiguous()
        way = (FASTEST if last else PLAIN) if feature.dtype == torch.bfloat16 else SLOWEST
        context.deed = deed if way in ways.split("|") else ""  # type: ignore[attr-defined]
        return feature.clone()

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, *behind: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = behind
        deed: str = context.deed  # type: ignore[attr-defined]
        if deed.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[deed])
        wrong = {"zero": gradient * 0, "double": gradient * 2, "nan": gradient * float("nan"), "": gradient}
        return wrong.get(deed, gradient.flip(1)), None, None


class Treacherously(nn.Module):
    def __init__(self, deed: str, ways: str) -> None:
        super().__init__()
        self.deed, self.ways = deed, ways

    def forward(self, feature: Tensor) -> Tensor:
        passed: Tensor = Treacherous.apply(feature, self.deed, self.ways)
        return passed


def network(deed: str, ways: str) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1),
        Treacherously(deed, ways), nn.Dropout(0.5), ScoreConvolution(8, 3, 1),
    )  # fmt: skip


def step(deed: str, *ways: str) -> Step:
    precision = choose_precision("cpu", "bf16")
    return Step(partial(network, deed, "|".join(ways)), precision, (2, 1, 32, 32), Loss.CROSS_ENTROPY_DICE)


@pytest.fixture(autouse=True)
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")


@pytest.mark.parametrize("deed", ["zero", "double", "nan", "mixed"])
def test_a_wrong_gradient_of_one_layer_is_told_from_rounding(deed: str) -> None:
    assert fault_of(step("")) is None
    assert "gradient" in (fault_of(step(deed, FASTEST)) or "")
    assert fault_of(step(deed, PLAIN)) is None


def test_a_step_that_dies_is_taken_the_next_slower_way_and_this_is_remembered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deadly = step("SIGSEGV", FASTEST)
    chosen = fastest_correct(deadly, ["a", "b"], tmp_path)
    assert chosen.words == "cpu, bf16 (in bf16, channels last died by signal SIGSEGV (11))"
    assert [record.getMessage().count("computing in bf16") for record in caplog.records] == [1]
    # What is known is not tried again: this one would say that all is well.
    assert fastest_correct(step(""), ["a", "b"], tmp_path) == chosen
    assert fastest_correct(deadly, ["a", "b"], tmp_path, slower=2).precision.words == SLOWEST


def test_a_step_wrong_in_all_of_bf16_is_taken_in_fp32(tmp_path: Path) -> None:
    chosen = fastest_correct(step("double", FASTEST, PLAIN), ["a", "b"], tmp_path)
    assert chosen.precision.words == SLOWEST
    assert "is not that of fp32" in chosen.words


def test_a_step_that_dies_in_every_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"in fp32 either \(died by signal SIGABRT \(6\)\)"):
        fastest_correct(step("SIGABRT", FASTEST, PLAIN, SLOWEST), ["a", "b"], tmp_path)


def test_a_step_that_is_ended_from_outside_says_nothing_of_the_way() -> None:
    assert try_step(step("SIGKILL", FASTEST)) is None


def test_a_damaged_verdict_is_found_anew(tmp_path: Path) -> None:
    assert fastest_correct(step(""), ["a", "b"], tmp_path).precision.words == FASTEST
    for file in tmp_path.glob("*.json"):
        file.write_bytes(file.read_bytes()[:20])
    assert fastest_correct(step(""), ["a", "b"], tmp_path).precision.words == FASTEST


def test_scores_are_trained_in_fp32_and_predicted_as_everything_else() -> None:
    layer = ScoreConvolution(8, 3, 1)
    feature = torch.rand(2, 8, 4, 4, requires_grad=True).to(torch.bfloat16, memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = layer(feature)
        with torch.inference_mode():
            predicted = layer(feature)
    assert (trained.dtype, predicted.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(trained.to(torch.bfloat16), predicted, rtol=0.02, atol=0.02)
