"""Figures and the report."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boneseg.evaluate.files import Study, write_files
from boneseg.evaluate.measure import Subject, Volume
from boneseg.evaluate.methods import ThresholdMethod
from boneseg.evaluate.names import NETWORK, THRESHOLD
from boneseg.evaluate.pictures import choose
from boneseg.evaluate.records import EvaluationResult, SeriesResult, SplitSummary
from boneseg.phantom.series import Phantom, make_phantom
from boneseg.settings.schema import EvaluateSettings
from boneseg.storage.catalogue import Problem
from tests.evaluate.given import Given, model_card, series_result


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(1, slices=6, size=96)


@pytest.fixture(scope="module")
def series(phantom: Phantom, settings: EvaluateSettings) -> SeriesResult:
    worse = phantom.label.copy()
    for index, plane in enumerate(worse):
        plane[: 20 + 8 * index][plane[: 20 + 8 * index] == 2] = 1
    return series_result("s", "p", phantom.label, worse, phantom.label, settings)


@pytest.fixture(scope="module")
def report(
    phantom: Phantom, series: SeriesResult, settings: EvaluateSettings, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, EvaluationResult]:
    folder = tmp_path_factory.mktemp("report")
    study = Study(
        evaluation_hash="e" * 16,
        place=str(folder),
        card=model_card(),
        test_hash="t" * 16,
        dataset_hash="d" * 16,
        settings=settings,
        data=(SplitSummary(split="test", series=1, patients=1, slices=6),),
        series=(series,),
        problems=(Problem(source="raw/<odd>.dcm", reason="the file is cut short; copy it again"),),
    )
    subject = Subject(
        series.series,
        series.content,
        "raw/s",
        series.patient,
        lambda: Volume(phantom.hu, phantom.label, phantom.geometry),
    )
    network = Given(phantom.label)
    return folder, write_files(folder, study, [subject], {NETWORK: network, THRESHOLD: ThresholdMethod(150.0)})


def test_best_typical_and_worst_are_chosen_among_slices_with_bone(settings: EvaluateSettings) -> None:
    truth = np.ones((6, 10, 10), np.uint8)
    guess = truth.copy()
    truth[1:, :5] = 2  # slice 0 holds no bone
    for index, rows in enumerate((0, 1, 5, 3, 2, 4)):
        guess[index, :rows] = 2
    choices = choose([series_result("s", "p", truth, guess, truth, settings)])
    assert [(choice.title, choice.index) for choice in choices] == [("best", 2), ("typical", 3), ("worst", 1)]


def test_one_slice_with_bone_is_shown_once_and_none_without(settings: EvaluateSettings) -> None:
    truth = np.ones((3, 10, 10), np.uint8)
    assert choose([series_result("s", "p", truth, truth, truth, settings)]) == []
    truth[1, :4] = 2
    assert [choice.index for choice in choose([series_result("s", "p", truth, truth, truth, settings)])] == [1]


def test_the_report_needs_no_other_file_and_no_network(report: tuple[Path, EvaluationResult]) -> None:
    html = (report[0] / "report.html").read_text()
    assert "<script" not in html
    assert not re.search(r"https?://", html)
    assert not re.search(r"<link|url\(|@import", html)
    sources = re.findall(r'src="([^"]*)"', html)
    assert len(sources) == 5
    for source in sources:
        image = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
        assert min(image.size) > 200


def test_the_report_shows_every_table_with_its_protocol_and_the_headline(report: tuple[Path, EvaluationResult]) -> None:
    folder, result = report
    html = (folder / "report.html").read_text()
    for table in result.tables:
        assert table.title in html
        assert (folder / "tables" / f"{table.name}.csv").is_file()
    assert html.count("paper protocol") == 3
    assert html.count("patient protocol") == 3
    assert f"{result.bone_dice * 100:.2f}" in html  # type: ignore[operator]
    assert result.test_hash in html
    assert "1 234 567" in html.replace("\N{NO-BREAK SPACE}", " ")
    assert "too few for an interval" in html


def test_what_data_says_cannot_become_markup(report: tuple[Path, EvaluationResult]) -> None:
    html = (report[0] / "report.html").read_text()
    assert "raw/&lt;odd&gt;.dcm" in html
    assert "<odd>" not in html


def test_the_raw_counts_of_every_slice_are_kept(report: tuple[Path, EvaluationResult], phantom: Phantom) -> None:
    lines = (report[0] / "tables" / "slices.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 6
    assert sum(int(cell) for cell in lines[1].split(",")[3:]) == phantom.label[0].size


def test_every_file_is_listed_and_there(report: tuple[Path, EvaluationResult]) -> None:
    folder, result = report
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == set(result.files)
    assert {f"plots/figure{number}" for number in range(3, 8)} == {
        file.partition("_")[0] for file in there if file.startswith("plots/")
    }


def test_a_picture_has_the_proportions_of_the_patient(
    phantom: Phantom, settings: EvaluateSettings, tmp_path: Path
) -> None:
    from boneseg.evaluate.plots_slices import Masked, SlicePicture, figure_methods

    heights = []
    for rows_mm in (1.0, 2.0):
        label = np.zeros((64, 64), np.uint8)
        label[4:60, 4:60] = 1
        label[20:30, 20:30] = 2
        picture = SlicePicture(
            "", "", np.zeros((64, 64), np.int16), label, {"network": Masked(label, 1.0)}, (rows_mm, 1.0)
        )
        figure_methods(picture, tmp_path / "figure.png")
        heights.append(Image.open(tmp_path / "figure.png").size[1])
    assert heights[1] > 1.5 * heights[0]
