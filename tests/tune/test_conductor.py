from pathlib import Path
from typing import Any

import pytest

from boneseg.errors import SettingsError
from boneseg.tune import conductor as module
from boneseg.tune.conductor import MOST_LOSSES, Conductor, Order
from boneseg.tune.journal import Trial
from boneseg.tune.population import Population
from boneseg.tune.records import FAILED, FINISHED, STOPPED
from boneseg.tune.searchers import Grid, Random, Searcher
from boneseg.tune.space import Space
from boneseg.tune.space_file import space_of
from tests.tune.fake import Bucket, Clock, conductor, epoch, play, settings


def flat(number: int) -> float:
    return 0.5


def grid(chosen: Any) -> Searcher:
    return Grid(space_of(chosen))


def started(conductor: Conductor) -> Order:
    order = conductor.next()
    assert order is not None
    return order


def pairs(trials: list[Trial]) -> list[tuple[str, str]]:
    return [(trial.choice["model.architecture"], trial.choice["model.encoder"]) for trial in trials]


def run_all(conductor: Conductor) -> None:
    while (order := conductor.next()) is not None:
        play(conductor, order, flat)


@pytest.mark.parametrize("searcher", [Grid, Random])
def test_all_that_a_small_space_has_is_tried_once_and_then_the_sweep_ends(searcher: Any, tmp_path: Path) -> None:
    chosen = settings(trials=50, searcher="grid" if searcher is Grid else "random")
    made = Grid(space_of(chosen)) if searcher is Grid else Random(space_of(chosen), seed=3)
    sweep = conductor(Bucket(), chosen, made, tmp_path)
    run_all(sweep)
    assert sweep.is_done
    assert len(pairs(sweep.trials)) == len(set(pairs(sweep.trials))) == 6


def test_settings_of_equal_meaning_are_one_trial(tmp_path: Path) -> None:
    # The distance of neighbouring slices plays no part where there are none.
    space = {"model.preprocess.slices": [1, 3], "model.preprocess.slice_distance_mm": [2.0, 3.0]}
    chosen = settings(space=space, searcher="grid")
    sweep = conductor(Bucket(), chosen, grid(chosen), tmp_path)
    run_all(sweep)
    assert len(sweep.trials) == 3


def test_pairs_that_cannot_work_are_never_tried(tmp_path: Path) -> None:
    space = {"model.architecture": ["unet", "linknet", "dpt"], "model.encoder": ["mit_b0", "resnet18"]}
    chosen = settings(space=space, searcher="grid")
    sweep = conductor(Bucket(), chosen, grid(chosen), tmp_path)
    run_all(sweep)
    assert pairs(sweep.trials) == [("unet", "mit_b0"), ("unet", "resnet18"), ("linknet", "resnet18")]


def test_a_trial_is_in_the_bucket_before_it_starts(tmp_path: Path) -> None:
    bucket, chosen = Bucket(), settings(searcher="grid")
    order = started(conductor(bucket, chosen, grid(chosen), tmp_path))
    assert order.number == 1
    later = conductor(bucket, chosen, grid(chosen), tmp_path)
    assert started(later) == order


def test_after_a_death_nothing_that_is_over_runs_again_and_what_was_begun_comes_first(tmp_path: Path) -> None:
    bucket, chosen, clock = Bucket(), settings(searcher="grid"), Clock()
    first = conductor(bucket, chosen, grid(chosen), tmp_path, clock=clock)
    play(first, started(first), flat)
    second, third = started(first), started(first)
    play(first, second, flat, until=2)
    first.begun(third.number, 1.0, has_gpus=False)
    first.failed(third.number, "the loss is not a number")

    later = conductor(bucket, chosen, grid(chosen), tmp_path)
    order = started(later)
    assert order == second
    play(later, order, flat, known=2)  # its first two epochs are told once more and counted once
    run_all(later)
    assert [trial.number for trial in later.trials] == [1, 2, 3, 4, 5, 6]
    assert [trial.state for trial in later.trials] == [FINISHED, FINISHED, FAILED, FINISHED, FINISHED, FINISHED]
    assert len(set(pairs(later.trials))) == 6
    assert [record.epoch for record in later.trials[1].history] == [1, 2, 3, 4]
    assert later.trials[1].seconds == pytest.approx(40)
    assert later.seconds == pytest.approx(40 + 20 + 20 + 3 * 40)


def test_a_driver_that_comes_back_is_told_that_another_goes_on(tmp_path: Path) -> None:
    bucket, chosen = Bucket(), settings(searcher="grid")
    old = conductor(bucket, chosen, grid(chosen), tmp_path)
    order = started(old)
    conductor(bucket, chosen, grid(chosen), tmp_path)
    with pytest.raises(SettingsError, match="resumed somewhere else"):
        play(old, order, flat)


class Below:
    """Stops what is below the best so far."""

    def __init__(self) -> None:
        self.best: dict[int, float] = {}

    def stops(self, number: int, epoch: int, value: float) -> bool:
        known = self.best.get(epoch, 0.0)
        self.best[epoch] = max(known, value)
        return value < known


def test_what_the_rule_stops_is_a_row_with_its_reason_and_the_rule_remembers_across_a_death(tmp_path: Path) -> None:
    bucket, chosen = Bucket(), settings(searcher="grid")
    first = conductor(bucket, chosen, grid(chosen), tmp_path, Below())
    assert not play(first, started(first), lambda number: 0.5)
    later = conductor(bucket, chosen, grid(chosen), tmp_path, Below())
    assert play(later, started(later), lambda number: 0.4)
    assert later.trials[1].state == STOPPED
    assert later.trials[1].stopped == "its mean IoU of 0.4000 was among the poorer ones after epoch 1"
    # The last epoch is never stopped: the model would not be saved.
    assert not play(later, started(later), lambda number: 0.5 if number < 4 else 0.0)
    assert later.trials[2].state == FINISHED


def test_a_lost_machine_costs_a_trial_nothing_but_time_and_not_for_ever(tmp_path: Path) -> None:
    chosen = settings(searcher="grid", space={"model.encoder": ["resnet18"]})
    sweep = conductor(Bucket(), chosen, grid(chosen), tmp_path)
    for _ in range(MOST_LOSSES - 1):
        order = started(sweep)
        assert (order.number, order.slower) == (1, 0)
        play(sweep, order, flat, until=1)
        sweep.lost(1, "its machine was lost")
        assert not sweep.is_done
    play(sweep, started(sweep), flat, until=1)
    sweep.lost(1, "its machine was lost")
    assert sweep.trials[0].state == FAILED
    assert sweep.next() is None
    assert sweep.is_done


def test_what_dies_of_a_signal_is_tried_once_in_a_slower_way(tmp_path: Path) -> None:
    chosen = settings(searcher="grid")
    sweep = conductor(Bucket(), chosen, grid(chosen), tmp_path)
    order = started(sweep)
    sweep.begun(order.number, 1.0, has_gpus=False)
    sweep.died(order.number, "died by signal SIGILL (4)")
    again = started(sweep)
    assert (again.number, again.slower) == (order.number, 1)
    sweep.died(order.number, "died by signal SIGILL (4)")
    assert str(sweep.trials[0].error).startswith("its process died by signal SIGILL (4), and so it did before")
    assert started(sweep).number == 2


def test_where_memory_runs_out_less_is_computed_at_once_until_one_slice_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_micro_batch", lambda: True)
    chosen = settings(searcher="grid", space={"train.batch_size": [6], "model.encoder": ["resnet18", "resnet34"]})
    sweep = conductor(Bucket(), chosen, grid(chosen), tmp_path)
    seen, order = [], started(sweep)
    while order.number == 1:
        seen.append(order.micro_batch)
        sweep.begun(order.number, 1.0, has_gpus=True)
        sweep.ran_out_of_memory(order.number)
        order = started(sweep)
    assert seen == [None, 3, 1]
    assert "memory ran out" in str(sweep.trials[0].error)
    assert order.micro_batch is None  # the next trial is another one


@pytest.mark.parametrize("budget", [{"hours": 55 / 3600}, {"gpu_hours": 55 / 3600}])
def test_at_the_end_of_the_budget_what_runs_stops_after_its_epoch_and_a_larger_one_goes_on(
    budget: dict[str, float], tmp_path: Path
) -> None:
    bucket, chosen = Bucket(), settings(searcher="grid", **budget)
    sweep = conductor(bucket, chosen, grid(chosen), tmp_path)
    assert not play(sweep, started(sweep), flat)
    assert play(sweep, started(sweep), flat)  # after the second epoch, at 60 seconds
    assert sweep.next() is None
    assert sweep.is_done
    sweep.close()
    assert len(sweep.trials[1].history) == 2
    assert "budget" in str(sweep.trials[1].stopped)

    more = settings(searcher="grid")
    later = conductor(bucket, more, grid(more), tmp_path)
    order = started(later)
    assert order.number == 2
    play(later, order, flat, known=2)
    assert (later.trials[1].state, later.trials[1].stopped) == (FINISHED, None)


def test_a_searcher_that_learns_decides_after_a_death_as_without_one(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    from boneseg.tune.optuna import Optuna

    space = {"train.learning_rate": {"loguniform": [1e-4, 1e-1]}, "model.encoder": ["resnet18", "resnet34", "vgg11"]}
    chosen = settings(space=space, trials=16, epochs=2)

    def made() -> Optuna:
        made_space: Space = space_of(chosen)
        return Optuna(made_space, 7, chosen.tune.trials, [False], parallel=False)

    def run(sweep: Conductor, until: int = 99) -> None:
        while len(sweep.trials) < until and (order := sweep.next()) is not None:
            rate = order.choice["train.learning_rate"]
            play(sweep, order, lambda number, rate=rate: 1 - abs(rate - 0.01) * 10)

    whole = conductor(Bucket(), chosen, made(), tmp_path)
    run(whole)
    bucket = Bucket()
    run(conductor(bucket, chosen, made(), tmp_path), until=9)
    later = conductor(bucket, chosen, made(), tmp_path)
    run(later)
    rates = [trial.choice["train.learning_rate"] for trial in later.trials]
    assert rates == pytest.approx([trial.choice["train.learning_rate"] for trial in whole.trials], rel=0.02)
    # And it learns: late choices are nearer to the best than those drawn at random at first.
    misses = [abs(rate - 0.01) for rate in rates]
    assert sum(misses[-6:]) < sum(misses[:6])


def test_two_metrics_are_weighed_and_one_that_was_stopped_teaches_too(tmp_path: Path) -> None:
    from boneseg.tune.optuna import Optuna

    chosen = settings(metrics=["bone_dice", "ms_per_slice"], trials=6)
    searcher = Optuna(space_of(chosen), 1, 6, [False, True], parallel=True)
    sweep = conductor(Bucket(), chosen, searcher, tmp_path, Below())
    while (order := sweep.next()) is not None:
        play(sweep, order, lambda number, order=order: 0.1 * order.number if order.number != 3 else 0.0)
    assert len(set(pairs(sweep.trials))) == 6
    assert sweep.trials[2].state == STOPPED
    states = [trial.state.name for trial in searcher._study.trials if trial.params and trial.values]
    assert states == ["COMPLETE"] * 6


def test_a_damaged_note_of_a_trial_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bucket, chosen = Bucket(), settings(searcher="grid")
    run_all(conductor(bucket, chosen, grid(chosen), tmp_path))
    key = "sweeps/s/trials/0003.json"
    bucket.objects[key] = bucket.objects[key][:50]
    later = conductor(bucket, chosen, grid(chosen), tmp_path)
    assert "0003.json is damaged" in caplog.text
    run_all(later)
    assert len(set(pairs(later.trials))) == 6


def test_epochs_are_heard_in_any_case_of_repetition(tmp_path: Path) -> None:
    chosen = settings(searcher="grid")
    sweep = conductor(Bucket(), chosen, grid(chosen), tmp_path)
    order = started(sweep)
    sweep.begun(order.number, 2.0, has_gpus=True)
    for number in (1, 2, 1, 2, 3):
        sweep.heard(order.number, epoch(number, 0.1 * number))
    assert [record.epoch for record in sweep.trials[0].history] == [1, 2, 3]
    assert sweep.trials[0].devices == 2.0


def test_a_population_goes_on_from_its_best_with_other_settings_and_survives_a_death(tmp_path: Path) -> None:
    space = {"train.learning_rate": {"loguniform": [1e-4, 1e-1]}, "model.encoder": ["resnet18", "resnet34"]}
    chosen = settings(space=space, scheduler="pbt", trials=4, epochs=5, searcher="random")
    bucket = Bucket()

    def made() -> Conductor:
        whole = space_of(chosen)
        return conductor(bucket, chosen, Random(whole, 1), tmp_path, population=Population(whole, 1))

    def turn(sweep: Conductor, order: Order, until: int = 99) -> bool:
        known = len(sweep.journal.trials[order.number].history)
        return play(sweep, order, lambda number: 0.1 * order.number + 0.01 * number, until, known)

    sweep = made()
    first = [started(sweep) for _ in range(4)]
    rates = {trial.number: trial.choice["train.learning_rate"] for trial in sweep.trials}
    assert [turn(sweep, order, until=1) for order in reversed(first)] == [False, True, True, True]
    poor, best = sweep.trials[0], sweep.trials[3]
    assert poor.donor is not None
    assert poor.donor[0] == best.run
    assert poor.run == "s-1-1"
    assert poor.choice["model.encoder"] == best.choice["model.encoder"]
    assert poor.choice["train.learning_rate"] != rates[1]
    assert poor.history == best.history

    later = made()  # the driver died
    while (order := later.next()) is not None:
        turn(later, order)
    assert [trial.state for trial in later.trials] == [FINISHED] * 4
    assert all([record.epoch for record in trial.history] == [1, 2, 3, 4, 5] for trial in later.trials)
