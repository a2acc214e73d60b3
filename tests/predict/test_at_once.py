"""Several predictions into one folder at the same time, or one that is killed: masks are whole, and whose they are."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from boneseg.dicom.segmentation import read_segmentation
from boneseg.geometry import axial
from boneseg.nifti import read_volume
from boneseg.predict.folder_owner import OWNER_FILE, own_folder, writing
from boneseg.predict.masks import COLOURS_FILE, NAMES_FILE, Masks, write_masks
from tests.predict.test_names import row

SHAPE = (12, 96, 96)


def test_masks_written_at_once_are_whole_and_of_one_another(tmp_path: Path) -> None:
    """Two runs whose networks differ: what stays is one run's, its NIfTI and its DICOM alike."""
    folder = own_folder(tmp_path, "ct", row("ct", "0123456789abcdef"), tmp_path)
    start = threading.Barrier(6)

    def write(bone: int) -> Masks:
        mask = np.random.default_rng(bone).integers(0, 3, SHAPE, dtype=np.uint8)
        mask[0, 0, :bone] = 2
        start.wait()
        with writing(folder):
            return write_masks(folder, mask, axial(SHAPE, (3.0, 1.0, 1.0)))

    for _ in range(3):
        with ThreadPoolExecutor(6) as pool:
            done = list(pool.map(write, range(6)))
        assert len(done) == 6
        nifti, _ = read_volume(folder / "mask.nii.gz")
        written = {OWNER_FILE, "mask.nii.gz", "mask.dcm", NAMES_FILE, COLOURS_FILE}
        dicom = read_segmentation(folder / "mask.dcm")[0]
        np.testing.assert_array_equal(nifti, dicom)
        assert {path.name for path in folder.iterdir()} == written


def test_a_folder_taken_at_once_is_of_one_series_only(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def take(number: int) -> Path:
        start.wait()
        return own_folder(tmp_path, "ct", row("ct", f"{number % 4:x}123456789abcdef"), Path(f"/data/{number % 4}"))

    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            folders = list(pool.map(take, range(8)))
        assert len(set(folders)) == 4
        assert folders[:4] == folders[4:]


@pytest.mark.parametrize("left", ["", "masks"])
def test_an_empty_mark_is_taken_unless_masks_lie_under_it(tmp_path: Path, left: str) -> None:
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / OWNER_FILE).touch()
    if left:
        (tmp_path / "ct" / "mask.nii.gz").write_bytes(b"somebody's")
    taken = own_folder(tmp_path, "ct", row("ct", "0123456789abcdef"), tmp_path)
    assert (taken == tmp_path / "ct") == (not left)
    assert own_folder(tmp_path, "ct", row("ct", "0123456789abcdef"), tmp_path) == taken
