"""Files of earlier versions stay readable, and what they name stays named so: ``golden/first`` is the first version."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boneseg.dataset.make_shards import shard_name
from boneseg.dataset.manifest import Dataset, ShardRecord
from boneseg.dataset.splits import SplitState
from boneseg.evaluate.records import EvaluationResult, Measurement
from boneseg.ingest.known import ObjectsState
from boneseg.models.build import build_model
from boneseg.models.card import ModelCard
from boneseg.models.checkpoint import load_model
from boneseg.settings import identities
from boneseg.settings.schema import EvaluateSettings, ModelSettings, PrepareSettings, RunSettings
from boneseg.stages import Latest
from boneseg.storage.catalogue import Catalogue
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace
from boneseg.train.runs import RunRecord, TrainResult
from boneseg.train.training_state import StateKeeper
from boneseg.tune.tune import TuneResult, sweep_name

FIRST = Path(__file__).parent / "golden" / "first"
MODEL_HASH = "9d270faa1ccc02e7"
RUN = "unet-mobilenet-v2-f4703919948ae3f0"
RUN_IDENTITY = "f4703919948ae3f0"


def golden(kind: type[Record], name: str) -> Any:
    return kind.read((FIRST / name).read_bytes(), name, "it must stay readable")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Catalogue, "catalogue.json"),
        (ShardRecord, "shard.json"),
        (Dataset, "dataset.json"),
        (ObjectsState, "state__objects.json"),
        (SplitState, "state__splits.json"),
        (RunRecord, "run.json"),
        (TrainResult, "result.json"),
        (ModelCard, "card.json"),
        (ModelCard, "card-trained.json"),
        (TuneResult, "sweep.json"),
        (Measurement, "measurement.json"),
        (EvaluationResult, "evaluation.json"),
        (Latest, "latest.json"),
    ],
)
def test_records_of_the_first_version_are_read(kind: type[Record], name: str) -> None:
    record = golden(kind, name)
    assert kind.read(record.to_json(), name, "") == record


def write_weights(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Write safetensors by hand: the same bytes whatever the version of the library."""
    header: dict[str, Any] = {}
    data, offset = [], 0
    for name, value in sorted(state.items()):
        if value.dtype == torch.int64:
            values = np.zeros(value.numel(), np.int64)
        else:
            values = ((np.arange(value.numel()) * 37 % 101 - 50) / 1000).astype(np.float32)
        kind = "I64" if values.dtype == np.int64 else "F32"
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [offset, offset + values.nbytes]}
        data.append(values.tobytes())
        offset += values.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))


def test_a_model_of_the_first_version_is_whole(tmp_path: Path) -> None:
    card = golden(ModelCard, "card.json")
    write_weights(tmp_path / "model.safetensors", build_model(card.model).state_dict())
    (tmp_path / "card.json").write_bytes((FIRST / "card.json").read_bytes())
    _, loaded = load_model(tmp_path)
    assert loaded.model_hash == MODEL_HASH


def test_a_run_of_the_first_version_keeps_its_name() -> None:
    record = golden(RunRecord, "run.json")
    assert record.identity == RUN_IDENTITY
    assert record.default_name() == RUN
    changed = {"epochs": 2, "steps_per_epoch": 4, "batch_size": 4, "crop": 64}
    settings = RunSettings.model_validate({"model": {"encoder": "mobilenet_v2"}, "train": changed})
    assert RunRecord.of(record.dataset_hash, settings.model, settings.train).differences(record) == []


def test_a_state_of_the_first_version_continues(tmp_path: Path, workspace: Workspace) -> None:
    history = golden(TrainResult, "result.json").history[:1]
    weights = {"weight": torch.arange(4.0)}
    content = {
        "identity": RUN_IDENTITY,
        "epoch": 1,
        "history": [record.model_dump_json() for record in history],
        "best_epoch": 1,
        "best_weights": weights,
        "weights": weights,
        "optimizer": {"state": {}, "param_groups": []},
    }
    folder = workspace.run_folder(RUN)
    folder.mkdir(parents=True)
    torch.save(content, folder / "state.pt")
    state = StateKeeper(workspace, RUN, golden(RunRecord, "run.json").identity).load()
    assert (state.epoch, state.best_epoch, state.history) == (1, 1, history)
    assert torch.equal(state.weights["weight"], weights["weight"])


def test_a_shard_of_the_first_version_keeps_its_name() -> None:
    shard = golden(ShardRecord, "shard.json")
    row = next(row for row in golden(Catalogue, "catalogue.json").series if row.series == shard.series)
    assert shard_name(row, PrepareSettings()) == shard.shard


def test_a_sweep_of_the_first_version_keeps_its_name() -> None:
    settings = RunSettings.model_validate(
        {
            "model": {"encoder": "mobilenet_v2"},
            "train": {"epochs": 2, "steps_per_epoch": 4, "batch_size": 4, "crop": 64},
            "tune": {"trials": 2, "epochs": 1, "architectures": ["unet"], "encoders": ["mobilenet_v2"]},
        }
    )
    assert sweep_name(golden(Dataset, "dataset.json"), settings) == golden(TuneResult, "sweep.json").name


@pytest.mark.parametrize(
    ("fields", "values", "name"),
    [
        (identities.MODEL, ModelSettings(), "43d23ae9290b69a1"),
        (identities.EVALUATE, EvaluateSettings(), "09063a1b0fed1a85"),
        (identities.PREPARE, PrepareSettings(), "62f2f89c8e2c0c22"),
    ],
    ids=["model", "evaluate", "prepare"],
)
def test_settings_of_the_first_version_have_their_hashes(fields: Any, values: Any, name: str) -> None:
    assert fields.hash(values.model_dump(mode="json")) == name
