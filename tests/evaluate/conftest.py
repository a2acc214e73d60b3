"""Settings and a real, untrained model."""

from pathlib import Path

import pytest
import torch

from boneseg.models.build import build_model
from boneseg.models.checkpoint import save_model
from boneseg.settings.schema import EvaluateSettings, ModelSettings, TrainSettings
from tests.evaluate.given import history


@pytest.fixture(scope="session")
def settings() -> EvaluateSettings:
    """Few resamples: quick."""
    return EvaluateSettings(bootstrap=200, threshold_hu=150.0)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a real network with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    model = ModelSettings(architecture="unet", encoder="mobilenet_v2")
    save_model(
        folder,
        build_model(model),
        model=model,
        train=TrainSettings(),
        dataset_hash="d" * 16,
        fingerprint="f" * 16,
        run="test-run",
        best_epoch=2,
        history=history(),
    )
    return folder
