"""The tables, by hand and against scikit-learn."""

import csv
import io

import numpy as np
import pytest
from sklearn import metrics as reference

from boneseg.evaluate.forms import to_csv, to_markdown
from boneseg.evaluate.measure import planes_on_output
from boneseg.evaluate.methods import ThresholdMethod
from boneseg.evaluate.records import EvaluationResult, SeriesResult, Table
from boneseg.evaluate.tables import all_tables, class_wise, per_image, per_series
from boneseg.settings.schema import EvaluateSettings
from tests.evaluate.given import evaluation, series_result

SHAPE = (4, 20, 24)


def masks(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, SHAPE).astype(np.uint8)
    guesses = [
        np.where(rng.random(SHAPE) < right, truth, rng.integers(0, 3, SHAPE)).astype(np.uint8) for right in (0.9, 0.6)
    ]
    return truth, guesses[0], guesses[1]


@pytest.fixture(scope="module")
def given() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [masks(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def series(given: list[tuple[np.ndarray, ...]], settings: EvaluateSettings) -> list[SeriesResult]:
    patients = ("anna", "anna", "berta")
    return [series_result(f"s{n}", patients[n], *given[n], settings) for n in range(3)]


def row(table: Table, index: int) -> dict[str, object]:
    return dict(zip([column.key for column in table.columns], table.rows[index], strict=True))


def test_the_class_wise_table_pools_the_pixels_of_all_series(
    given: list[tuple[np.ndarray, ...]], series: list[SeriesResult], settings: EvaluateSettings
) -> None:
    table = class_wise(series, "unet/resnet18", 7, settings)
    truth = np.concatenate([masks[0].ravel() for masks in given])
    for index, name in ((0, "unet/resnet18"), (1, "threshold 150 HU")):
        guess = np.concatenate([masks[index + 1].ravel() for masks in given])
        cells = row(table, index)
        assert cells["method"] == name
        jaccard = reference.jaccard_score(truth, guess, average=None) * 100
        assert [cells[f"iou_{part}_percent"] for part in ("background", "outline", "bone")] == pytest.approx(
            list(jaccard)
        )
        assert cells["iou_mean_percent"] == pytest.approx(jaccard.mean())
        assert cells["dice_mean_percent"] == pytest.approx(reference.f1_score(truth, guess, average="macro") * 100)
        bone = reference.accuracy_score(truth == 2, guess == 2) * 100
        assert cells["accuracy_bone_percent"] == pytest.approx(bone)
    assert row(table, 0)["epoch"] == 7
    assert row(table, 1)["epoch"] is None


def test_the_table_of_series_ends_with_all_of_them_pooled(
    series: list[SeriesResult], settings: EvaluateSettings
) -> None:
    table = per_series(series, "unet/resnet18")
    assert [cells[0] for cells in table.rows] == [*(item.series[:8] for item in series), "combined"]
    assert table.rows[-1][2] == 12
    pooled = row(class_wise(series, "x", 1, settings), 0)
    assert row(table, 3)["network_iou_bone_percent"] == pytest.approx(pooled["iou_bone_percent"])
    assert row(table, 0)["network_iou_bone_percent"] != row(table, 1)["network_iou_bone_percent"]


def test_images_without_bone_are_left_out_and_counted_and_missed_bone_is_not(settings: EvaluateSettings) -> None:
    truth = np.ones((4, 6, 6), np.uint8)
    truth[0, :2], truth[1, :2] = 2, 2
    guess = np.ones((4, 6, 6), np.uint8)
    guess[0, :2] = 2  # right; slice 1 is missed, slice 2 invented, slice 3 has no bone at all
    guess[2, 0] = 2
    cells = row(per_image([series_result("s", "p", truth, guess, truth, settings)], "net"), 0)
    assert (cells["images"], cells["left_out"]) == (3, 1)
    assert cells["bone_iou_min_percent"] == 0
    assert cells["bone_iou_max_percent"] == 100
    assert cells["bone_iou_mean_percent"] == pytest.approx(100 / 3)
    assert cells["bone_iou_sd_percent"] == pytest.approx(np.std([100, 0, 0], ddof=1))


def test_a_missed_bone_costs_the_diagonal_and_a_series_without_bone_is_left_out(settings: EvaluateSettings) -> None:
    full = np.ones((4, 6, 6), np.uint8)
    full[:, :2] = 2
    none = np.ones((4, 6, 6), np.uint8)
    series = [
        series_result("missed", "a", full, none, full, settings),
        series_result("without", "b", none, none, none, settings),
    ]
    table = next(table for table in all_tables(series, "net", 1, settings) if table.name == "patient_summary")
    dice, hd95 = row(table, 0), row(table, 2)
    assert dice["measure"] == "bone Dice (%)"
    assert (dice["network_mean"], dice["network_left_out"], dice["threshold_mean"]) == (0, 1, 100)
    assert hd95["measure"] == "bone HD95 (mm)"
    assert hd95["network_mean"] == pytest.approx(np.sqrt(8**2 + 6**2 + 6**2))
    assert (hd95["network_series"], hd95["network_left_out"]) == (1, 1)


def test_the_difference_is_paired_by_series(series: list[SeriesResult], settings: EvaluateSettings) -> None:
    table = next(table for table in all_tables(series, "net", 1, settings) if table.name == "patient_difference")
    gains = [item.network.bone_dice() - item.threshold.bone_dice() for item in series]  # type: ignore[operator]
    cells = row(table, 0)
    assert cells["difference"] == pytest.approx(np.mean(gains) * 100)
    assert cells["p_value"] == 0.5
    assert (cells["series"], cells["patients"]) == (3, 2)


def test_csv_holds_numbers_and_empty_cells_and_markdown_names_the_protocol(
    series: list[SeriesResult], settings: EvaluateSettings
) -> None:
    table = class_wise(series, "unet/resnet18", 7, settings)
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert float(lines[0]["iou_bone_percent"]) == pytest.approx(row(table, 0)["iou_bone_percent"], abs=1e-6)
    assert lines[1]["epoch"] == ""
    text = to_markdown(table)
    assert "protocol: paper" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert len({line.count("|") for line in rows}) == 1
    assert all(table.protocol in ("paper", "patient") for table in all_tables(series, "net", 1, settings))


@pytest.fixture(scope="module")
def result(series: list[SeriesResult], settings: EvaluateSettings) -> EvaluationResult:
    return evaluation(series, settings)


def test_a_result_survives_json_and_gives_a_comparison_all_it_needs(
    result: EvaluationResult, given: list[tuple[np.ndarray, ...]], series: list[SeriesResult]
) -> None:
    assert EvaluationResult.model_validate_json(result.to_json()) == result
    expected = [reference.f1_score(masks[0].ravel() == 2, masks[1].ravel() == 2) for masks in given]
    assert list(result.dice_by_series().values()) == pytest.approx(expected)
    assert list(result.dice_by_series()) == [item.series for item in series]
    assert result.bone_dice == pytest.approx(np.mean(expected))
    assert len(set(result.patients().values())) == 2
    assert result.scalars()["bone_dice_patient"] == result.bone_dice
    truth, guess = (np.concatenate([masks[index].ravel() for masks in given]) for index in (0, 1))
    np.testing.assert_array_equal(result.confusion, reference.confusion_matrix(truth, guess))


def test_the_console_shows_both_methods_and_protocols_in_100_columns(result: EvaluationResult) -> None:
    from boneseg.evaluate.console import console_table

    lines = console_table(result).splitlines()
    assert max(len(line) for line in lines) <= 100
    assert all(name in lines[0] for name in ("background", "patient outline", "bone", "mean"))
    iou = row(result.table("class_wise"), 0)
    assert f"{iou['iou_bone_percent']:.2f}" in lines[1]
    assert lines[2].split()[0] == "threshold"
    text = "\n".join(lines)
    assert f"{result.bone_dice * 100:.2f}" in text  # type: ignore[operator]
    assert f"{result.threshold_bone_dice_pooled * 100:.2f}" in text  # type: ignore[operator]
    assert "Protocol paper" in text
    assert "Protocol patient" in text


def test_another_threshold_is_another_method() -> None:
    assert ThresholdMethod(150.0).identity == ThresholdMethod(150.0).identity != ThresholdMethod(200.0).identity


def test_the_paper_protocol_counts_at_the_size_of_the_network_output(settings: EvaluateSettings) -> None:
    truth, guess, threshold = masks(0)
    output = guess[:, ::2, 1::2]  # what a network of half the size would say
    series = [series_result("s", "p", truth, guess, threshold, settings, output)]
    table = class_wise(series, "net", 1, settings)
    assert [cells[0] for cells in table.rows] == ["net, output size", "net, full resolution", "threshold 150 HU"]
    # OpenCV's plain nearest neighbour takes the pixel at floor(index * scale): here every second one from the first.
    for index, pair in enumerate(((truth[:, ::2, ::2], output), (truth, guess), (truth, threshold))):
        expected = reference.jaccard_score(pair[0].ravel(), pair[1].ravel(), average=None) * 100
        found = [row(table, index)[f"iou_{part}_percent"] for part in ("background", "outline", "bone")]
        assert found == pytest.approx(list(expected))
    # All other figures stay at full resolution.
    assert row(per_series(series, "net"), 0)["network_iou_bone_percent"] == row(table, 1)["iou_bone_percent"]


def test_what_is_the_same_at_both_sizes_is_not_shown_twice(
    series: list[SeriesResult], settings: EvaluateSettings
) -> None:
    table = class_wise(series, "net", 1, settings)
    assert [cells[0] for cells in table.rows] == ["net", "threshold 150 HU"]
    assert "are the same" in table.note


@pytest.mark.parametrize(("height", "width"), [(10, 12), (7, 9), (30, 31)])
def test_the_reference_is_brought_to_the_output_by_nearest_neighbour(height: int, width: int) -> None:
    truth, _, _ = masks(1)
    rows = np.floor(np.arange(height) * SHAPE[1] / height).astype(int)
    columns = np.floor(np.arange(width) * SHAPE[2] / width).astype(int)
    output = np.random.default_rng(2).integers(0, 3, (SHAPE[0], height, width)).astype(np.uint8)
    for index, found in enumerate(planes_on_output(truth, output)):
        np.testing.assert_array_equal(found, truth[index][np.ix_(rows, columns)])
