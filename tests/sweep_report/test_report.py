"""The report as a person meets it: of an invented sweep of 30 trials, of small ones, and of the first version's."""

import csv
import re
import struct
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

from boneseg.settings.schema import RunSettings
from boneseg.sweep_report.files import Report, write_report
from boneseg.sweep_report.trials import Trial, trials_of
from boneseg.tune.records import FAILED, FINISHED, STOPPED, TuneResult
from tests.sweep_report.given import OUT_OF_MEMORY, result_of, row, sweep

FIRST = Path(__file__).parents[1] / "golden" / "first"
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """What a page holds: text, pictures, and what it would load from elsewhere."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[str] = []
        self.elsewhere: list[str] = []
        self.codes: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open, "a tag is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert tag != "script"
        if tag == "img":
            self.pictures.append(given["alt"] or "")
        for name in ("src", "href"):
            if name in given and not (given[name] or "").startswith("data:"):
                self.elsewhere.append(given[name] or "")
        if tag not in ("img", "meta", "br", "link"):
            self.open.append(tag)
        if tag == "code":
            self.codes.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            return
        self.text += data
        if self.open and self.open[-1] == "code":
            self.codes[-1] += data


def made(folder: Path, result: TuneResult) -> tuple[Page, tuple[Trial, ...]]:
    trials = trials_of(result, {}, RunSettings())
    files = write_report(folder, Report(result, trials))
    assert all((folder / file).is_file() for file in files)
    return Page(folder / "report.html"), trials


def rows_of(folder: Path, table: str) -> list[dict[str, str]]:
    with (folder / "tables" / f"{table}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def commands(page: Page) -> list[str]:
    return [code for code in page.codes if code.startswith("boneseg train --set")]


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in (folder / "plots").iterdir():
        data = path.read_bytes()
        assert data.startswith(PNG)
        found[path.stem] = struct.unpack(">II", data[16:24])
    return found


@dataclass(frozen=True)
class Thirty:
    """A report of thirty trials."""

    folder: Path
    result: TuneResult
    page: Page
    trials: tuple[Trial, ...]


@pytest.fixture(scope="module")
def thirty(tmp_path_factory: pytest.TempPathFactory) -> Thirty:
    folder, result = tmp_path_factory.mktemp("thirty"), sweep(30)
    return Thirty(folder, result, *made(folder, result))


def test_a_sweep_of_thirty_trials_is_told_whole(thirty: Thirty) -> None:
    folder, result, page, trials = thirty.folder, thirty.result, thirty.page, thirty.trials
    assert page.elsewhere == []
    assert page.pictures == [
        "Learning curves",
        "Parallel coordinates",
        "Importance of each setting",
        "Accuracy against cost",
        "What each trial cost",
    ]
    states = [trial.state for trial in trials]
    assert {state: states.count(state) for state in set(states)} == {FINISHED: 18, STOPPED: 9, FAILED: 3}
    assert "Of 30 trials 18 had all their epochs, 9 stopped early, 3 failed." in page.text
    assert f"mean IoU {result.rows[0].best_mean_iou:.2%}" in page.text
    assert [trial.command for trial in trials] == commands(page)

    board = rows_of(folder, "leaderboard")
    assert [float(line["mean_iou_percent"]) for line in board if line["state"] != FAILED] == pytest.approx(
        [100 * (found.best_mean_iou or 0) for found in result.rows if found.error is None], abs=1e-5
    )
    assert [line["network"] for line in board] == [f"{found.architecture}/{found.encoder}" for found in result.rows]
    assert [line["command"] for line in board] == [trial.command for trial in trials]
    assert sum(float(line["device_hours"]) for line in board) == pytest.approx(
        sum(found.device_hours for found in result.rows), abs=1e-4
    )
    best = max(record.bone_dice for record in result.rows[0].history)
    assert float(board[0]["bone_dice_percent"]) == pytest.approx(100 * best, abs=1e-5)


def test_what_was_stopped_and_what_failed_stands_with_its_reason_and_its_cost(thirty: Thirty) -> None:
    folder, result, page, trials = thirty.folder, thirty.result, thirty.page, thirty.trials
    ended = rows_of(folder, "ended")
    assert len(ended) == 12
    reasons = {line["reason"] for line in ended if line["state"] == STOPPED}
    assert reasons == {found.stopped for found in result.rows if found.stopped}
    failed = [line["reason"] for line in ended if line["state"] == FAILED]
    assert failed == [OUT_OF_MEMORY.replace("/srv/nodes/7/runs/", "")] * 3, "a reason without folders of a machine"
    assert "/work" not in page.text
    cost = {line["state"]: line for line in rows_of(folder, "cost")}
    assert {state: int(cost[state]["trials"]) for state in (FINISHED, STOPPED, FAILED)} == {
        FINISHED: 18,
        STOPPED: 9,
        FAILED: 3,
    }
    assert float(cost["combined"]["device_hours"]) == pytest.approx(
        sum(trial.device_hours or 0 for trial in trials), abs=1e-5
    )
    assert float(cost["combined"]["share_percent"]) == pytest.approx(100)


def test_the_setting_that_matters_is_named_first(thirty: Thirty) -> None:
    first = rows_of(thirty.folder, "importance")[0]
    assert first["setting"] == "model.encoder"
    assert float(first["share_percent"]) > 50
    assert first["levels"].startswith("mit_b2: +")


def test_the_fronts_hold_the_best_and_the_cheapest_trial(thirty: Thirty) -> None:
    trials, fronts = thirty.trials, rows_of(thirty.folder, "front")
    assert {line["measure"] for line in fronts} == {"Inference, ms a slice", "Parameters, millions"}
    scored = [trial for trial in trials if trial.state != FAILED]
    best = max(scored, key=lambda trial: trial.bone_dice or 0)
    for measure, cost in (("Inference, ms a slice", "ms_per_slice"), ("Parameters, millions", "parameters")):
        ranks = [int(line["rank"]) for line in fronts if line["measure"] == measure]
        assert ranks[-1] == best.rank
        assert getattr(trials[ranks[0] - 1], cost) == min(getattr(trial, cost) for trial in scored)


def test_figures_have_a_readable_size_for_four_and_for_two_hundred_trials(tmp_path: Path) -> None:
    for trials in (4, 200):
        page, _ = made(tmp_path / str(trials), sweep(trials))
        assert len(page.pictures) == 5
        for name, (width, height) in sizes(tmp_path / str(trials)).items():
            assert 700 <= width <= 3500, name
            assert 200 <= height <= 1200, name
    shown = Page(tmp_path / "200" / "report.html")
    assert "all others, from rank 21 on (180 rows)" in shown.text
    assert len(commands(shown)) == 200


def test_a_sweep_of_the_first_version_is_told_as_far_as_it_was_written_down(tmp_path: Path) -> None:
    result = TuneResult.read((FIRST / "sweep.json").read_bytes(), "sweep.json", "")
    page, trials = made(tmp_path, result)
    assert page.pictures == ["Parallel coordinates"]
    for sentence in (
        "Learning curves: the record holds no epochs",
        "accuracy against speed: no trial of this sweep noted its speed",
        "accuracy against size: no trial of this sweep noted its size",
        "Cost: no trial of this sweep noted how long it took",
        "Importance of settings: there are too few trials to tell",
        "have no interval",
    ):
        assert sentence in page.text
    assert [(trial.state, trial.why) for trial in trials] == [(FINISHED, "")] * 2
    assert trials[0].command == (
        "boneseg train --set model.architecture=unet --set model.encoder=mobilenet_v2 "
        "--set train.learning_rate=0.0006466 --set train.loss=cross_entropy"
    )
    board = rows_of(tmp_path, "leaderboard")
    assert "device_hours" not in board[0], "a column that would be empty"
    assert [line["train.loss"] for line in board] == ["cross_entropy", "cross_entropy_dice"]


def test_a_trial_of_before_states_that_asha_stopped_says_so(tmp_path: Path) -> None:
    choice = {"model.architecture": "unet", "model.encoder": "resnet18"}
    old = {"choice": {}, "history": (), "state": "", "stopped": None, "seconds": 0.0, "device_hours": 0.0}
    rows = [
        row(choice, [0.1, 0.2, 0.3, 0.4], FINISHED),
        row(choice, [0.2], STOPPED),
        row(choice, [], FAILED, "the loss is not a number"),
    ]
    _, trials = made(tmp_path, result_of([found.model_copy(update=old) for found in rows]))
    assert [trial.state for trial in trials] == [FINISHED, STOPPED, FAILED]
    assert trials[1].why == "ASHA stopped it after epoch 1 of 4: others were better by then"
    assert trials[2].why == "the loss is not a number"


def test_a_sweep_ranked_by_bone_dice_shows_that(tmp_path: Path) -> None:
    result = sweep(6).model_copy(update={"metric": "bone_dice"})
    page, trials = made(tmp_path, result)
    assert "ranked by the highest bone Dice" in page.text
    assert trials[0].curve == tuple(record.bone_dice for record in result.rows[0].history)
    assert trials[0].score == max(trials[0].curve)


@pytest.mark.parametrize("count", [1, 2])
def test_a_sweep_of_one_or_two_trials_has_a_report(count: int, tmp_path: Path) -> None:
    choices = [{"model.architecture": "unet", "model.encoder": name} for name in ("resnet18", "resnet34")]
    rows = [row(choice, [0.5 + number / 10], FINISHED) for number, choice in enumerate(choices[:count])]
    page, _ = made(tmp_path, result_of(rows))
    assert re.search(rf"\b{count} trials?\b", page.text)


def test_a_trial_that_was_stopped_before_its_first_epoch_is_a_row(tmp_path: Path) -> None:
    choice = {"model.architecture": "unet", "model.encoder": "resnet18"}
    rows = [row(choice, [0.5, 0.6], FINISHED), row(choice, [], STOPPED, "the budget of 1 hour was used up")]
    _, trials = made(tmp_path, result_of(rows))
    assert [(trial.state, trial.score) for trial in trials] == [(FINISHED, 0.6), (STOPPED, None)]
    assert rows_of(tmp_path, "ended")[0]["reason"] == "the budget of 1 hour was used up"
