"""Series that are labelled bone by bone, as bone only, and for some bones only, train one network."""

from typing import Any

import numpy as np
import pytest

from boneseg.dataset.manifest import Dataset, DatasetEntry
from boneseg.dataset.shards import load_dataset, save_shard
from boneseg.dataset.slices import SliceDataset
from boneseg.evaluate.evaluate import evaluate
from boneseg.geometry import axial
from boneseg.inference import predict_volume
from boneseg.models.checkpoint import fetch_model, load_model
from boneseg.registry.publish import publish
from boneseg.scheme import BUILT_IN, LabelClass, Labelling, LabelScheme, Role
from boneseg.settings.schema import EvaluateSettings, PreprocessSettings, RunSettings, Split
from boneseg.storage import layout
from boneseg.storage.catalogue import FileKind, GeometryRecord, SeriesRow
from boneseg.storage.workspace import Workspace
from boneseg.train.train import train

SCHEME = LabelScheme(
    name="two",
    classes=(
        *BUILT_IN["bone"].classes[:2],
        LabelClass(name="round", role=Role.BONE),
        LabelClass(name="square", role=Role.BONE),
    ),
)
WHOLE, BONE_ONLY, ROUND_ONLY = Labelling(SCHEME), Labelling(SCHEME, ((2, 3),)), Labelling(SCHEME, ((1, 3),))
SIZE = 96


def patient(rng: np.random.Generator, slices: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return HU and label of a body with a round bone and a square one."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    label = (np.hypot(rows - 48, columns - 48) < 40).astype(np.uint8)
    row, column = rng.uniform(30, 40, 2)
    label[np.hypot(rows - row, columns - column) < 9] = 2
    row, column = rng.uniform(55, 65, 2)
    label[(abs(rows - row) < 8) & (abs(columns - column) < 8)] = 3
    volume = np.broadcast_to(label, (slices, SIZE, SIZE)).copy()
    hu = np.array([-1000, 40, 450, 900])[volume] + rng.normal(0, 30, volume.shape)
    return hu.astype(np.int16), volume


def known(label: np.ndarray, labelling: Labelling) -> np.ndarray:
    """Return a label that says less."""
    if labelling == BONE_ONLY:
        return np.where(label > 1, 4, label).astype(np.uint8)
    if labelling == ROUND_ONLY:
        return np.where((label == 1) | (label == 3), 4, label).astype(np.uint8)
    return label


def put(workspace: Workspace, plan: list[tuple[Split, Labelling]], scheme: LabelScheme = SCHEME) -> str:
    rng, geometry = np.random.default_rng(0), axial((4, SIZE, SIZE), (3.0, 1.0, 1.0))
    entries = []
    for number, (split, labelling) in enumerate(plan):
        hu, label = patient(rng)
        row = SeriesRow(
            series=f"s{number}",
            source=f"s{number}",
            kind=FileKind.NIFTI,
            objects=(),
            patient=f"p{number}",
            study=f"p{number}",
            modality="CT",
            geometry=GeometryRecord.of(geometry),
            hu_range=(-1100, 1000),
            label=None,
        )
        shard = save_shard(workspace, f"shard{number}", row, hu, known(label, labelling), geometry, labelling=labelling)
        entries.append(DatasetEntry(split=split, shard=shard))
    dataset = Dataset.made_of("f", tuple(entries), (), scheme)
    return workspace.store.write(layout.dataset(dataset.dataset_hash), dataset.to_json())


PLAN = [
    (Split.TRAIN, WHOLE),
    (Split.TRAIN, BONE_ONLY),
    (Split.TRAIN, ROUND_ONLY),
    (Split.VALIDATION, WHOLE),
    (Split.TEST, WHOLE),
    (Split.TEST, BONE_ONLY),
]


def settings(quick: RunSettings, **more: Any) -> RunSettings:
    values = {"epochs": 10, "steps_per_epoch": 40, "learning_rate": 4e-3, **more}
    return quick.model_copy(update={"train": quick.train.model_copy(update=values)})


@pytest.mark.slow
def test_labels_that_say_less_train_one_network_and_are_measured(workspace: Workspace, quick: RunSettings) -> None:
    uri = put(workspace, PLAN)
    result = train(workspace, uri, settings(quick))
    network, card = load_model(fetch_model(workspace, result.model_uri))
    assert card.scheme == SCHEME
    assert [len(record.validation_dice) for record in card.history] == [4] * 10
    hu, label = patient(np.random.default_rng(9))
    mask = predict_volume(network, card.model.preprocess, hu, axial(hu.shape, (3, 1, 1)))
    for value in (2, 3):
        assert 2 * ((mask == value) & (label == value)).sum() / ((mask == value).sum() + (label == value).sum()) > 0.9

    measured = evaluate(workspace, result.model_uri, uri, EvaluateSettings(bootstrap=100))
    whole, bone_only = ({region.name: region for region in row.network.regions} for row in measured.series)
    assert set(whole) == {"patient outline", "round", "square", "bone"}
    assert whole["round"].untold == 0
    assert whole["round"].hd95_mm is not None
    assert bone_only["round"].untold == int((patient_of(5) > 1).sum())
    assert bone_only["round"].hd95_mm is None
    assert bone_only["bone"].untold == 0
    assert bone_only["bone"].dice() == pytest.approx(measured.series[1].network.bone_dice())
    table = measured.table("bones")
    assert [row[0] for row in table.rows] == ["bone", "round", "square"]
    assert measured.bone_dice is not None
    assert measured.bone_dice > 0.9


def patient_of(number: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    labels = [patient(rng)[1] for _ in range(number + 1)]
    return labels[number]


def test_shards_with_different_values_are_brought_to_one_labelling(workspace: Workspace) -> None:
    dataset = load_dataset(workspace, put(workspace, PLAN))
    assert dataset.labelling == Labelling(SCHEME, ((1, 3), (2, 3)))
    records = dataset.of(Split.TRAIN)
    slices = SliceDataset(workspace, records, PreprocessSettings(spacing_mm=None), dataset.labelling)
    rng = np.random.default_rng(0)
    for number, labelling in enumerate((WHOLE, BONE_ONLY, ROUND_ONLY)):
        label = known(patient(rng)[1][0], labelling)
        expected = labelling.members[label]
        found = dataset.labelling.members[slices[number * 4][1]]
        np.testing.assert_array_equal(found, expected)
    assert slices.bone_pixels.min() > 0


def test_a_dataset_is_named_by_its_scheme_too(workspace: Workspace) -> None:
    one = load_dataset(workspace, put(workspace, PLAN[:1] * 2))
    classes = (*SCHEME.classes[:3], SCHEME.classes[3].model_copy(update={"group": "other"}))
    two = load_dataset(workspace, put(workspace, PLAN[:1] * 2, SCHEME.model_copy(update={"classes": classes})))
    assert one.dataset_hash != two.dataset_hash


@pytest.mark.slow
def test_where_no_test_label_tells_of_all_bones_nothing_is_made_of_bone(
    workspace: Workspace, quick: RunSettings
) -> None:
    """A network that paints everything bone would score well where nobody says what is none."""
    plan = [(Split.TRAIN, WHOLE), (Split.VALIDATION, WHOLE), (Split.TEST, ROUND_ONLY)]
    uri = put(workspace, plan)
    result = train(workspace, uri, settings(quick, epochs=1, steps_per_epoch=4))
    measured = evaluate(workspace, result.model_uri, uri, EvaluateSettings(bootstrap=100))
    (row,) = measured.series
    assert row.network.bone_dice() is None
    assert measured.dice_by_series() == {}
    assert row.network.dice_of("round") is not None
    assert measured.bone_dice is None
    assert workspace.store.read(workspace.store.key(measured.report_uri))
    published = publish(workspace, result.model_uri, measured.evaluation_uri, uri, quick)
    assert not published.promoted
    assert "no test series gives it a bone Dice to judge it by" in published.reason
