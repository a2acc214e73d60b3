"""Labels that lie on a part of their series, or whose file or series does not say where it lies."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from boneseg.errors import LabelError
from boneseg.geometry import Geometry
from boneseg.ingest.local import local_series
from boneseg.ingest.read import LabelledSeries, read_labelled
from boneseg.nifti import write_volume
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.catalogue import SeriesRow
from tests.ct_files import body, dicom, nifti, place, seg_label

SHAPE = (12, 24, 24)


def write(path: Path, label: NDArray[np.uint8], first: tuple[int, int, int] = (0, 0, 0)) -> Path:
    """Write a label whose first voxel is another one of the series' grid."""
    affine = place().affine.copy()
    affine[:3, 3] = place().to_patient(np.array([first], dtype=np.float64))[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, label, Geometry(label.shape, affine))  # type: ignore[arg-type]
    return path


def unplace(path: Path) -> None:
    """Let a NIfTI file say nothing of where its voxels lie, as programs do that know only their size."""
    image = nib.load(path)
    image.header["qform_code"] = image.header["sform_code"] = 0
    data = np.asanyarray(image.dataobj)
    nib.save(nib.Nifti1Image(data, None, image.header), path)


def read(row: SeriesRow) -> LabelledSeries:
    return read_labelled(lambda ref: Path(ref.key), row, PrepareSettings())


@pytest.mark.parametrize("kept", [slice(3, 9), slice(0, 4), slice(10, 12), slice(5, 6)])
@pytest.mark.parametrize("image", ["dicom", "nifti"])
def test_a_nifti_label_of_some_slices_counts_as_a_seg_of_them(tmp_path: Path, kept: slice, image: str) -> None:
    label = body(0, SHAPE)[1]
    for name in ("seg", "nifti"):
        if image == "dicom":
            dicom(tmp_path / name / "ct", geometry=place(SHAPE))
        else:
            nifti(tmp_path / name / "ct.nii.gz", geometry=place(SHAPE))
    seg_label(tmp_path / "seg" / "label.dcm", place(SHAPE), kept)
    write(tmp_path / "nifti" / "label.nii.gz", label[kept], (kept.start, 0, 0))
    found = []
    for name in ("seg", "nifti"):
        (row,), problems = local_series(tmp_path / name)
        assert [problem for problem in problems if problem.fatal] == []
        found.append(read(row))
    assert np.array_equal(found[0].hu, found[1].hu)
    assert np.array_equal(found[0].label, found[1].label)
    assert np.array_equal(found[1].hu, body(0, SHAPE)[0][kept])
    assert np.array_equal(found[1].label, label[kept])
    assert f"the label covers {kept.stop - kept.start} of 12 slices; only they are used" in found[1].warnings


def test_a_label_that_fits_a_whole_series_goes_to_no_longer_one(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii.gz", geometry=place(SHAPE))
    nifti(tmp_path / "b.nii.gz", geometry=place())
    write(tmp_path / "mask.nii.gz", body()[1])
    rows, _ = local_series(tmp_path)
    assert {row.source: row.label is not None for row in rows} == {"a.nii.gz": False, "b.nii.gz": True}


@pytest.mark.parametrize(
    ("first", "size", "cause"),
    [
        ((0, 2, 3), (12, 20, 18), "it covers only rows 2 to 21 and columns 3 to 20, not whole slices"),
        ((-2, 0, 0), (8, 24, 24), "it reaches beyond the series"),
        ((0, 0, 0), (12, 26, 24), "it reaches beyond the series"),
    ],
)
def test_a_label_of_another_extent_on_the_same_grid_is_called_that(
    tmp_path: Path, first: tuple[int, int, int], size: tuple[int, int, int], cause: str
) -> None:
    dicom(tmp_path / "ct", geometry=place(SHAPE))
    write(tmp_path / "label.nii.gz", np.ones(size, dtype=np.uint8), first)
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert cause in problems[0].reason


@pytest.mark.parametrize("unplaced", [["ct.nii.gz"], ["label.nii.gz"], ["ct.nii.gz", "label.nii.gz"]])
def test_a_volume_that_does_not_say_where_it_lies_keeps_its_label(tmp_path: Path, unplaced: list[str]) -> None:
    at = place(at=(-40, 12, 100))
    nifti(tmp_path / "ct.nii.gz", geometry=at)
    write_volume(tmp_path / "label.nii.gz", body()[1], at)
    for name in unplaced:
        unplace(tmp_path / name)
    (row,), problems = local_series(tmp_path)
    assert [problem for problem in problems if problem.fatal] == []
    said = [problem.reason for problem in problems if "in the order in which they are stored" in problem.reason]
    assert len(said) == (len(unplaced) == 1)
    series = read(row)
    hu, label = body()
    for value in (0, 1, 2):  # the guessed place turns the order of slices, rows and columns
        assert np.array_equal(np.sort(series.hu[series.label == value]), np.sort(hu[label == value]))


def test_a_label_in_another_order_than_its_unplaced_volume_is_refused_by_what_it_covers(tmp_path: Path) -> None:
    shape = (20, 24, 24)
    nifti(tmp_path / "ct.nii.gz", geometry=place(shape))
    unplace(tmp_path / "ct.nii.gz")
    write_volume(tmp_path / "label.nii.gz", body(0, shape)[1][:, ::-1].copy(), place(shape, (5, 5, 5)))
    (row,), _ = local_series(tmp_path)
    with pytest.raises(LabelError, match="0% of the labelled bone is as bright as bone, but 100% would be"):
        read(row)


@pytest.mark.parametrize("way", ["label of DICOM", "other number of voxels", "other size"])
def test_what_cannot_be_laid_on_each_other_is_refused_because_the_place_is_not_known(tmp_path: Path, way: str) -> None:
    if way == "label of DICOM":
        dicom(tmp_path / "ct")
    else:
        nifti(tmp_path / "ct.nii.gz")
    label, size = body()[1], (3.0, 1.0, 1.0) if way != "other size" else (5.0, 1.0, 1.0)
    affine = place().affine @ np.diag([size[0] / 3, 1, 1, 1])
    kept = label[:4] if way == "other number of voxels" else label
    write_volume(tmp_path / "label.nii.gz", kept, Geometry(kept.shape, affine))  # type: ignore[arg-type]
    unplace(tmp_path / "label.nii.gz")
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert problems[0].source == "label.nii.gz"
    assert "the header of label.nii.gz does not say where its voxels lie" in problems[0].reason
