"""Detached headers in a bucket: two objects that are one volume, and what a change of either does."""

from pathlib import Path

import pytest

from boneseg.ingest.pull import PullResult, pull
from boneseg.settings.schema import PullSettings, StoreSettings
from boneseg.storage.catalogue import Catalogue
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace
from tests.ct_files import body, nifti, nifti_label, place
from tests.volume_formats import mhd, nhdr

GRID = place()


def pulled(workspace: Workspace) -> tuple[PullResult, Catalogue]:
    result = pull(workspace, StoreSettings(), PullSettings())
    key = result.catalogue_uri.removeprefix(workspace.store.uri(""))
    return result, Catalogue.read(workspace.store.read(key), "", "")


@pytest.fixture
def folder(workspace: Workspace, tmp_path: Path) -> Path:
    """A series and its label, each in two files, and another series."""
    data = tmp_path / "data"
    nhdr(data / "a" / "ct.nhdr", body()[0], GRID, "gzip")
    mhd(data / "a" / "label.mhd", body()[1], GRID, packed=True)
    nifti(data / "b" / "ct.nii.gz", 5, place(at=(0, 0, 500)))
    upload_folder(workspace.store, data, "raw/")
    return data


def test_pairs_are_complete_and_found_again(workspace: Workspace, folder: Path) -> None:
    first, catalogue = pulled(workspace)
    assert (first.series, first.labelled, first.problems) == (2, 1, ())
    assert sorted(len(row.objects) for row in catalogue.series) == [1, 2]
    label = next(row.label for row in catalogue.series if row.label is not None)
    assert len(label.objects) == 2
    assert all(item.key == item.etag == "" for item in label.objects)  # known by their content alone
    again, _ = pulled(workspace)
    assert (again.fingerprint, again.downloaded, again.reused) == (first.fingerprint, 0, 5)


def test_other_voxels_under_the_same_header_are_another_series(workspace: Workspace, folder: Path) -> None:
    first, _ = pulled(workspace)
    nhdr(folder / "a" / "ct.nhdr", body(1)[0], GRID, "gzip")
    upload_folder(workspace.store, folder, "raw/")
    second, _ = pulled(workspace)
    assert (second.series, second.labelled, second.problems) == (2, 1, ())
    assert second.fingerprint != first.fingerprint


def test_another_label_under_the_same_header_is_another_label(workspace: Workspace, folder: Path) -> None:
    first, _ = pulled(workspace)
    label = body()[1]
    label[0, 8, 8] = 1 if label[0, 8, 8] == 2 else 2
    mhd(folder / "a" / "label.mhd", label, GRID, packed=True)
    upload_folder(workspace.store, folder, "raw/")
    assert pulled(workspace)[0].fingerprint != first.fingerprint


def test_voxels_that_go_and_come_back(workspace: Workspace, folder: Path) -> None:
    first, _ = pulled(workspace)
    workspace.store.delete("raw/a/ct.raw.gz")
    lost, _ = pulled(workspace)
    assert lost.series == 1
    assert any("is not beside its header" in problem.reason for problem in lost.problems)
    assert not any("ct.raw" in problem.reason for problem in lost.problems)  # quoted words have stand-ins
    upload_folder(workspace.store, folder, "raw/")
    assert pulled(workspace)[0].fingerprint == first.fingerprint


def test_names_and_texts_of_headers_stay_beside_the_raw_data(workspace: Workspace, tmp_path: Path) -> None:
    data = tmp_path / "data"
    nhdr(data / "Doe_Jane.nhdr", body()[0], GRID, data="Doe_Jane.raw")
    for name in ("Doe_Jane.nhdr",):
        text = (data / name).read_bytes()
        (data / name).write_bytes(text.replace(b"# written by hand", b"# Doe_Jane\ncontent: Doe_Jane\nk:=Doe_Jane"))
    nifti_label(data / "label.nii.gz", GRID)
    upload_folder(workspace.store, data, "raw/")
    result, catalogue = pulled(workspace)
    assert result.labelled == 1
    assert "Doe" not in result.model_dump_json() + catalogue.model_dump_json()
    keys = [item.key for item in workspace.store.list("") if not item.key.startswith("raw/")]
    assert keys
    assert not any(b"Doe_Jane" in workspace.store.read(key) for key in keys)
