"""Evaluation as a user meets it: on a dataset of a bucket, and on a folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from sklearn.metrics import confusion_matrix

from boneseg.dataset.prepare import prepare
from boneseg.dataset.shards import load_dataset, open_shard
from boneseg.errors import DataError
from boneseg.evaluate.console import console_table
from boneseg.evaluate.evaluate import evaluate, evaluate_folder, markdown_tables
from boneseg.evaluate.records import EvaluationResult, load_evaluation
from boneseg.inference import predict_volume
from boneseg.ingest.pull import pull
from boneseg.models.checkpoint import load_model, upload_model
from boneseg.phantom.series import write_phantom
from boneseg.settings.schema import EvaluateSettings, PrepareSettings, PullSettings, Split, SplitSettings, StoreSettings
from boneseg.storage import embedded
from boneseg.storage.client import ObjectStore
from boneseg.storage.records import SEAL, seal_of
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace

SLICES, SIZE = 5, 96


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of four small labelled series."""
    folder = tmp_path_factory.mktemp("phantoms")
    for seed, name in enumerate("abcd"):
        write_phantom(folder / name, seed, slices=SLICES, size=SIZE)
    return folder


@dataclass(frozen=True)
class Bench:
    """A bucket with a dataset, a model and its evaluation."""

    workspace: Workspace
    dataset_uri: str
    model_uri: str
    result: EvaluationResult

    def evaluate(self, settings: EvaluateSettings) -> EvaluationResult:
        return evaluate(self.workspace, self.model_uri, self.dataset_uri, settings)

    def etags(self, ending: str) -> dict[str, str]:
        listed = self.workspace.store.list("evaluations/")
        return {item.key: item.etag for item in listed if item.key.endswith(ending)}


def prepared(workspace: Workspace, folder: Path, test: float) -> str:
    """Bring a folder into the bucket and return the dataset's URI."""
    settings = StoreSettings(bucket=workspace.store.bucket)
    upload_folder(workspace.store, folder, settings.raw_prefix, 4)
    catalogue = pull(workspace, settings, PullSettings()).catalogue_uri
    splits = SplitSettings(validation=0.2, test=test)
    return prepare(workspace, catalogue, PrepareSettings(splits=splits, parallel=1)).dataset_uri


@pytest.fixture(scope="module")
def bench(
    store_folder: Path,
    phantoms: Path,
    model_folder: Path,
    settings: EvaluateSettings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bench:
    state = embedded.status(store_folder)
    assert state is not None
    store = ObjectStore(state.endpoint, "evaluate", embedded.credentials(store_folder))
    store.ensure_bucket()
    workspace = Workspace(store, tmp_path_factory.mktemp("work"))
    dataset_uri, model_uri = prepared(workspace, phantoms, test=0.5), upload_model(workspace, model_folder)
    return Bench(workspace, dataset_uri, model_uri, evaluate(workspace, model_uri, dataset_uri, settings))


def test_an_evaluation_counts_what_prediction_says(bench: Bench, model_folder: Path) -> None:
    dataset = load_dataset(bench.workspace, bench.dataset_uri)
    network, card = load_model(model_folder)
    total = np.zeros((3, 3), dtype=np.int64)
    for record in dataset.of(Split.TEST):
        shard = open_shard(bench.workspace, record)
        mask = predict_volume(network, card.model.preprocess, shard.image, record.geometry.geometry(), device="auto")
        total += confusion_matrix(np.asarray(shard.label).ravel(), mask.ravel(), labels=[0, 1, 2])
    assert np.array_equal(bench.result.confusion, total)
    assert {row.series for row in bench.result.series} == {shard.series for shard in dataset.of(Split.TEST)}
    assert (bench.result.model_hash, bench.result.test_hash) == (card.model_hash, dataset.test_hash)


def test_an_evaluation_is_kept_whole(bench: Bench) -> None:
    result, store = bench.result, bench.workspace.store
    assert load_evaluation(bench.workspace, result.evaluation_uri) == result
    prefix = f"evaluations/{result.evaluation_hash}/"
    assert {key.removeprefix(prefix) for key in bench.etags("") if key.startswith(prefix)} == {
        *result.files,
        "evaluation.json",
    }
    assert b"unet/mobilenet_v2" in store.read(store.key(result.report_uri))
    assert "unet/mobilenet_v2" in console_table(result)
    assert "protocol: patient" in markdown_tables(result)


def test_the_same_evaluation_is_not_made_twice(bench: Bench, settings: EvaluateSettings) -> None:
    before = bench.etags("")
    assert bench.evaluate(settings) == bench.result.model_copy(update={"reused": True})
    slower = settings.model_copy(update={"batch_size": 1})
    assert bench.evaluate(slower).reused
    assert bench.etags("") == before


def test_an_interrupted_evaluation_is_made_again_from_its_counts(bench: Bench, settings: EvaluateSettings) -> None:
    measured = bench.etags("measurement.json")
    bench.workspace.store.delete(bench.workspace.store.key(bench.result.evaluation_uri))
    assert bench.evaluate(settings) == bench.result
    assert bench.etags("measurement.json") == measured


def test_another_setting_is_another_evaluation_of_the_same_counts(bench: Bench, settings: EvaluateSettings) -> None:
    other = settings.model_copy(update={"bootstrap": 300})
    key = next(iter(bench.etags("measurement.json")))
    true_counts = bench.workspace.store.read(key)
    kept = json.loads(true_counts)
    kept["slices"] = [[9, 0, 0, 0, 9, 0, 0, 0, 9]] * SLICES
    del kept[SEAL]
    bench.workspace.store.write(key, json.dumps({**kept, SEAL: seal_of(kept)}).encode())
    result = bench.evaluate(other)
    bench.workspace.store.write(key, true_counts)
    assert result.evaluation_hash != bench.result.evaluation_hash
    assert 1.0 in {found.bone_dice() for row in result.series for found in (row.network, row.threshold)}


def test_a_dataset_without_test_series_is_refused_with_the_fix(
    workspace: Workspace, phantoms: Path, model_folder: Path, settings: EvaluateSettings
) -> None:
    dataset_uri = prepared(workspace, phantoms, test=0.0)
    with pytest.raises(DataError, match=r"prepare\.splits\.test"):
        evaluate(workspace, upload_model(workspace, model_folder), dataset_uri, settings)
    assert list(workspace.store.list("evaluations/")) == []


def test_a_folder_is_measured_and_what_cannot_be_used_is_named(
    phantoms: Path, model_folder: Path, settings: EvaluateSettings, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantoms, data)
    (data / "b" / "label.dcm").unlink()
    cut = sorted((data / "c" / "dicom").iterdir())[2]
    cut.write_bytes(cut.read_bytes()[:-5000])
    result = evaluate_folder(model_folder, data, tmp_path / "out", settings, PrepareSettings())
    fatal = [problem.reason for problem in result.problems if problem.fatal]
    assert len(result.series) == 2
    assert any("no label" in reason for reason in fatal)
    assert any("cut short or damaged" in reason for reason in fatal)
    assert EvaluationResult.model_validate_json((tmp_path / "out" / "evaluation.json").read_bytes()) == result
    assert Path(result.report_uri).is_file()
    there = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert there == {*result.files, "evaluation.json"}


def test_a_folder_gives_the_same_numbers_as_the_bucket_and_no_patient_appears_in_any_file(
    bench: Bench, phantoms: Path, model_folder: Path, settings: EvaluateSettings, tmp_path: Path
) -> None:
    folder = evaluate_folder(model_folder, phantoms, tmp_path / "out", settings, PrepareSettings())
    kept = {row.series: row for row in folder.series}
    for row in bench.result.series:
        assert kept[row.series].network.slices == row.network.slices
        assert kept[row.series].threshold.hd95_mm == row.threshold.hd95_mm
    header = pydicom.dcmread(next((phantoms / "a" / "dicom").iterdir()), stop_before_pixels=True)
    secrets = [str(header.PatientID), str(header.StudyInstanceUID), str(header.SeriesInstanceUID)]
    assert all(secrets)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert not any(secret.encode() in path.read_bytes() for secret in secrets), path


@pytest.mark.parametrize("content", ["nothing", "unlabelled"])
def test_a_folder_without_a_usable_series_is_refused_by_name(
    content: str, phantoms: Path, model_folder: Path, settings: EvaluateSettings, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if content == "unlabelled":
        shutil.copytree(phantoms / "a" / "dicom", data / "a")
    with pytest.raises(DataError, match=str(data)):
        evaluate_folder(model_folder, data, tmp_path / "out", settings, PrepareSettings())
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_refused_by_name(
    phantoms: Path, model_folder: Path, settings: EvaluateSettings, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="choose another --out"):
        evaluate_folder(model_folder, phantoms / "a", tmp_path / "file", settings, PrepareSettings())
