"""The paper's tables, ours beside the printed values."""

import numpy as np
import pytest
from sklearn import metrics as reference

from boneseg.evaluate.forms import to_csv, to_markdown
from boneseg.evaluate.records import Table
from boneseg.study import paper_numbers as printed
from boneseg.study.report import console_table, verdict
from boneseg.study.tables import Results, all_tables
from boneseg.study.timing import OurCost
from boneseg.study.trial import Failed
from tests.study.given import finished, masks, trial

UNET = trial(printed.UNET, "U-Net", (1, 3))
RESNET = trial(printed.RESNET_UNET, "ResNet50-U-Net", (3,))
BROKEN = trial("pspnet/resnet18", "pspnet/resnet18")


@pytest.fixture(scope="module")
def results() -> Results:
    networks = (finished(UNET, 1, half=True), finished(RESNET, 2), Failed(BROKEN, "it cannot train on single images"))
    costs = {printed.UNET: OurCost(12.5, 4_472_323, 4_468_995)}
    return Results(networks, costs, "a machine, fp32")


@pytest.fixture(scope="module")
def tables(results: Results) -> dict[str, Table]:
    return {table.name: table for table in all_tables(results)}


def rows(table: Table, **wanted: object) -> list[dict[str, object]]:
    found = [dict(zip([column.key for column in table.columns], row, strict=True)) for row in table.rows]
    return [row for row in found if all(row[key] == value for key, value in wanted.items())]


def test_every_network_stands_beside_what_the_paper_prints(tables: dict[str, Table]) -> None:
    assert [row["source"] for row in rows(tables["table1"], network="U-Net")] == [
        "ours, output size",
        "ours, full resolution",
        "paper",
    ]
    (paper,) = rows(tables["table1"], network="U-Net", source="paper")
    assert (paper["epoch"], paper["iou_mean_percent"], paper["iou_bone_percent"]) == (10, 93.91, 85.32)
    assert (paper["dice_bone_percent"], paper["accuracy_outline_percent"]) == (92.08, 99.61)
    (paper,) = rows(tables["table3"], network="U-Net", source="paper")
    assert (paper["epoch"], paper["iou_bone_percent"]) == (30, 86.67)


def test_the_paper_protocol_is_counted_at_the_output_size(tables: dict[str, Table]) -> None:
    pairs = [masks(10), masks(11)]
    for source, step in (("ours, output size", 2), ("ours, full resolution", 1)):
        truth, guess = (np.concatenate([pair[index][:, ::step, ::step].ravel() for pair in pairs]) for index in (0, 1))
        expected = reference.jaccard_score(truth, guess, average=None) * 100
        (row,) = rows(tables["table1"], network="U-Net", source=source)
        assert [row[f"iou_{part}_percent"] for part in ("background", "outline", "bone")] == pytest.approx(
            list(expected)
        )
    # This one answers at full resolution, so there is nothing to show twice.
    assert [row["source"] for row in rows(tables["table3"], network="ResNet50-U-Net")] == ["ours", "paper"]


def test_a_network_that_failed_has_a_row_and_its_reason(tables: dict[str, Table], results: Results) -> None:
    (row,) = rows(tables["table1"], network="pspnet/resnet18")
    assert row["source"] == "failed"
    assert row["iou_bone_percent"] is None
    (row,) = rows(tables["networks"], network="pspnet/resnet18")
    assert "single images" in str(row["reason"])
    assert "failed" in console_table(results)
    assert "2 networks of 3" in verdict(results)


def test_the_threshold_stands_beside_the_networks(tables: dict[str, Table]) -> None:
    for name in ("table1", "table3", "per_image"):
        assert tables[name].rows[-1][0] == "threshold 150 HU"
    assert rows(tables["table1"], network="threshold 150 HU")[0]["iou_bone_percent"] == 100


def test_costs_of_every_network_stand_beside_the_printed_ones(tables: dict[str, Table]) -> None:
    assert "512x512" in tables["table2"].title
    (row,) = rows(tables["table2"], network="U-Net")
    assert (row["ms_ours"], row["ms_paper"]) == (12.5, 26.3)
    assert row["parameters_ours"] == row["parameters_paper"] == 4_472_323
    assert [row["network"] for row in rows(tables["table2"])] == ["U-Net", "ResNet50-U-Net", "pspnet/resnet18"]


def test_table_4_is_of_the_residual_u_net_with_the_paper_s_series_below(tables: dict[str, Table]) -> None:
    table = tables["table4"]
    assert "ResNet50-U-Net" in table.title
    assert [row["images"] for row in rows(table, source="ours")] == [4, 4, 8]
    assert [row["images"] for row in rows(table, source="paper")] == [85, 152, 124, 143, 226, 730]
    assert rows(table, source="paper", series="3")[0]["output_iou_bone_percent"] == 90.87
    pooled = rows(tables["table3"], network="ResNet50-U-Net", source="ours")[0]
    combined = rows(table, source="ours", series="combined")[0]
    assert combined["output_iou_bone_percent"] == pooled["iou_bone_percent"]


def test_bone_iou_of_single_images_is_described(tables: dict[str, Table]) -> None:
    truth, guess = (np.concatenate([masks(20)[index], masks(21)[index]]) for index in (0, 1))
    values = [
        100 * reference.jaccard_score((a == 2).ravel(), (b == 2).ravel()) for a, b in zip(truth, guess, strict=True)
    ]
    (row,) = rows(tables["per_image"], network="ResNet50-U-Net")
    found = [row[f"bone_iou_{key}_percent"] for key in ("min", "max", "mean", "sd")]
    assert found == pytest.approx([min(values), max(values), np.mean(values), np.std(values, ddof=1)])
    (paper,) = rows(tables["per_image"], network="U-Net", source="paper")
    assert (paper["bone_iou_min_percent"], paper["bone_iou_mean_percent"]) == (57.49, 87.15)


def test_the_printed_rows_agree_with_themselves() -> None:
    """Means are over the classes, and Dice follows from IoU: 2 IoU / (1 + IoU)."""
    for scores in (*printed.TABLE1.values(), *printed.TABLE3.values()):
        for mean, *classes in (scores.iou, scores.dice, scores.accuracy):
            assert np.mean(classes) == pytest.approx(mean, abs=0.02)
        for iou, dice in zip(scores.iou[1:], scores.dice[1:], strict=True):
            assert 200 * iou / (100 + iou) == pytest.approx(dice, abs=0.03)
    assert sum(row.images for row in printed.TABLE4[:-1]) == printed.TABLE4[-1].images == printed.TEST_IMAGES


def test_every_table_has_its_forms(tables: dict[str, Table]) -> None:
    for table in tables.values():
        assert len(to_csv(table).splitlines()) == 1 + len(table.rows)
        assert table.title in to_markdown(table)
        if table.protocol:
            assert f"protocol: {table.protocol}" in to_markdown(table)


def test_a_study_without_a_single_result_still_has_its_reasons() -> None:
    results = Results((Failed(BROKEN, "it cannot train"),), {}, "a machine")
    names = {table.name for table in all_tables(results)}
    assert {"table1", "networks"} <= names
    assert "None of the 1 networks" in verdict(results)
