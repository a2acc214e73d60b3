"""Rates, averages, stopping and compilation, against torch's own and by hand."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from boneseg.errors import SettingsError
from boneseg.models.card import EpochRecord
from boneseg.models.precision import choose_precision
from boneseg.settings.loading import load_settings, parse_settings
from boneseg.settings.schema import TrainSettings
from boneseg.train.averaging import WeightAverage
from boneseg.train.compilation import compiled, pays
from boneseg.train.optimisation import Course, build_optimizer, lowered_rate, stops_early
from boneseg.train.process_group import ProcessGroup


def epochs(*mean_ious: float) -> list[EpochRecord]:
    same: dict[str, Any] = dict.fromkeys(
        ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "validation_mean_dice", "seconds"),
        0.5,
    )
    lists = {"validation_iou": (0.5,), "validation_dice": (0.5,)}
    return [
        EpochRecord(**same, **lists, epoch=number, validation_mean_iou=value)
        for number, value in enumerate(mean_ious, start=1)
    ]


@pytest.mark.parametrize("total", [4, 10, 101])
def test_one_cycle_goes_as_torchs(total: int) -> None:
    settings = TrainSettings(schedule="one-cycle", learning_rate=0.02, epochs=total)
    mine, theirs = build_optimizer(nn.Linear(2, 2), settings), AdamW(nn.Linear(2, 2).parameters())
    cycle = OneCycleLR(theirs, 0.02, total_steps=total)
    for step in range(total):
        Course.plain(settings, step + 1, 1).set_rates(mine, 0)
        assert mine.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
        assert mine.param_groups[0]["betas"] == pytest.approx(theirs.param_groups[0]["betas"], rel=1e-9)
        theirs.step()
        if step + 1 < total:
            cycle.step()


def test_one_cycle_leaves_an_optimizer_without_momentum_alone() -> None:
    settings = TrainSettings(schedule="one-cycle", optimizer="adadelta")
    optimizer = build_optimizer(nn.Linear(2, 2), settings)
    Course.plain(settings, 1, 10).set_rates(optimizer, 3)
    assert "betas" not in optimizer.param_groups[0]


def test_the_rate_of_a_plateau_is_the_same_whenever_it_is_asked() -> None:
    settings = TrainSettings(schedule="plateau", plateau_patience=1, plateau_factor=0.1, learning_rate=0.5)
    history = epochs(0.1, 0.3, 0.2, 0.3, 0.3, 0.4, 0.4, 0.4, 0.1)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    plateau = ReduceLROnPlateau(optimizer, mode="max", factor=0.1, patience=1)
    rates = []
    for done, record in enumerate(history, start=1):
        plateau.step(record.validation_mean_iou)
        rates.append(lowered_rate(history[:done], settings))
        assert rates[-1] == optimizer.param_groups[0]["lr"]
    assert rates == pytest.approx([0.5, 0.5, 0.5, 0.05, 0.05, 0.05, 0.05, 0.005, 0.005])


def test_training_stops_after_its_patience_and_added_epochs_wait_anew() -> None:
    settings = TrainSettings(early_stopping=2, early_stopping_gain=0.05)
    values = (0.1, 0.3, 0.34, 0.36, 0.36, 0.37)
    stops = [stops_early(epochs(*values[:done]), settings) for done in range(1, 7)]
    assert stops == [False, False, False, False, False, True]  # 0.36 is enough above 0.3, 0.34 is not
    assert not stops_early(epochs(*values), settings, since=5)
    assert stops_early(epochs(*values, 0.3), settings, since=5)
    assert not stops_early(epochs(*values), TrainSettings())


def test_the_average_is_that_of_its_formula_and_buffers_belong_to_it() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).train()
    average = WeightAverage(network, 0.5)
    expected: dict[str, torch.Tensor] = {}
    for step in range(6):
        network(torch.randn(2, 1, 4, 4))
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(torch.randn_like(weight))
        average.update(network)
        decay = min(0.5, (1 + step) / (10 + step)) if step else 0.0
        for name, value in network.state_dict().items():
            expected[name] = decay * expected.get(name, torch.zeros(())) + (1 - decay) * value
    for name, value in average.weights.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name])
    assert average.weights.keys() == network.state_dict().keys()


def test_yaml_words_for_compiling_mean_what_they_say() -> None:
    for word in ("on", "off", "auto"):
        assert load_settings(overrides=(f"train.compile={word}",)).train.compile == word
    with pytest.raises(SettingsError, match=r"train.compile = 'fast'"):
        parse_settings({"train": {"compile": "fast"}})
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    chosen = [
        pays(TrainSettings(compile=word), device, ProcessGroup())
        for word in ("off", "auto", "on")
        for device in (cpu, cuda)
    ]
    assert chosen == [False, False, False, True, True, True]


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Conv2d(4, 3, 1))


def test_a_compiled_network_is_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    network, plain = small_network(), small_network()
    before = torch.get_rng_state()
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *given, **how: original(*given, **how, backend="aot_eager"))
    fast = compiled(network, (2, 1, 32, 32), choose_precision("cpu", "fp32"), ProcessGroup())
    assert fast is not network
    assert torch.equal(before, torch.get_rng_state())
    for name, value in plain.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    images = torch.rand(2, 1, 32, 32)
    network[3].p = plain[3].p = 0.0
    torch.testing.assert_close(fast(images), plain.train()(images))
    torch.testing.assert_close(network[1].running_mean, plain[1].running_mean)  # they share it


def test_a_compiler_that_fails_is_told_of_once_and_gone_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *given, **how: original(*given, **how, backend=broken))
    network, plain = small_network(), small_network()
    with caplog.at_level(logging.WARNING, "boneseg"):
        assert compiled(network, (2, 1, 32, 32), choose_precision("cpu", "fp32"), ProcessGroup()) is network
    ours = [each for each in caplog.records if each.name.startswith("boneseg")]
    assert len(ours) == 1
    assert "torch.compile does not work here (BackendCompilerFailed)" in ours[0].getMessage()
    for name, value in plain.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    assert all(weight.grad is None for weight in network.parameters())
