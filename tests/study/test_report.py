"""The report as a reader meets it."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boneseg.dataset.manifest import Dataset
from boneseg.evaluate.plots_slices import Masked, SlicePicture
from boneseg.evaluate.plots_study import Panel
from boneseg.study import paper_numbers as printed
from boneseg.study.differences import differences
from boneseg.study.pictures import Pictures
from boneseg.study.plan import Budget, make_plan
from boneseg.study.report import Report, write_report
from boneseg.study.tables import Results
from boneseg.study.timing import OurCost
from boneseg.study.trial import Failed
from tests.study.given import finished, trial


def picture() -> SlicePicture:
    label = np.zeros((64, 64), np.uint8)
    label[4:60, 4:60] = 1
    label[20:30, 20:30] = 2
    methods = {name: Masked(label, 1.0) for name in ("network", "threshold")}
    return SlicePicture("typical", "series abc, slice 1 of 4", np.zeros((64, 64), np.int16), label, methods, (1, 1))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a report on seven networks and one that failed."""
    folder = tmp_path_factory.mktemp("study")
    trials = [trial(name, title, (1, 3)) for name, title in printed.TITLES.items()]
    networks = [finished(given, number) for number, given in enumerate(trials)]
    failed = Failed(trial("unet/<odd>", "unet/<odd>"), "it <b>cannot</b> train")
    results = Results((*networks, failed), {printed.UNET: OurCost(12.5, 10, 9)}, "a machine")
    dataset = Dataset(dataset_hash="d" * 16, test_hash="t" * 16, fingerprint="f", entries=(), problems=())
    shown = picture()
    panels = (Panel("CT", None, ""), *(Panel(given.title, shown.first.mask, "bone IoU 50.0%") for given in trials))
    matters = differences(make_plan((), Budget(size=64), weights="none"), dataset, "Phantoms | made here.", "a machine")
    write_report(folder, Report(results, dataset, matters, Pictures(shown, panels, (shown,))))
    return folder


def test_the_html_report_needs_no_other_file_and_shows_all(report: Path) -> None:
    html = (report / "report.html").read_text()
    assert not re.search(r"<script|https?://|<link|url\(|@import", html)
    assert html.count("data:image/png;base64,") == 5
    for text in ("Table 1", "Table 2", "Table 3", "Table 4", *(f"Figure {number}" for number in range(3, 8))):
        assert text in html
    assert "paper protocol" in html
    assert "85.32" in html
    assert printed.CITATION in html
    assert "unet/&lt;odd&gt;" in html
    assert "<b>cannot" not in html


def test_the_markdown_report_has_the_same_tables_and_names_its_figures(report: Path) -> None:
    text = (report / "report.md").read_text()
    for name in re.findall(r"\]\((figures/[^)]*)\)", text):
        assert min(Image.open(report / name).size) > 200
    assert text.count("](figures/") == 5
    for line in text.splitlines():
        if line.startswith("| Data"):
            assert line.count("|") == 4
            assert "Phantoms" in line
    assert len(list((report / "tables").glob("*.csv"))) == 6
    assert all(title in text for title in printed.TITLES.values())
    assert "it <b>cannot</b> train" in text


def test_where_it_differs_is_said(report: Path) -> None:
    html = (report / "report.html").read_text()
    for said in ("987 of 10 series", "Phantoms | made here.", "64x64 pixels", "learning rate 1,", "start from random"):
        assert said in html


def test_small_plots_grow_with_the_networks_and_hide_what_is_left_over(report: Path) -> None:
    width, height = Image.open(report / "figures" / "figure3_accuracy.png").size
    assert width > 1500
    assert height > 600  # seven networks: two rows of four
