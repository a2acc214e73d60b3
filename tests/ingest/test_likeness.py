"""A label of a series that holds several passes goes to the pass on whose image it lies, or to none."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from boneseg.dicom.segmentation_write import write_segmentation
from boneseg.ingest.local import local_series
from boneseg.ingest.pull import pull
from boneseg.nifti import write_volume
from boneseg.settings.schema import PullSettings, StoreSettings
from boneseg.storage.catalogue import Problem, SeriesRow
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace
from tests.ct_files import dicom, place

SHAPE = (8, 24, 24)


def body(moved: int = 0, contrast: int = 0, seed: int = 0) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A body with a bone, both moved by some columns, and soft tissue as bright as contrast makes it."""
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[:, 4:20, 4:20], label[:, 8:14, 8:12] = 1, 2
    label = np.roll(label, moved, axis=2)
    noise = np.random.default_rng(seed).integers(-15, 16, SHAPE)
    return (np.choose(label, (-1000, 40 + contrast, 600)) + noise).astype(np.int16), label


def write_passes(folder: Path, passes: list[NDArray[np.int16]]) -> None:
    """Write passes of one series UID into one folder, as acquisitions 1, 2 and so on."""
    folder.mkdir(parents=True)
    for number, hu in enumerate(passes, 1):
        for index, path in enumerate(dicom(folder / "new", uid="same", geometry=place(SHAPE))):
            data = pydicom.dcmread(path)
            data.PixelData = (hu[index] + 1024).astype("<u2").tobytes()
            data.AcquisitionNumber = number
            data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}.{index}"
            data.save_as(folder / f"pass{number}-{index:02d}.dcm")
            path.unlink()
    (folder / "new").rmdir()


def labelled(rows: tuple[SeriesRow, ...]) -> list[str]:
    """Return which passes have a label."""
    return [Path(row.objects[0].key).name[:5] for row in rows if row.label]


def said(problems: tuple[Problem, ...]) -> str:
    return " ".join(problem.reason for problem in problems if problem.source.startswith("label"))


def write_label(folder: Path, label: NDArray[np.uint8], kind: str = "nii.gz") -> None:
    write = write_volume if kind == "nii.gz" else write_segmentation
    write(folder / f"label.{kind}", label, place(SHAPE))


@pytest.mark.parametrize("kind", ["nii.gz", "dcm"])
@pytest.mark.parametrize("drawn_on", [1, 2, 3])
def test_a_label_goes_to_the_pass_on_whose_bones_it_lies(tmp_path: Path, drawn_on: int, kind: str) -> None:
    bodies = [body(moved, contrast, seed) for seed, (moved, contrast) in enumerate([(0, 0), (3, 60), (-3, 120)])]
    write_passes(tmp_path / "ct", [hu for hu, _ in bodies])
    write_label(tmp_path, bodies[drawn_on - 1][1], kind)
    rows, problems = local_series(tmp_path)
    assert len(rows) == 3
    assert labelled(rows) == [f"pass{drawn_on}"]
    assert f"lies on the bones of number {drawn_on} alone" in said(problems)
    assert not any(problem.fatal for problem in problems)


def test_a_label_that_lies_on_all_passes_alike_is_used_for_the_first(tmp_path: Path) -> None:
    write_passes(tmp_path / "ct", [body(0, contrast, seed)[0] for seed, contrast in enumerate([120, 0, 60])])
    write_label(tmp_path, body()[1])
    rows, problems = local_series(tmp_path)
    assert labelled(rows) == ["pass1"]
    assert "lies on the bones of all of them alike, and is used for the first of them" in said(problems)


def test_a_label_that_lies_on_some_passes_alike_is_used_for_the_first_of_these(tmp_path: Path) -> None:
    write_passes(tmp_path / "ct", [body(moved, 0, seed)[0] for seed, moved in enumerate([4, 0, 0])])
    write_label(tmp_path, body()[1])
    rows, problems = local_series(tmp_path)
    assert labelled(rows) == ["pass2"]
    assert "lies on the bones of 2 of them alike, and is used for the first of these, number 2" in said(problems)


@pytest.mark.parametrize("way", ["on none", "too small", "no bone"])
def test_where_nothing_tells_the_pass_the_label_is_not_used(tmp_path: Path, way: str) -> None:
    write_passes(tmp_path / "ct", [body(0, 0, 1)[0], body(2, 60, 2)[0]])
    label = np.zeros(SHAPE, dtype=np.uint8)
    if way == "on none":
        label[:, 15:20, 5:20] = 1
    elif way == "too small":
        label[3, 8:12, 8:12] = 1
    else:
        label[:, 0:3, :] = 1
    write_label(tmp_path, label)
    rows, problems = local_series(tmp_path)
    assert labelled(rows) == []
    assert problems[0].source == "label.nii.gz"
    assert "it cannot be told on which of them it was drawn" in problems[0].reason


def test_pull_compares_the_voxels_in_the_bucket(workspace: Workspace, tmp_path: Path) -> None:
    bodies = [body(0, 0, 1), body(4, 60, 2)]
    write_passes(tmp_path / "raw" / "ct", [hu for hu, _ in bodies])
    write_label(tmp_path / "raw", bodies[1][1])
    upload_folder(workspace.store, tmp_path / "raw", "raw/")
    for _ in range(2):  # the second time from what is known
        result = pull(workspace, StoreSettings(), PullSettings())
        assert (result.series, result.labelled) == (2, 1)
        assert any("lies on the bones of number 2 alone" in problem.reason for problem in result.problems)
