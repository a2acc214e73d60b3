"""The report of a sweep in a bucket: what runs left behind, and the best measured alone and together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kfp import dsl

from boneseg.dataset.shards import load_dataset, open_shard
from boneseg.errors import DataError, ModelError, RecordError
from boneseg.evaluate.evaluate import evaluate
from boneseg.evaluate.methods import EnsembleMethod, NetworkMethod
from boneseg.evaluate.records import evaluation_identity, load_evaluation
from boneseg.inference import predict_ensemble
from boneseg.models.build import build_model
from boneseg.models.card import EpochRecord, ModelCard
from boneseg.models.checkpoint import fetch_model, load_model, save_model, upload_model
from boneseg.phantom.series import write_phantom
from boneseg.scheme import BUILT_IN
from boneseg.settings.schema import (
    EvaluateSettings,
    ModelSettings,
    PreprocessSettings,
    RunSettings,
    Split,
    TrainSettings,
)
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace
from boneseg.sweep_report.sweep_report import SweepReport, report_sweep
from boneseg.train.runs import RunRecord, TrainResult
from boneseg.tune.records import FINISHED, STOPPED, TrialRow
from components.sweep_report.component import sweep_report
from tests.evaluate.test_evaluate import prepared
from tests.pipelines.tiny import as_on_a_cluster
from tests.sweep_report.given import epoch, result_of, row

SIZE, SLICES = 64, 4
SPACINGS = {"mobilenet_v2": None, "resnet18": 2.0}


def put_run(workspace: Workspace, encoder: str, seed: int, history: tuple[EpochRecord, ...]) -> str:
    """Put a finished run of a real network with random weights into the bucket and return its name."""
    torch.manual_seed(seed)
    preprocess = PreprocessSettings(spacing_mm=SPACINGS[encoder])
    model, train = ModelSettings(encoder=encoder, preprocess=preprocess), TrainSettings(epochs=2, crop=64)
    record = RunRecord.of("d" * 16, model, train)
    run, folder = record.default_name(), workspace.folder / "made" / encoder
    save_model(
        folder,
        build_model(model),
        model=model,
        train=train,
        dataset_hash="d" * 16,
        fingerprint="f" * 16,
        run=run,
        best_epoch=2,
        history=history,
    )
    uri = upload_model(workspace, folder)
    result = TrainResult(
        model_uri=uri,
        model_hash=uri.rstrip("/").rpartition("/")[2],
        run=run,
        best_epoch=2,
        best_mean_iou=history[-1].validation_mean_iou,
        reused=False,
        history=history,
    )
    workspace.store.write(layout.run(run, "run.json"), record.to_json())
    workspace.store.write(layout.run(run, "result.json"), result.to_json())
    return run


def put_sweep(workspace: Workspace) -> Sequence[TrialRow]:
    """Put a sweep of two finished trials and one whose run is gone, as the first version wrote it, into the bucket."""
    rows = []
    for seed, (encoder, best) in enumerate((("mobilenet_v2", 0.8), ("resnet18", 0.7), ("resnet34", 0.6))):
        history = (epoch(1, best / 2), epoch(2, best))
        choice = {"model.architecture": "unet", "model.encoder": encoder, "train.learning_rate": 1e-3}
        found = row(choice, [0.0, best], FINISHED)
        old = {"choice": {}, "history": (), "state": "", "seconds": 0.0, "device_hours": 0.0, "parameters": None}
        run = put_run(workspace, encoder, seed, history) if encoder in SPACINGS else "gone"
        rows.append(found.model_copy(update={**old, "run": run}))
    result = result_of(rows)
    workspace.store.write(layout.sweep(result.name, "sweep.json"), result.to_json())
    return result.rows


@pytest.mark.slow
def test_the_best_are_measured_alone_and_as_an_ensemble(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate("abcd"):
        write_phantom(tmp_path / "data" / name, seed, slices=SLICES, size=SIZE)
    dataset_uri = prepared(workspace, tmp_path / "data", 0.5)
    rows = put_sweep(workspace)
    settings = RunSettings(evaluate=EvaluateSettings(bootstrap=100))
    name = result_of(rows).name

    plain = report_sweep(workspace, name, settings, out=tmp_path / "copy")
    board = (tmp_path / "copy" / "tables" / "leaderboard.csv").read_text()
    page = (tmp_path / "copy" / "report.html").read_text()
    assert "--set train.crop=64" in board, "what the runs noted of themselves"
    assert "Learning curves" in page
    card = load_model(fetch_model(workspace, _models(workspace, rows)[0]))[1]
    assert f",{card.parameters / 1e6:.6f}".rstrip("0") in board
    assert plain.ensemble_uri is None
    assert "test_bone_dice_best" not in plain.scalars
    assert workspace.store.read(workspace.store.key(plain.report_uri)).decode() == page

    result = report_sweep(workspace, name, settings, dataset_uri, best=5)
    assert result.ensemble_uri is not None
    together = load_evaluation(workspace, result.ensemble_uri)
    _check_ensemble(workspace, dataset_uri, _models(workspace, rows), result.ensemble_uri)
    for place, uri in enumerate(_models(workspace, rows)):
        alone = evaluate(workspace, uri, dataset_uri, settings.evaluate)
        assert alone.reused, "the report measured it, without an ensemble beside it"
        assert alone.ensemble == ()
        if place == 0:
            assert result.scalars["test_bone_dice_best"] == pytest.approx(alone.bone_dice)
            assert [found.network for found in alone.series] == [found.network for found in together.series]
    dice = [found.others["ensemble"].bone_dice() for found in together.series]
    assert result.scalars["test_bone_dice_ensemble"] == pytest.approx(
        np.mean([value for value in dice if value is not None])
    )
    assert "ensemble of these 2" in result.summary
    assert "too few for an interval" in result.summary

    again = report_sweep(workspace, name, settings, dataset_uri, best=5)
    assert again == result
    other = evaluate(
        workspace, _models(workspace, rows)[0], dataset_uri, settings.evaluate, _models(workspace, rows)[::-1]
    )
    assert other.reused, "the order of an ensemble's models does not count"
    as_on_a_cluster(workspace, monkeypatch)
    _check_step(workspace, settings, name, dataset_uri, result, tmp_path)


def _check_step(
    workspace: Workspace, settings: RunSettings, name: str, dataset_uri: str, expected: SweepReport, folder: Path
) -> None:
    """Run the step of the pipeline on what is measured already."""
    bucket = settings.store.model_copy(update={"bucket": workspace.store.bucket})
    given = settings.model_copy(update={"store": bucket}).model_dump_json()

    def artifact(kind: type, name: str) -> Any:
        return kind(name=name, uri=str(folder / name), metadata={})

    metrics, board = artifact(dsl.Metrics, "metrics"), artifact(dsl.Markdown, "board")
    page, tables = artifact(dsl.HTML, "page"), artifact(dsl.Dataset, "tables")
    uris = sweep_report.python_func(given, name, dataset_uri, 5, "1", metrics, board, page, tables)
    assert uris == (expected.report_uri, expected.leaderboard_uri)
    assert metrics.metadata == pytest.approx(expected.scalars)
    assert "ensemble of these 2" in Path(board.path).read_text()
    assert "<html" in Path(page.path).read_text()
    assert SweepReport.read(Path(tables.path).read_bytes(), "", "").name == name


def _models(workspace: Workspace, rows: Sequence[TrialRow]) -> list[str]:
    texts = [workspace.store.read_if_there(layout.run(found.run, "result.json")) for found in rows]
    return [TrainResult.read(text, "", "").model_uri for text in texts if text is not None]


def _check_ensemble(workspace: Workspace, dataset_uri: str, uris: Sequence[str], evaluation_uri: str) -> None:
    """Count the voxels of the ensemble's own mask by hand."""
    evaluation = load_evaluation(workspace, evaluation_uri)
    assert evaluation.ensemble == tuple(sorted(uri.rstrip("/").rpartition("/")[2] for uri in uris))
    assert "ensemble_difference" in {table.name for table in evaluation.tables}
    members = [load_model(fetch_model(workspace, uri)) for uri in uris]
    for shard in load_dataset(workspace, dataset_uri).of(Split.TEST):
        opened = open_shard(workspace, shard)
        networks = [(network, card.model.preprocess) for network, card in members]
        mask = predict_ensemble(networks, opened.image, shard.geometry.geometry())
        label = np.asarray(opened.label)
        found = next(row for row in evaluation.series if row.series == shard.series).others["ensemble"]
        expected = [[int(((label == true) & (mask == said)).sum()) for said in range(3)] for true in range(3)]
        assert found.series_counts().tolist() == expected
        assert found.output_slices is None


def test_models_of_different_schemes_are_no_ensemble(model_folder: Path) -> None:
    network, card = load_model(model_folder)
    other = card.model_copy(update={"scheme": BUILT_IN["pelvis"], "model_hash": "b" * 16})
    with pytest.raises(ModelError, match=r"tell different classes apart \(bone, pelvis\); an ensemble needs"):
        EnsembleMethod((NetworkMethod(network, card, 4), NetworkMethod(network, other, 4)))


def test_an_ensemble_is_named_by_its_models_and_an_evaluation_without_one_as_before(model_folder: Path) -> None:
    network, card = load_model(model_folder)

    def method(*hashes: str) -> str:
        cards: list[ModelCard] = [card.model_copy(update={"model_hash": name}) for name in hashes]
        return EnsembleMethod(tuple(NetworkMethod(network, one, 4) for one in cards)).identity

    assert method("a", "b") == method("b", "a") != method("a", "c")
    settings = EvaluateSettings()
    without = evaluation_identity("m", "t", settings)
    assert evaluation_identity("m", "t", settings, ()) == without
    assert evaluation_identity("m", "t", settings, ("a", "b")) == evaluation_identity("m", "t", settings, ("b", "a"))
    assert len({without, *(evaluation_identity("m", "t", settings, names) for names in (("a",), ("a", "b")))}) == 3


def test_without_a_model_there_is_a_report_that_measures_nothing(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    choice = {"model.architecture": "unet", "model.encoder": "resnet18"}
    result = result_of([row(choice, [0.5], STOPPED, "the budget of 1 hour was used up")])
    workspace.store.write(layout.sweep(result.name, "sweep.json"), result.to_json())
    made = report_sweep(workspace, result.name, RunSettings(), "s3://none/datasets/x/dataset.json", best=3)
    assert made.ensemble_uri is None
    assert "no trial of the sweep has a model in the bucket to measure; train one" in caplog.text


def test_a_sweep_that_is_not_there_or_damaged_is_named(workspace: Workspace) -> None:
    with pytest.raises(DataError, match=r"sweeps/none/sweep\.json is not there; name a sweep that 'boneseg tune'"):
        report_sweep(workspace, "none", RunSettings())
    workspace.store.write(layout.sweep("torn", "sweep.json"), result_of([]).to_json()[:40])
    with pytest.raises(RecordError, match="damaged or cut short; run 'boneseg tune' again"):
        report_sweep(workspace, "torn", RunSettings())
