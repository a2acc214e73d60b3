"""A training run in a process of its own, for tests that kill it: ``python -m tests.train.long_run FOLDER BUCKET``."""

import sys
from pathlib import Path

from boneseg.settings.schema import RunSettings
from boneseg.storage.client import ObjectStore
from boneseg.storage.credentials import look_up
from boneseg.storage.workspace import Workspace
from boneseg.train.train import train


def main(folder: str, endpoint: str, bucket: str, dataset_uri: str, settings: str) -> None:
    """Train with credentials from the environment."""
    store = ObjectStore(endpoint, bucket, look_up().now())
    train(Workspace(store, Path(folder)), dataset_uri, RunSettings.model_validate_json(settings))


if __name__ == "__main__":
    main(*sys.argv[1:])
