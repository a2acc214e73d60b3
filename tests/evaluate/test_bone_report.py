"""Report, figures and artifacts of models of few and of many bones; another method as one more row."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from boneseg.evaluate import methods
from boneseg.evaluate.class_figure import bone_rows
from boneseg.evaluate.evaluate import evaluate_folder
from boneseg.evaluate.files import Study, write_files
from boneseg.evaluate.methods import METHODS, MethodKind, ThresholdMethod
from boneseg.evaluate.names import ENSEMBLE, NETWORK, THRESHOLD
from boneseg.evaluate.pictures import choose, draw, shown_as
from boneseg.evaluate.plots import MOST_LIGHT, class_lines, on_white
from boneseg.evaluate.plots_slices import figure_examples, in_view, panels
from boneseg.evaluate.records import EvaluationResult, SplitSummary
from boneseg.inference import Labels
from boneseg.phantom.series import write_phantom
from boneseg.registry.model_readme import model_card as registry_card
from boneseg.scheme import BONE_SCHEME, BUILT_IN, Labelling, LabelScheme
from boneseg.settings.schema import EvaluateSettings, PrepareSettings
from tests.evaluate.given import model_card
from tests.evaluate.given_bones import GivenBones, body, guess, picture, result_of, subject_of
from tests.registry.factory import a_dataset

PELVIS, SKELETON = BUILT_IN["pelvis"], BUILT_IN["skeleton"]


def written(folder: Path, scheme: LabelScheme, settings: EvaluateSettings) -> EvaluationResult:
    label = body(scheme, 0)
    network = GivenBones(guess(label, scheme, 0, swapped=1), scheme)
    row = result_of("s", label, network, settings, Labelling(scheme))
    subject = subject_of(row, picture(label, scheme), label, Labelling(scheme))
    history = tuple(
        epoch.model_copy(update=dict.fromkeys(("validation_iou", "validation_dice"), (0.5,) * scheme.size))
        for epoch in model_card().history
    )
    study = Study(
        evaluation_hash="e" * 16,
        place=str(folder),
        card=model_card().model_copy(update={"scheme": scheme, "history": history}),
        test_hash="t" * 16,
        dataset_hash="d" * 16,
        settings=settings,
        data=(SplitSummary(split="test", series=1, patients=1, slices=40),),
        series=(row,),
        problems=(),
    )
    return write_files(folder, study, [subject], {NETWORK: network, THRESHOLD: ThresholdMethod(150.0)})


@pytest.fixture(scope="module", params=["bone", "pelvis", "skeleton"])
def report(
    request: pytest.FixtureRequest, settings: EvaluateSettings, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, LabelScheme, EvaluationResult]:
    scheme, folder = BUILT_IN[request.param], tmp_path_factory.mktemp("report")
    return folder, scheme, written(folder, scheme, settings)


def test_the_report_names_every_class_and_folds_groups_without_a_script(
    report: tuple[Path, LabelScheme, EvaluationResult],
) -> None:
    folder, scheme, _ = report
    html = (folder / "report.html").read_text()
    assert not re.search(r"<script|https?://|<link|url\(|@import", html)
    for name in scheme.names:
        assert re.search(rf"<t[dh][^>]*>{name}<", html), name
    folds = re.findall(r"<summary>(.*?) \((\d+) rows", html)
    assert html.count("<details>") == html.count("</details>") == len(folds)
    if scheme.size < 10:
        assert folds == []
    else:
        assert ("spine", "25") in folds
        assert ("ribs", "24") in folds
        visible = re.sub(r"<details>.*?</details>", "", html, flags=re.S)
        assert "vertebrae T4" not in visible
        assert '<td class="text">spine</td>' in visible
    assert ("Left and right" in html) == (scheme.size > 3)


def test_all_rows_are_in_the_csv_whatever_is_folded(report: tuple[Path, LabelScheme, EvaluationResult]) -> None:
    folder, scheme, result = report
    if scheme == BONE_SCHEME:
        assert not (folder / "tables" / "bones.csv").exists()
        return
    with (folder / "tables" / "bones.csv").open() as file:
        found = [row["bone"] for row in csv.DictReader(file)]
    assert set(found) == {name for value, name in enumerate(scheme.names) if value in scheme.bones} | set(scheme.groups)
    assert {"tables/sides.csv", "tables/classes.csv", "plots/figure8_bones.png"} <= set(result.files)


def test_the_card_of_the_registry_lists_classes_and_bones(report: tuple[Path, LabelScheme, EvaluationResult]) -> None:
    _, scheme, result = report
    card = model_card().model_copy(update={"scheme": scheme})
    text = registry_card(card, result, a_dataset(), "s3://bucket/models/x/", "bone")
    for value, name in enumerate(scheme.names):
        assert f"{value} {name}" in text
    assert ("### Bone by bone" in text) == (scheme.size > 3)
    assert len(text.splitlines()) < 140


def test_classes_are_shown_by_name_and_other_bones_as_bone() -> None:
    bone = PELVIS.size
    sets = Labelling(PELVIS, ((1, 2), (4, 5)))
    assert shown_as(PELVIS, sets).tolist() == [*range(8), 1, bone]
    assert shown_as(PELVIS, Labelling(BONE_SCHEME)).tolist() == [0, 1, bone]
    assert shown_as(BONE_SCHEME, Labelling(PELVIS)).tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert shown_as(BONE_SCHEME, Labelling(BONE_SCHEME)).tolist() == [0, 1, 2]
    skeleton = shown_as(PELVIS, Labelling(SKELETON))
    for name in ("femur left", "hip right", "sacrum"):
        assert skeleton[SKELETON.names.index(name)] == PELVIS.names.index(name)
    assert skeleton[SKELETON.names.index("skull")] == bone


def test_a_legend_names_the_bones_in_view_and_no_others(settings: EvaluateSettings) -> None:
    label = body(SKELETON, 0)
    network = GivenBones(label, SKELETON)
    row = result_of("s", label, network, settings, Labelling(SKELETON))
    subject = subject_of(row, picture(label, SKELETON), label, Labelling(SKELETON))
    shown = draw(choose([row]), [subject], {NETWORK: network})[0]
    figure, _ = panels(1, 2, in_view([shown], [shown.reference]), shown)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    there = [SKELETON.names[value] for value in np.unique(shown.reference) if value > 1]
    assert [re.sub(r"^\d+ ", "", text) for text in legend] == [*there, "patient outline"]


def test_what_is_called_by_another_bones_name_is_painted(settings: EvaluateSettings, tmp_path: Path) -> None:
    from PIL import Image

    label = body(PELVIS, 0)
    swapped = label.copy()
    swapped[label == 2], swapped[label == 3] = 3, 2
    magenta = []
    for mask in (label, swapped):
        network = GivenBones(mask, PELVIS)
        row = result_of("s", label, network, settings, Labelling(PELVIS))
        subject = subject_of(row, picture(label, PELVIS), label, Labelling(PELVIS))
        index = int(np.argmax((label == 2).sum(axis=(1, 2))))
        chosen = [choose([row])[0].__class__("typical", row, index)]
        figure_examples(draw(chosen, [subject], {NETWORK: network}), tmp_path / "figure.png")
        pixels = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).astype(int)
        magenta.append(int(((pixels[..., 0] > 190) & (pixels[..., 1] < 90) & (pixels[..., 2] > 100)).sum()))
    assert magenta[0] == 0
    assert magenta[1] > 20


def test_the_figure_of_bones_has_partners_in_one_row(settings: EvaluateSettings) -> None:
    from tests.evaluate.test_bones import evaluated

    label = body(SKELETON, 0)
    series = [result_of("s", label, GivenBones(label, SKELETON), settings, Labelling(SKELETON))]
    found = {row.name: row for row in bone_rows(series, evaluated(series, SKELETON, settings))}
    assert [mark.side for mark in found["rib 7"].marks] == ["left", "right"]
    assert [mark.side for mark in found["sternum"].marks] == [""]
    assert found["spine"].group
    assert len(found) == 4 + 45
    assert all(mark.dice == [1.0] for row in found.values() for mark in row.marks)


def test_lines_of_few_classes_are_told_apart_and_many_are_folded() -> None:
    for name in ("bone", "pelvis"):
        lines = class_lines(BUILT_IN[name])
        assert [line[0] for line in lines] == list(BUILT_IN[name].names)
        assert len({line[1] for line in lines}) == len(lines)
    assert len(class_lines(SKELETON)) == 3
    for item in SKELETON.classes:
        red, green, blue = (int(on_white(item.colour)[at : at + 2], 16) / 255 for at in (1, 3, 5))
        assert 0.299 * red + 0.587 * green + 0.114 * blue <= MOST_LIGHT + 0.01


class AllSoft:
    """A baseline that takes everything above water for bone."""

    identity = "soft"
    scheme = BONE_SCHEME

    def segment(self, hu: np.ndarray, geometry: object, slices: list[int] | None = None) -> Labels:
        """Return outline for air and bone for the rest."""
        mask = np.where(np.asarray(hu) > 0, 2, 1).astype(np.uint8)
        return Labels(mask if slices is None else mask[list(slices)], None)


def test_another_baseline_is_a_row_of_the_table_of_methods(
    model_folder: Path, settings: EvaluateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "soft", MethodKind(lambda _: AllSoft(), "nothing", lambda _: BONE_SCHEME))
    write_phantom(tmp_path / "data", 1, slices=5, size=96)
    result = evaluate_folder(model_folder, tmp_path / "data", tmp_path / "out", settings, PrepareSettings())
    assert result.series[0].others["soft"].method == "soft"
    methods_shown = [row["method"] for row in result.table("class_wise").dicts()]
    assert methods_shown[-2:] == ["threshold 150 HU", "soft"]
    assert result.table("soft_difference").rows
    assert result.table("patient_summary").dicts()[0]["soft_mean"] is not None
    html = (tmp_path / "out" / "report.html").read_text()
    assert "soft: <strong>" in html
    assert "the soft&#39;s" in html
    lines = (tmp_path / "out" / "tables" / "slices.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 5
    assert EvaluationResult.model_validate_json(result.to_json()) == result


def test_every_method_says_what_it_needs_and_which_classes_it_tells() -> None:
    assert list(methods.METHODS) == [NETWORK, THRESHOLD, ENSEMBLE]
    for scheme in BUILT_IN.values():
        assert METHODS[NETWORK].tells(scheme) == scheme
        assert METHODS[THRESHOLD].tells(scheme) == BONE_SCHEME == ThresholdMethod(150.0).scheme
    assert all(kind.needs for kind in METHODS.values())
