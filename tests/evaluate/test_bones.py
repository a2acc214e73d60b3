"""Classes and groups of a scheme: measured, in tables, in words; by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as reference

from boneseg.evaluate.class_tables import class_tables
from boneseg.evaluate.class_words import bone_sentences, parts, shown_confusion
from boneseg.evaluate.console import console_table
from boneseg.evaluate.evaluate import markdown_tables
from boneseg.evaluate.files import Study, summarise_study
from boneseg.evaluate.forms import MOST_ROWS, shortened
from boneseg.evaluate.measure import Volume, measure
from boneseg.evaluate.records import EvaluationResult, Measurement, SeriesResult, SplitSummary, Table
from boneseg.evaluate.regions import regions_of
from boneseg.geometry import axial
from boneseg.scheme import BONE_SCHEME, BUILT_IN, Labelling, LabelScheme
from boneseg.settings.schema import EvaluateSettings
from tests.evaluate.given import model_card
from tests.evaluate.given_bones import SPACING, GivenBones, body, guess, result_of
from tests.metrics.test_surface import whole_volume_metrics

PELVIS, SKELETON = BUILT_IN["pelvis"], BUILT_IN["skeleton"]
HIP_LEFT, HIP_RIGHT, FEMUR_LEFT, FEMUR_RIGHT, SACRUM, SPINE = range(2, 8)


def bone_only(label: np.ndarray, scheme: LabelScheme) -> tuple[np.ndarray, Labelling]:
    """Return what a label says that knows bone as one class."""
    labelling = Labelling(scheme, (scheme.bones,))
    return np.where(scheme.role_table[label] == 2, scheme.size, label).astype(np.uint8), labelling


def evaluated(series: list[SeriesResult], scheme: LabelScheme, settings: EvaluateSettings) -> EvaluationResult:
    study = Study(
        evaluation_hash="e" * 16,
        place="s3://bucket/evaluations/x",
        card=model_card().model_copy(update={"scheme": scheme}),
        test_hash="t" * 16,
        dataset_hash="d" * 16,
        settings=settings,
        data=(SplitSummary(split="test", series=len(series), patients=len(series), slices=40),),
        series=tuple(series),
        problems=(),
    )
    return summarise_study(study)


@pytest.fixture(scope="module")
def pelves(settings: EvaluateSettings) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[SeriesResult]]:
    """Three series labelled bone by bone, with one pair mixed up, and a fourth labelled as bone only."""
    pairs = []
    for seed in range(4):
        label = body(PELVIS, seed)
        pairs.append((label, guess(label, PELVIS, seed, swapped=1)))
    series = []
    for number, (label, mask) in enumerate(pairs):
        told, labelling = (label, Labelling(PELVIS)) if number < 3 else bone_only(label, PELVIS)
        series.append(result_of(f"s{number}", told, GivenBones(mask, PELVIS), settings, labelling))
    return pairs, series


@pytest.fixture(scope="module")
def skeletons(settings: EvaluateSettings) -> EvaluationResult:
    series = []
    for seed in range(2):
        label = body(SKELETON, seed)
        mask = guess(label, SKELETON, seed, swapped=3)
        series.append(result_of(f"s{seed}", label, GivenBones(mask, SKELETON), settings, Labelling(SKELETON)))
    return evaluated(series, SKELETON, settings)


def rows(table: Table) -> dict[str, dict[str, object]]:
    return {str(row[table.columns[0].key]): row for row in table.dicts()}  # type: ignore[misc]


def table(series: list[SeriesResult], name: str, settings: EvaluateSettings, scheme: LabelScheme = PELVIS) -> Table:
    return next(found for found in class_tables(series, scheme, settings) if found.name == name)


@pytest.mark.parametrize("scheme", BUILT_IN.values(), ids=list(BUILT_IN))
def test_every_class_but_the_background_and_every_group_is_counted_and_its_surface_measured(
    scheme: LabelScheme, settings: EvaluateSettings
) -> None:
    label = body(scheme, 1)
    mask = guess(label, scheme, 1)
    found = result_of("s", label, GivenBones(mask, scheme), settings, Labelling(scheme)).network
    assert {region.name for region in found.regions} == {*scheme.names[1:], *scheme.groups}
    for name, values in regions_of(scheme).items():
        region, truth, said = found.region(name), np.isin(label, values), np.isin(mask, values)
        assert region is not None
        assert (region.hits, region.missed, region.extra, region.untold) == (
            int((truth & said).sum()),
            int((truth & ~said).sum()),
            int((said & ~truth).sum()),
            0,
        )
        if truth.any() and said.any():
            surface = region.hd95_mm, region.average_surface_mm, region.normalised_surface
            assert surface == whole_volume_metrics(truth, said, SPACING)


@pytest.mark.parametrize("scheme", BUILT_IN.values(), ids=list(BUILT_IN))
def test_the_common_classes_are_those_of_the_three_class_label_to_the_last_digit(
    scheme: LabelScheme, settings: EvaluateSettings
) -> None:
    label = body(scheme, 2)
    mask = guess(label, scheme, 2)
    by_bone = result_of("s", label, GivenBones(mask, scheme), settings, Labelling(scheme)).network
    common = [scheme.role_table[values] for values in (label, mask)]
    plain = result_of("s", common[0], GivenBones(common[1], BONE_SCHEME), settings, Labelling(BONE_SCHEME)).network
    assert by_bone.slices == plain.slices
    figures = ("hd95_mm", "average_surface_mm", "normalised_surface")
    assert [getattr(by_bone, name) for name in figures] == [getattr(plain, name) for name in figures]
    assert plain.hd95_mm == whole_volume_metrics(common[0] == 2, common[1] == 2, SPACING)[0]


def test_a_label_that_is_silent_of_a_bone_judges_it_neither_good_nor_bad(
    pelves: tuple[list[tuple[np.ndarray, np.ndarray]], list[SeriesResult]], settings: EvaluateSettings
) -> None:
    pairs, series = pelves
    silent = series[3].network.region("sacrum")
    assert silent is not None
    assert silent.extra > 0  # some of what was found lies outside all bone
    assert silent.dice() is None
    assert silent.hd95_mm is None
    whole = series[3].network.region("bone")
    assert whole is not None
    assert whole.dice() == pytest.approx(reference.f1_score((pairs[3][0] > 1).ravel(), (pairs[3][1] > 1).ravel()))
    row = rows(table(series, "bones", settings))["sacrum"]
    scores = [reference.f1_score((a == SACRUM).ravel(), (b == SACRUM).ravel()) for a, b in pairs[:3]]
    assert row["series"] == 3
    assert row["dice_percent"] == pytest.approx(100 * np.mean(scores))
    assert row["dice_sd_percent"] == pytest.approx(100 * np.std(scores, ddof=1))
    pooled = [np.concatenate([pair[index].ravel() == SACRUM for pair in pairs[:3]]) for index in (0, 1)]
    assert row["dice_pooled_percent"] == pytest.approx(100 * reference.f1_score(*pooled))
    bony = [int((label > 1).sum()) for label, _ in pairs]
    assert row["untold_percent"] == pytest.approx(100 * bony[3] / sum(bony))
    assert rows(table(series, "bones", settings))["bone"]["untold_percent"] == 0


def test_dice_and_hd95_have_intervals_with_enough_patients(settings: EvaluateSettings) -> None:
    series = []
    for seed in range(6):
        label = body(PELVIS, seed)
        network = GivenBones(guess(label, PELVIS, seed), PELVIS)
        series.append(result_of(f"s{seed}", label, network, settings, Labelling(PELVIS)))
    found = table(series, "bones", settings)
    row = rows(found)["hip left"]
    for figure, low, high in (
        ("dice_percent", "dice_low_percent", "dice_high_percent"),
        ("hd95_mm", "hd95_low_mm", "hd95_high_mm"),
    ):
        assert row[low] < row[figure] < row[high]  # type: ignore[operator]
    assert (row["series"], row["hd95_series"]) == (6, 6)
    assert "too few" not in found.note
    assert "too few" in table(series[:5], "bones", settings).note


def test_left_given_to_right_is_counted_and_said(
    pelves: tuple[list[tuple[np.ndarray, np.ndarray]], list[SeriesResult]], settings: EvaluateSettings
) -> None:
    pairs, series = pelves
    found = rows(table(series, "sides", settings))
    assert list(found) == ["hip", "femur", "combined"]
    given = sum(int(((label == HIP_LEFT) & (mask == HIP_RIGHT)).sum()) for label, mask in pairs[:3])
    left = sum(int((label == HIP_LEFT).sum()) for label, _ in pairs[:3])
    assert given > 0
    assert found["hip"]["left_as_right"] == given
    assert found["hip"]["left_as_right_percent"] == pytest.approx(100 * given / left)
    assert found["hip"]["right_as_left"] == 0
    assert found["femur"]["left_as_right"] == 0
    femora = sum(int((label == FEMUR_LEFT).sum()) for label, _ in pairs[:3])
    assert found["combined"]["left_as_right_percent"] == pytest.approx(100 * given / (left + femora))
    told = " ".join(bone_sentences(evaluated(series, PELVIS, settings)))
    assert f"{given} voxels ({100 * given / (left + femora):.2f} %) of left bones were taken for right" in told
    assert "most of them of hip" in told


def test_every_class_has_its_pooled_figures_where_labels_are_complete(
    pelves: tuple[list[tuple[np.ndarray, np.ndarray]], list[SeriesResult]], settings: EvaluateSettings
) -> None:
    pairs, series = pelves
    found = rows(table(series, "classes", settings))
    truth, said = (np.concatenate([pair[index].ravel() for pair in pairs[:3]]) for index in (0, 1))
    for value in range(2, PELVIS.size):
        row = found[PELVIS.names[value]]
        assert row["series"] == 3
        assert row["iou_percent"] == pytest.approx(100 * reference.jaccard_score(truth == value, said == value))
        assert row["dice_percent"] == pytest.approx(100 * reference.f1_score(truth == value, said == value))
        assert row["accuracy_percent"] == pytest.approx(100 * reference.accuracy_score(truth == value, said == value))
    everything = [np.concatenate([pair[index].ravel() for pair in pairs]) for index in (0, 1)]
    assert found["patient outline"]["series"] == 4  # the fourth label tells what is no bone
    outline = reference.f1_score(everything[0] == 1, everything[1] == 1)
    assert found["patient outline"]["dice_percent"] == pytest.approx(100 * outline)
    figures = [float(row["iou_percent"]) for name, row in found.items() if name in PELVIS.names]  # type: ignore[arg-type]
    assert found["mean of the classes"]["iou_percent"] == pytest.approx(np.mean(figures))


def test_a_set_that_leaves_out_a_class_is_no_gap_of_it(settings: EvaluateSettings) -> None:
    label = body(PELVIS, 0)
    labelling = Labelling(PELVIS, ((FEMUR_LEFT, FEMUR_RIGHT),))
    mask = np.where(label == FEMUR_LEFT, HIP_LEFT, label).astype(np.uint8)
    told = np.where((label == FEMUR_LEFT) | (label == FEMUR_RIGHT), PELVIS.size, label).astype(np.uint8)
    series = [result_of("s", told, GivenBones(mask, PELVIS), settings, labelling)]
    found = rows(table(series, "classes", settings))
    hip = reference.jaccard_score((label == HIP_LEFT).ravel(), (mask == HIP_LEFT).ravel())
    assert found["hip left"]["iou_percent"] == pytest.approx(100 * hip)
    assert "femur left" not in found


def test_the_figures_of_the_output_grid_stand_beside_those_of_full_resolution(settings: EvaluateSettings) -> None:
    label = body(PELVIS, 0)
    mask = guess(label, PELVIS, 0)
    output = mask[:, ::2, ::2]
    series = [result_of("s", label, GivenBones(mask, PELVIS, output), settings, Labelling(PELVIS))]
    found = rows(table(series, "classes", settings))["hip left"]
    for prefix, truth, said in (("output_", label[:, ::2, ::2], output), ("", label, mask)):
        expected = 100 * reference.jaccard_score((truth == HIP_LEFT).ravel(), (said == HIP_LEFT).ravel())
        assert found[f"{prefix}iou_percent"] == pytest.approx(expected)


def test_two_schemes_are_compared_where_they_meet(settings: EvaluateSettings) -> None:
    label = body(SKELETON, 3)
    to_pelvis = np.array([0, 1] + [PELVIS.names.index("spine")] * (SKELETON.size - 2), np.uint8)
    for value, name in enumerate(SKELETON.names):
        if name in PELVIS.names:
            to_pelvis[value] = PELVIS.names.index(name)
        elif value > 1 and SKELETON.classes[value].group != "spine":
            to_pelvis[value] = 1
    mask = to_pelvis[label]
    volume = Volume(np.zeros(label.shape, np.int16), label, axial(label.shape, SPACING), Labelling(SKELETON))
    found: Measurement = measure(GivenBones(mask, PELVIS), "content", volume, settings)
    wanted = {"patient outline", "hip left", "hip right", "femur left", "femur right", "sacrum", "spine", "bone"}
    assert {region.name for region in found.regions} == wanted
    for name in ("hip left", "femur right", "spine"):  # the spine is a class here and a group there
        assert found.dice_of(name) == 1
    assert found.dice_of("bone") == found.bone_dice()
    assert found.bone_dice() < 1  # type: ignore[operator]
    assert found.classes is None
    threshold = measure(GivenBones(SKELETON.role_table[label], BONE_SCHEME), "content", volume, settings)
    assert {region.name for region in threshold.regions} == {"patient outline", "bone"}
    assert threshold.dice_of("bone") == 1


def test_old_measurements_without_regions_make_no_table_of_bones(
    pelves: tuple[list[tuple[np.ndarray, np.ndarray]], list[SeriesResult]], settings: EvaluateSettings
) -> None:
    bare = [
        row.model_copy(update={"network": row.network.model_copy(update={"regions": (), "classes": None})})
        for row in pelves[1]
    ]
    assert class_tables(bare, PELVIS, settings) == ()
    without_counts = [
        row.model_copy(update={"network": row.network.model_copy(update={"classes": None})}) for row in pelves[1]
    ]
    assert [found.name for found in class_tables(without_counts, PELVIS, settings)] == ["bones", "sides"]
    assert rows(table(without_counts, "sides", settings))["hip"]["left_as_right"] is None
    assert evaluated(without_counts, PELVIS, settings).bone_dice is not None


def test_of_many_bones_groups_come_first_then_the_lowest(skeletons: EvaluationResult) -> None:
    full = skeletons.table("bones")
    assert len(full.rows) == len(SKELETON.bones) + len(SKELETON.groups)
    assert len({row[0] for row in full.rows}) == len(full.rows)
    names = [str(row[0]) for row in full.rows]
    assert names[:4] == ["bone", "spine", "shoulder girdle", "ribs"]
    assert names.index("rib right 7") == names.index("rib left 7") + 1
    shown = shortened(full)
    folded = {row[0]: row[1] for row, fold in zip(full.rows, full.folds, strict=True) if fold}
    lowest = [row[1] for row in shown.rows if row[0] in folded]
    assert lowest == sorted(folded.values())[:MOST_ROWS]  # type: ignore[type-var]
    lines = console_table(skeletons).splitlines()
    assert max(len(line) for line in lines) <= 100
    start = next(index for index, line in enumerate(lines) if line.startswith("Bone by bone"))
    assert [line.split("  ")[0] for line in lines[start + 1 : start + 5]] == names[:4]
    assert len(lines) < 50
    assert markdown_tables(skeletons).count("\n| vertebrae") < 3 * MOST_ROWS


def test_few_bones_are_not_folded(pelves: tuple[object, list[SeriesResult]], settings: EvaluateSettings) -> None:
    found = evaluated(pelves[1], PELVIS, settings)
    bones = found.table("bones")
    assert bones.folds == ()
    assert shortened(bones) == bones
    text = console_table(found)
    assert all(name in text for name in (*PELVIS.names[2:], "not labelled"))


def test_the_shown_matrix_holds_every_told_voxel_once(
    pelves: tuple[list[tuple[np.ndarray, np.ndarray]], list[SeriesResult]],
    skeletons: EvaluationResult,
    settings: EvaluateSettings,
) -> None:
    pairs, series = pelves
    names, matrix = shown_confusion(evaluated(series, PELVIS, settings))
    expected = sum(reference.confusion_matrix(a.ravel(), b.ravel(), labels=range(8)) for a, b in pairs[:3])
    silent = reference.confusion_matrix(pairs[3][0].ravel(), pairs[3][1].ravel(), labels=range(8))
    silent[2:] = 0
    assert names == list(PELVIS.names)
    np.testing.assert_array_equal(matrix, expected + silent)
    names, matrix = shown_confusion(skeletons)
    assert len(names) <= 16
    assert {"spine", "ribs", "femur left"} <= set(names)
    assert matrix.sum() == sum(sum(row) for row in skeletons.confusion)
    together = [value for values in parts(SKELETON).values() for value in values]
    assert sorted(together) == list(range(SKELETON.size))


def test_figures_by_bone_are_among_those_by_which_runs_are_compared(skeletons: EvaluationResult) -> None:
    every, few = skeletons.scalars(), skeletons.headline_scalars()
    row = rows(skeletons.table("bones"))["rib left 7"]
    assert every["rib_left_7_dice_patient"] == pytest.approx(float(row["dice_percent"]) / 100)  # type: ignore[arg-type]
    assert every["spine_hd95_mm"] == rows(skeletons.table("bones"))["spine"]["hd95_mm"]
    assert every["left_as_right_percent"] > 0
    assert every["bone_dice_patient"] == skeletons.bone_dice
    assert "rib_left_7_dice_patient" not in few
    assert {"spine_dice_patient", "femur_left_dice_patient", "bone_dice_patient"} <= set(few)
