"""A folder goes into the bucket once."""

from pathlib import Path

import numpy as np
import pytest

from boneseg.errors import DataError
from boneseg.storage.client import PART_BYTES
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace


def test_only_new_and_changed_files_are_sent(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "one").mkdir(parents=True)
    (folder / "one" / "small").write_bytes(b"small")
    (folder / "one" / "empty").write_bytes(b"")
    (folder / ".hidden").write_bytes(b"not sent")
    large = np.random.default_rng(0).bytes(PART_BYTES + 1000)  # sent in two parts
    (folder / "large").write_bytes(large)

    assert upload_folder(workspace.store, folder, "raw/") == 3
    assert workspace.store.read("raw/large") == large
    assert upload_folder(workspace.store, folder, "raw/") == 0
    (folder / "one" / "small").write_bytes(b"SMALL")
    assert upload_folder(workspace.store, folder, "raw/") == 1
    assert workspace.store.read("raw/one/small") == b"SMALL"


@pytest.mark.parametrize("make", [False, True], ids=["missing", "empty"])
def test_a_folder_without_files_is_named(workspace: Workspace, tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "data"
    if make:
        folder.mkdir()
    with pytest.raises(DataError, match=str(folder)):
        upload_folder(workspace.store, folder, "raw/")
