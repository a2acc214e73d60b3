"""Evaluation as a user meets it: on a dataset of a bucket, and on a folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from boneseg.config import EvaluateSettings, PrepareSettings, PullSettings, Split, SplitSettings, StoreSettings
from boneseg.dataset.manifest import Dataset
from boneseg.dataset.prepare import prepare
from boneseg.dataset.pull import pull
from boneseg.dataset.shards import load_dataset, open_shard
from boneseg.errors import DataError
from boneseg.evaluate.evaluate import console_table, evaluate, evaluate_folder, load_evaluation, markdown_tables
from boneseg.evaluate.records import EvaluationResult
from boneseg.inference import predict_volume
from boneseg.models.checkpoint import load_model, upload_model
from boneseg.phantom.series import write_phantom
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


def prepared(workspace: Workspace, folder: Path, test: float = 0.5) -> str:
    """Bring a folder into the bucket and return the dataset's URI."""
    settings = StoreSettings(bucket=workspace.store.bucket)
    upload_folder(workspace.store, folder, settings.raw_prefix, 4)
    catalogue = pull(workspace, settings, PullSettings()).catalogue_uri
    splits = SplitSettings(validation=0.2, test=test)
    return prepare(workspace, catalogue, PrepareSettings(splits=splits, parallel=1)).dataset_uri


def names(workspace: Workspace) -> list[str]:
    return [item.key for item in workspace.store.list("evaluations/")]


def test_an_evaluation_counts_what_prediction_says_and_is_kept_whole(
    workspace: Workspace, phantoms: Path, model_folder: Path, settings: EvaluateSettings
) -> None:
    dataset_uri = prepared(workspace, phantoms)
    model_uri = upload_model(workspace, model_folder)
    result = evaluate(workspace, model_uri, dataset_uri, settings)
    dataset = load_dataset(workspace, dataset_uri)
    assert np.array_equal(result.confusion, expected_confusion(workspace, dataset, model_folder))
    assert {row.series for row in result.series} == {shard.series for shard in dataset.of(Split.TEST)}
    assert (result.model_hash, result.test_hash) == (load_model(model_folder)[1].model_hash, dataset.test_hash)
    assert not result.reused
    assert load_evaluation(workspace, result.evaluation_uri) == result
    prefix = f"evaluations/{result.evaluation_hash}/"
    there = {key.removeprefix(prefix) for key in names(workspace) if key.startswith(prefix)}
    assert there == {*result.files, "evaluation.json"}
    assert b"unet/mobilenet_v2" in workspace.store.read(workspace.store.key(result.report_uri))
    assert "unet/mobilenet_v2" in console_table(result)
    assert "protocol: patient" in markdown_tables(result)


def expected_confusion(workspace: Workspace, dataset: Dataset, model_folder: Path) -> np.ndarray:
    network, card = load_model(model_folder)
    total = np.zeros((3, 3), dtype=np.int64)
    for record in dataset.of(Split.TEST):
        shard = open_shard(workspace, record)
        mask = predict_volume(network, card.model.preprocess, shard.image, record.geometry.geometry(), device="auto")
        total += confusion_matrix(np.asarray(shard.label).ravel(), mask.ravel(), labels=[0, 1, 2])
    return total


def test_the_same_evaluation_is_not_made_twice_and_an_interrupted_one_goes_on_from_its_counts(
    workspace: Workspace, phantoms: Path, model_folder: Path, settings: EvaluateSettings
) -> None:
    dataset_uri = prepared(workspace, phantoms)
    model_uri = upload_model(workspace, model_folder)
    first = evaluate(workspace, model_uri, dataset_uri, settings)
    before = {item.key: item.etag for item in workspace.store.list("evaluations/")}
    again = evaluate(workspace, model_uri, dataset_uri, settings)
    assert again == first.model_copy(update={"reused": True})

    workspace.store.delete(workspace.store.key(first.evaluation_uri))
    resumed = evaluate(workspace, model_uri, dataset_uri, settings)
    assert resumed == first
    after = {item.key: item.etag for item in workspace.store.list("evaluations/")}
    assert {key for key in before if key.endswith("measurement.json")} == {
        key for key in after if key.endswith("measurement.json") and after[key] == before[key]
    }
    other = evaluate(workspace, model_uri, dataset_uri, settings.model_copy(update={"bootstrap": 300}))
    assert other.evaluation_hash != first.evaluation_hash
    assert len([key for key in names(workspace) if key.endswith("measurement.json")]) == 2 * len(first.series)


def test_kept_counts_are_used_instead_of_the_network(
    workspace: Workspace, phantoms: Path, model_folder: Path, settings: EvaluateSettings
) -> None:
    dataset_uri = prepared(workspace, phantoms)
    model_uri = upload_model(workspace, model_folder)
    first = evaluate(workspace, model_uri, dataset_uri, settings)
    for key in names(workspace):
        if key.endswith("measurement.json"):
            kept = json.loads(workspace.store.read(key))
            kept["slices"] = [[9, 0, 0, 0, 9, 0, 0, 0, 9]] * SLICES
            workspace.store.write(key, json.dumps(kept).encode())
    workspace.store.delete(workspace.store.key(first.evaluation_uri))
    assert evaluate(workspace, model_uri, dataset_uri, settings).bone_dice == 1.0


def test_a_dataset_without_test_series_is_refused_with_the_fix(
    workspace: Workspace, phantoms: Path, model_folder: Path, settings: EvaluateSettings
) -> None:
    dataset_uri = prepared(workspace, phantoms, test=0.0)
    with pytest.raises(DataError, match=r"prepare\.splits\.test"):
        evaluate(workspace, upload_model(workspace, model_folder), dataset_uri, settings)
    assert names(workspace) == []


def test_a_folder_is_measured_and_what_cannot_be_used_is_named(
    phantoms: Path, model_folder: Path, settings: EvaluateSettings, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantoms, data)
    (data / "b" / "label.dcm").unlink()
    cut = sorted((data / "c" / "dicom").iterdir())[2]
    cut.write_bytes(cut.read_bytes()[:-5000])
    result = evaluate_folder(model_folder, data, tmp_path / "out", settings, PrepareSettings())
    fatal = {problem.source.split("/")[0]: problem.reason for problem in result.problems if problem.fatal}
    assert len(result.series) == 2
    assert "no label" in fatal["b"]
    assert "c" in fatal
    assert EvaluationResult.model_validate_json((tmp_path / "out" / "evaluation.json").read_bytes()) == result
    assert Path(result.report_uri).is_file()
    there = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert there == {*result.files, "evaluation.json"}


def test_no_patient_appears_in_any_file(
    phantoms: Path, model_folder: Path, settings: EvaluateSettings, tmp_path: Path
) -> None:
    import pydicom

    header = pydicom.dcmread(next((phantoms / "a" / "dicom").iterdir()), stop_before_pixels=True)
    secrets = [str(header.PatientID), str(header.StudyInstanceUID), str(header.SeriesInstanceUID)]
    assert all(secrets)
    evaluate_folder(model_folder, phantoms / "a", tmp_path / "out", settings, PrepareSettings())
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert not any(secret.encode() in path.read_bytes() for secret in secrets), path


def test_a_folder_gives_the_same_numbers_as_the_bucket(
    workspace: Workspace, phantoms: Path, model_folder: Path, settings: EvaluateSettings, tmp_path: Path
) -> None:
    bucket = evaluate(workspace, upload_model(workspace, model_folder), prepared(workspace, phantoms), settings)
    folder = evaluate_folder(model_folder, phantoms, tmp_path / "out", settings, PrepareSettings())
    kept = {row.series: row for row in folder.series}
    for row in bucket.series:
        assert kept[row.series].network.slices == row.network.slices
        assert kept[row.series].threshold.hd95_mm == row.threshold.hd95_mm


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
