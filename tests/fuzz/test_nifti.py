"""Damaged NIfTI files: each is read as nibabel reads it, or named; none ends the pull or takes much memory."""

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from boneseg.errors import LabelError
from boneseg.hu import to_hu
from boneseg.ingest.facts import Kind, inspect
from boneseg.ingest.volumes import read_hu, read_label
from boneseg.nifti import read_header
from boneseg.storage.catalogue import ObjectRef
from tests.ct_files import body
from tests.fuzz.mutations import mutate

AFFINE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.05, 0.0) @ np.diag([-1.0, -1.0, 3.0]), (12, 10, -30))
SEEDS = range(60)


def originals() -> list[bytes]:
    hu, label = (array.transpose(2, 1, 0) for array in body(shape=(8, 20, 24)))
    scaled = nib.Nifti1Image((hu + 1024.0) * 2, AFFINE)
    scaled.header.set_slope_inter(0.5, -1024)
    scaled.set_data_dtype(np.int16)
    images = [nib.Nifti1Image(hu, AFFINE), nib.Nifti2Image(hu, AFFINE), nib.Nifti1Image(label, AFFINE), scaled]
    for image in images:
        image.set_qform(AFFINE, 1)
        image.set_sform(AFFINE, 1)
    return [image.to_bytes() for image in images]


def damaged(seed: int) -> tuple[str, bytes]:
    """Return a name and content: plain, packed after it was damaged, and damaged after it was packed."""
    data, way = originals()[seed % 4], seed // 4 % 3
    if way == 0:
        return "x.nii", mutate(data, seed, 352)
    if way == 1:
        return "x.nii.gz", gzip.compress(mutate(data, seed, 352), mtime=0)
    return "x.nii.gz", mutate(gzip.compress(data, mtime=0), seed, 200)


def check(path: Path) -> str:
    """Compare what we make of a file with nibabel."""
    found = inspect(path, ObjectRef(key=f"raw/{path.name}", size=1, etag="", sha256=""), b"")
    if found.kind in (Kind.BROKEN, Kind.IGNORED):
        assert found.reason
        assert "Error" not in found.reason  # a cause, not the name of what some library raised
        return found.kind
    image = nib.load(path)
    with np.errstate(all="ignore"):
        values = np.asanyarray(image.dataobj)
    values = values.reshape(values.shape[:3]).transpose(2, 1, 0)
    if found.kind == Kind.VOLUME:
        assert np.array_equal(read_hu(path)[0], to_hu(values))
        low, high = found.hu_range or (0, 0)
        assert (low, high) == (to_hu(values).min(), to_hu(values).max())
    else:
        try:
            assert np.array_equal(read_label(path)[0], np.rint(values))
        except LabelError:
            assert values.min() < 0
    header = read_header(path)
    ras = np.diag([-1, -1, 1, 1]) @ header.geometry.affine[:, [2, 1, 0, 3]]
    to_mm = {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) & 7, 1.0)
    np.testing.assert_allclose(ras, np.diag([to_mm] * 3 + [1.0]) @ image.affine, rtol=1e-4, atol=1e-3)
    if not np.allclose(ras, AFFINE, atol=0.05):
        assert header.warnings or not int(image.header["qform_code"])  # the header held another place to compare with
    return found.kind


def test_damaged_files_are_read_as_nibabel_reads_them_or_named(tmp_path: Path) -> None:
    kinds = set()
    tracemalloc.start()
    try:
        for seed in SEEDS:
            name, data = damaged(seed)
            (tmp_path / name).write_bytes(data)
            kinds.add(check(tmp_path / name))
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    assert {Kind.VOLUME, Kind.BROKEN} <= kinds


@pytest.mark.parametrize("index", range(4))
def test_the_files_are_right_before_they_are_damaged(tmp_path: Path, index: int) -> None:
    (tmp_path / "x.nii").write_bytes(originals()[index])
    assert check(tmp_path / "x.nii") == (Kind.LABEL if index == 2 else Kind.VOLUME)
