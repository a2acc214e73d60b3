"""What tests of training share."""

import pytest

from boneseg.settings.schema import ModelSettings, RunSettings, TrainSettings
from boneseg.storage.workspace import Workspace
from tests.train.data import put_dataset


@pytest.fixture
def dataset_uri(workspace: Workspace) -> str:
    """Return a dataset of two training series and one validation series."""
    return put_dataset(workspace)


@pytest.fixture
def quick() -> RunSettings:
    """Return settings of a run that takes seconds."""
    return RunSettings(
        name="quick",
        model=ModelSettings(architecture="linknet", encoder="mobilenet_v2"),
        train=TrainSettings(
            epochs=2,
            steps_per_epoch=3,
            batch_size=4,
            crop=64,
            augmentation="none",
            loader_threads=0,
            device="cpu",
            pictures_every=0,
        ),
    )
