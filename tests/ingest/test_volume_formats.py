"""The same CT with the same label is the same series in every format."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from boneseg.geometry import Geometry
from boneseg.ingest.local import local_series
from boneseg.ingest.read import LabelledSeries, read_labelled
from boneseg.nifti import write_volume
from boneseg.scheme.builtin import PELVIS
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.catalogue import Problem, SeriesRow
from tests.ct_files import body, dicom, nifti, nifti_label, place
from tests.ingest.label_files import fatal, labels_of, read
from tests.test_nrrd_header import ORDERS, turned
from tests.volume_formats import mha, mhd, nhdr, nrrd, part_of, slicer_keys

Write = Callable[[Path, Geometry], object]
GRID = place(at=(3, -7, 11))
HU, LABEL = body()
NESTED = np.stack([(LABEL > 0).astype(np.uint8), (LABEL == 2).astype(np.uint8)], axis=-1)
CUT = [slice(0, 6), slice(4, 20), slice(4, 21)]
CT: dict[str, Write] = {
    "nii.gz": lambda folder, at: write_volume(folder / "ct.nii.gz", HU, at),
    "nrrd": lambda folder, at: nrrd(folder / "ct.nrrd", HU, at, "gzip"),
    "nrrd of bzip2": lambda folder, at: nrrd(folder / "ct.nrrd", HU, at, "bzip2"),
    "nhdr": lambda folder, at: nhdr(folder / "ct.nhdr", HU, at),
    "nhdr of gzip": lambda folder, at: nhdr(folder / "ct.nhdr", HU, at, "gzip"),
    "mha": lambda folder, at: mha(folder / "ct.mha", HU, at),
    "mhd of zraw": lambda folder, at: mhd(folder / "ct.mhd", HU, at, packed=True),
    "no suffix": lambda folder, at: nrrd(folder / "ct", HU, at),
}


def slicer(folder: Path, at: Geometry, cut: list[slice] | None = None) -> Path:
    part, where = part_of(LABEL, at, cut or [slice(None)] * 3)
    keys = slicer_keys([("Body", 0, 1), ("Bone", 0, 2)])
    return nrrd(folder / "label.seg.nrrd", part, where, "gzip", keys=keys)


LABELS: dict[str, Write] = {
    "nii.gz": lambda folder, at: write_volume(folder / "label.nii.gz", LABEL, at),
    "nrrd": lambda folder, at: nrrd(folder / "label.nrrd", LABEL, at, "gzip"),
    "nhdr": lambda folder, at: nhdr(folder / "label.nhdr", LABEL, at),
    "mha": lambda folder, at: mha(folder / "label.mha", LABEL, at, packed=True),
    "mhd of zraw": lambda folder, at: mhd(folder / "label.mhd", LABEL, at, packed=True),
    "mha of floats": lambda folder, at: mha(folder / "label.mha", LABEL.astype(np.float32), at),
    "seg.nrrd": slicer,
    "seg.nrrd of two layers": lambda folder, at: nrrd(
        folder / "label.seg.nrrd", NESTED, at, "gzip", keys=slicer_keys([("Body", 0, 1), ("Bone", 1, 1)])
    ),
    "seg.nrrd that is cropped": lambda folder, at: slicer(folder, at, CUT),
}


def only(folder: Path) -> tuple[SeriesRow, LabelledSeries, tuple[Problem, ...]]:
    (row,), problems = local_series(folder)
    return row, read(row), problems


def check(folder: Path, grid: Geometry) -> None:
    (folder / "reference").mkdir()
    CT["nii.gz"](folder / "reference", grid)
    LABELS["nii.gz"](folder / "reference", grid)
    wanted_row, wanted, _ = only(folder / "reference")
    row, found, problems = only(folder / "case")
    assert row.series == wanted_row.series
    assert problems == ()
    np.testing.assert_array_equal(found.hu, wanted.hu)
    np.testing.assert_array_equal(found.label, wanted.label)
    assert found.geometry == wanted.geometry
    assert found.reorientation == wanted.reorientation
    assert found.warnings == wanted.warnings == ()


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("ct", ["nii.gz", "mhd of zraw"])
def test_a_label_of_any_format_is_the_same(tmp_path: Path, ct: str, label: str) -> None:
    (tmp_path / "case").mkdir()
    CT[ct](tmp_path / "case", GRID)
    LABELS[label](tmp_path / "case", GRID)
    check(tmp_path, GRID)


@pytest.mark.parametrize("ct", CT)
def test_a_ct_of_any_format_is_the_same(tmp_path: Path, ct: str) -> None:
    (tmp_path / "case").mkdir()
    CT[ct](tmp_path / "case", GRID)
    LABELS["seg.nrrd that is cropped"](tmp_path / "case", GRID)
    check(tmp_path, GRID)


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_a_crop_finds_its_place_in_every_order_of_axes(
    tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    grid = turned(order, signs, (6, 24, 24))
    (tmp_path / "case").mkdir()
    CT["nrrd"](tmp_path / "case", grid)
    LABELS["seg.nrrd that is cropped"](tmp_path / "case", grid)
    check(tmp_path, grid)


def test_labels_of_dicom_series_may_be_of_any_format(tmp_path: Path) -> None:
    for name, write in LABELS.items():
        folder = tmp_path / name.replace(" ", "_")
        dicom(folder / "ct", geometry=GRID)
        write(folder, GRID)
        row, found, _ = only(folder)
        np.testing.assert_array_equal(found.label, LABEL)
        assert row.label is not None


def test_one_mask_a_bone_may_be_of_any_format(tmp_path: Path) -> None:
    bone = LABEL == 2
    left, right = bone.copy(), bone.copy()
    left[:, :, 11:], right[:, :, :11] = False, False
    CT["mhd of zraw"](tmp_path, GRID)
    (tmp_path / "masks").mkdir()
    nhdr(tmp_path / "masks" / "femur_left.nhdr", left.astype(np.uint8), GRID)
    mhd(tmp_path / "masks" / "femur_right.mhd", right.astype(np.uint8), GRID, packed=True)
    (row,), problems = local_series(tmp_path)
    assert labels_of(row) == ["femur_left.nhdr", "femur_right.mhd"]
    assert fatal(problems) == []
    assert row.label is not None
    assert {Path(item.key).name for item in row.label.objects} == {
        *("femur_left.nhdr", "femur_left.raw", "femur_right.mhd", "femur_right.zraw")
    }
    found = read_labelled(lambda ref: Path(ref.key), row, PrepareSettings(), PELVIS)
    names = PELVIS.names
    np.testing.assert_array_equal(found.label == names.index("femur left"), left)
    np.testing.assert_array_equal(found.label == names.index("femur right"), right)


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
def test_volumes_without_a_place_are_taken_in_their_order(tmp_path: Path, kind: str) -> None:
    if kind == "nrrd":
        nrrd(tmp_path / "ct.nrrd", HU, GRID, fields={"space": None, "space dimension": "3"})
    else:
        mha(tmp_path / "ct.mha", HU, GRID, {"TransformMatrix": None, "AnatomicalOrientation": None})
    nifti_label(tmp_path / "label.nii.gz", GRID)
    (row,), problems = local_series(tmp_path)
    assert row.label is not None
    assert row.label.in_order
    assert any(f"the header of ct.{kind} does not say where its voxels lie" in problem.reason for problem in problems)
    np.testing.assert_array_equal(read(row).hu, HU[:, ::-1])  # the guess turns front and back


def test_two_formats_of_one_series_are_copies(tmp_path: Path) -> None:
    for name in ("nii.gz", "mhd of zraw"):
        (tmp_path / name[:3]).mkdir()
        CT[name](tmp_path / name[:3], GRID)
        LABELS[name](tmp_path / name[:3], GRID)
    (row,), problems = local_series(tmp_path)
    assert row.label is not None
    assert fatal(problems) == []
    assert "the same series as" in problems[0].reason


def test_a_header_without_its_voxels_is_one_row_and_voxels_without_a_header_another(tmp_path: Path) -> None:
    nhdr(tmp_path / "ct.nhdr", HU, GRID)
    (tmp_path / "ct.raw").rename(tmp_path / "Jane.raw")
    nifti(tmp_path / "other" / "ct.nii.gz", 3)
    (row,), problems = local_series(tmp_path)
    assert row.source == "other/ct.nii.gz"
    reasons = {problem.source: problem.reason for problem in problems}
    assert reasons["ct.nhdr"].startswith("the file of voxels, «ct.raw», is not beside its header; add it")
    assert "voxels without a header" in reasons["Jane.raw"]


def test_the_label_of_a_series_that_lost_its_voxels_goes_to_no_other(tmp_path: Path) -> None:
    nhdr(tmp_path / "a" / "ct.nhdr", HU, GRID)
    (tmp_path / "a" / "ct.raw").unlink()
    nifti_label(tmp_path / "a" / "label.nii.gz", GRID)
    nifti(tmp_path / "b" / "ct.nii.gz", geometry=GRID)
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert "a/label.nii.gz" in fatal(problems)


@pytest.mark.parametrize("kind", ["nhdr", "mhd"])
def test_damaged_voxels_of_a_pair_are_one_problem(tmp_path: Path, kind: str) -> None:
    write = {
        "nhdr": lambda: nhdr(tmp_path / "ct.nhdr", HU, GRID, "gzip"),
        "mhd": lambda: mhd(tmp_path / "ct.mhd", HU, GRID),
    }
    write[kind]()
    data = next(path for path in tmp_path.iterdir() if path.suffix != f".{kind}")
    data.write_bytes(data.read_bytes()[:-20])
    rows, problems = local_series(tmp_path)
    assert rows == ()
    assert [problem.source for problem in problems] == [f"ct.{kind}"]
    assert "is damaged or cut short" in problems[0].reason


def test_a_single_header_brings_its_voxels(tmp_path: Path) -> None:
    (row,), problems = local_series(mhd(tmp_path / "ct.mhd", HU, GRID))
    assert (len(row.objects), problems) == (2, ())
    nifti(tmp_path / "unseen.nii.gz")
    assert len(local_series(tmp_path / "ct.mhd")[0]) == 1


def test_one_header_text_beside_the_voxels_of_two_patients_links_nobody(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        nhdr(tmp_path / name / "ct.nhdr", body(seed)[0], place())
    assert (tmp_path / "a" / "ct.nhdr").read_bytes() == (tmp_path / "b" / "ct.nhdr").read_bytes()
    rows, _ = local_series(tmp_path)
    assert [row.links for row in rows] == [(), ()]
    assert rows[0].pixels != rows[1].pixels
