"""The smallest job that goes the whole way: three phantoms, one a split, and a small network trained for two steps."""

from pathlib import Path

import pytest

from boneseg.phantom.series import write_phantom
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace

SPLITS = {"a": "train", "b": "validation", "c": "test"}


def put_phantoms(workspace: Workspace, folder: Path, names: str = "abc") -> None:
    """Write phantoms of 96 x 96 pixels and 12 slices and put them into the bucket."""
    for name in names:
        write_phantom(folder / "series" / name, seed=ord(name), slices=12, size=96)
    upload_folder(workspace.store, folder / "series", "raw/")


def overrides(workspace: Workspace, folder: Path) -> list[str]:
    """Return the settings of the job, written down as overrides."""
    lines = ["series,patient,split", *(f"{name},p-{name},{split}" for name, split in SPLITS.items())]
    (folder / "splits.csv").write_text("\n".join(lines) + "\n")
    return [
        f"store.bucket={workspace.store.bucket}",
        f"prepare.splits.override={folder / 'splits.csv'}",
        "prepare.parallel=1",
        "model.encoder=tu-mobilenetv3_small_050",
        "train.epochs=1",
        "train.steps_per_epoch=2",
        "train.batch_size=2",
        "train.crop=64",
        "train.device=cpu",
        "train.loader_threads=0",
        "evaluate.bootstrap=100",
    ]


def as_on_a_cluster(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the steps their addresses and credentials as a pod gets them: in the environment."""
    monkeypatch.setenv("BONESEG_HOME", str(workspace.folder))
    monkeypatch.setenv("BONESEG_S3_ENDPOINT", workspace.store.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", workspace.store.credentials.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", workspace.store.credentials.secret_key)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
