from pathlib import Path

import pytest

from boneseg.errors import DataError
from boneseg.ingest.local import local_series
from boneseg.storage.hashing import sha256_file
from tests.ct_files import dicom, nifti, nifti_label


def test_keys_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nifti(tmp_path / "data" / "ct.nii.gz")
    nifti_label(tmp_path / "data" / "label.nii.gz")
    monkeypatch.chdir(tmp_path)
    (row,), _ = local_series(Path("data"))
    assert row.label is not None
    for item in (*row.objects, row.label.object):
        assert Path(item.key).is_absolute()
        assert sha256_file(Path(item.key)) == item.sha256
    assert row.source == "ct.nii.gz"


def test_a_single_file_is_a_series(tmp_path: Path) -> None:
    (row,), _ = local_series(nifti(tmp_path / "ct.nii.gz"))
    assert row.source == "ct.nii.gz"


def test_series_directly_in_the_folder_is_found(tmp_path: Path) -> None:
    dicom(tmp_path)
    (row,), _ = local_series(tmp_path)
    assert len(row.objects) == 6


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    dicom(tmp_path / ".trash")
    (tmp_path / ".DS_Store").write_text("x")
    assert local_series(tmp_path) == ((), ())


def test_same_series_has_the_same_name_everywhere(tmp_path: Path) -> None:
    dicom(tmp_path / "one" / "x", seed=4)
    dicom(tmp_path / "two" / "y", seed=4, patient="P9", uid="another")
    (first,), _ = local_series(tmp_path / "one")
    (second,), _ = local_series(tmp_path / "two")
    assert first.series == second.series
    assert first.patient != second.patient


def test_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        local_series(tmp_path / "nowhere")
