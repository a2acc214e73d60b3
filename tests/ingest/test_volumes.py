"""What NIfTI values are: HU, labels, or neither."""

import re
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from boneseg.errors import LabelError
from boneseg.ingest.facts import Kind, ObjectFacts, inspect
from boneseg.ingest.local import local_series
from boneseg.ingest.volumes import read_hu, read_label
from boneseg.storage.catalogue import ObjectRef
from boneseg.storage.hashing import combine, sha256_array
from tests.ct_files import body

AFFINE = np.diag([-1.0, -1.0, 3.0, 1.0])


def put(path: Path, values: np.ndarray, slope: float | None = None, inter: float = 0.0, header: Any = None) -> Path:
    """Write values (slice, row, column, and whatever follows) with nibabel; a given slope is put into the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = (2, 1, 0, *range(3, values.ndim))
    nib.save(nib.Nifti1Image(values.transpose(order), AFFINE, header, dtype=values.dtype), path)
    if slope is not None:
        raw = bytearray(path.read_bytes())
        raw[112:120] = struct.pack("<ff", slope, inter)
        path.write_bytes(raw)
    return path


def facts(path: Path) -> ObjectFacts:
    return inspect(path, ObjectRef(key=path.name, size=1, etag="", sha256=""), b"")


def kinds(hu: np.ndarray) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Return the same CT as several programs store it."""
    outside = np.zeros(hu.shape, dtype=bool)
    outside[:, :3] = True
    big = nib.Nifti1Header(endianness=">")
    return {
        "int16": (hu, {}),
        "int32": (hu.astype(np.int32), {}),
        "int64": (hu.astype(np.int64), {}),
        "float32": (hu.astype(np.float32) + 0.3, {}),
        "nan": (np.where(outside, np.nan, hu.astype(np.float64)), {}),
        "infinite": (np.where(outside, -np.inf, hu.astype(np.float32)), {}),
        "uint16 with intercept": ((hu + 1024).astype(np.uint16), {"slope": 1.0, "inter": -1024.0}),
        "int16 with slope": ((hu * 2).astype(np.int16), {"slope": 0.5}),
        "padding": (np.where(outside, -3024, hu).astype(np.int16), {}),
        "padding of floats": (np.where(outside, -3.4e38, hu).astype(np.float32), {}),
        "big endian": (hu.astype(">i2"), {"header": big}),
        "one phase": (hu[..., np.newaxis], {}),
    }


@pytest.mark.parametrize("kind", list(kinds(body()[0])))
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_however_numbers_are_stored_the_hu_are_the_same(tmp_path: Path, kind: str, suffix: str) -> None:
    hu, _ = body()
    values, options = kinds(hu)[kind]
    if "slope" in options and suffix == ".nii.gz":
        pytest.skip("the header is changed in the plain file")
    path = put(tmp_path / f"ünï 名前{suffix}", values, **options)
    back, geometry, warnings = read_hu(path)
    expected = hu.copy()
    if kind in ("nan", "infinite", "padding", "padding of floats"):
        expected[:, :3] = -1024
    assert back.dtype == np.int16
    assert np.array_equal(back, expected)
    assert geometry.shape == hu.shape
    assert ("are not numbers" in " ".join(warnings)) == (kind in ("nan", "infinite"))
    found = facts(path)
    assert (found.kind, found.hu_range) == (Kind.VOLUME, (int(expected.min()), int(expected.max())))
    assert found.pixels == combine(sha256_array(plane) for plane in expected)
    assert found.warnings == tuple(warnings)


def test_two_phases_are_refused_by_name(tmp_path: Path) -> None:
    hu, _ = body()
    found = facts(put(tmp_path / "x.nii", np.stack([hu, hu + 5], axis=-1)))
    assert found.kind == Kind.BROKEN
    assert "this one has 4 (24 x 24 x 6 x 2)" in found.reason


@pytest.mark.parametrize(("off", "slope"), [(1e-6, None), (9e-4, None), (0.0, 2 / 32767), (0.0, 1 / 3), (0.0, None)])
def test_label_values_a_hair_off_are_rounded_and_that_is_said(tmp_path: Path, off: float, slope: float | None) -> None:
    _, label = body()
    if slope is None:
        noise = np.random.default_rng(0).choice([-off, 0, off], label.shape)
        path = put(tmp_path / "x.nii", (label + noise * (label > 0)).astype(np.float32))
    else:
        path = put(tmp_path / "x.nii", np.rint(label / slope).astype(np.int16), slope)
    found = facts(path)
    assert (found.kind, found.values) == (Kind.LABEL, (1, 2))
    back, _, warnings = read_label(path)
    assert np.array_equal(back, label)
    assert back.dtype == np.uint8
    assert found.warnings == tuple(warnings)
    assert ("they are rounded" in " ".join(warnings)) == (off > 0 or slope is not None)


def test_pull_shows_what_was_rounded(tmp_path: Path) -> None:
    hu, label = body()
    put(tmp_path / "ct.nii.gz", hu)
    put(tmp_path / "label.nii.gz", (label * (1 + 2e-5)).astype(np.float32))
    rows, problems = local_series(tmp_path)
    assert [row.label is not None for row in rows] == [True]
    assert [(problem.source, problem.fatal) for problem in problems] == [("label.nii.gz", False)]
    assert "rounded" in problems[0].reason


@pytest.mark.parametrize(
    ("values", "reason", "as_label"),
    [
        (np.where(body()[1] > 0, 0.4, 0.0), "neither HU nor labels", "not probabilities"),
        (body()[1] * 1.01, "neither HU nor labels", "not probabilities"),
        (np.where(body()[1] > 0, np.nan, 1.0), "not numbers", "no numbers"),
        (np.full((6, 24, 24), np.nan), "not numbers", "no numbers"),
        (np.where(body()[1] > 0, 1e6, -1000.0), "lie above 32767, up to 1e\\+06", "is it a label"),
        (np.arange(-1728, 1728).reshape(6, 24, 24).astype(np.int16).view(np.uint16), "lie above 32767", None),
    ],
)
def test_what_is_neither_hu_nor_a_label_is_named(
    tmp_path: Path, values: np.ndarray, reason: str, as_label: str | None
) -> None:
    path = put(tmp_path / "x.nii.gz", values)
    found = facts(path)
    assert found.kind == Kind.BROKEN
    assert re.search(reason, found.reason)
    if as_label:
        with pytest.raises(LabelError, match=rf"x\.nii\.gz: .*{as_label}"):
            read_label(path)


def test_a_few_voxels_of_nonsense_in_a_ct_are_said(tmp_path: Path) -> None:
    hu, _ = body()
    values = hu.astype(np.float32)
    values[0, 0, :2] = 1e6, np.nan
    back, _, warnings = read_hu(put(tmp_path / "x.nii", values))
    assert back[0, 0, :2].tolist() == [32767, -1024]
    assert warnings == [
        "1 voxels are not numbers; they become air",
        "1 voxels lie above 32767, up to 1e+06; they are cut",
    ]


def test_labels_with_many_values_become_16_bit(tmp_path: Path) -> None:
    values = np.zeros((3, 4, 5), dtype=np.int32)
    values[0, 0, :3], values[2, 3] = (1, 200, 255), 60000
    back, _, _ = read_label(put(tmp_path / "x.nii", values))
    assert back.dtype == np.uint16
    assert np.array_equal(back, values)
    with pytest.raises(LabelError, match="is it a label at all"):
        read_label(put(tmp_path / "y.nii", values - 1))


def test_damage_at_the_very_end_is_found_and_the_place_of_a_ct_is_kept(tmp_path: Path) -> None:
    hu, label = body()
    for name, values in (("ct.nii.gz", hu), ("label.nii.gz", label)):
        path = put(tmp_path / name, values)
        raw = bytearray(path.read_bytes())
        raw[-6] ^= 1
        path.write_bytes(raw)
        found = facts(path)
        assert found.kind == Kind.BROKEN
        assert "fail their check sum" in found.reason
        assert (found.geometry is not None) == (name == "ct.nii.gz")


def test_a_large_volume_of_doubles_is_looked_at_in_little_memory(tmp_path: Path) -> None:
    values = np.zeros((60, 512, 512))
    values[:, 100:400, 100:400] = 900.5
    values[:, :50] = -1000
    path = put(tmp_path / "x.nii", values)
    del values
    tracemalloc.start()
    try:
        assert facts(path).kind == Kind.VOLUME
        assert tracemalloc.get_traced_memory()[1] < 25_000_000  # the doubles are 126 MB
        tracemalloc.reset_peak()
        hu, _, _ = read_hu(path)
        assert tracemalloc.get_traced_memory()[1] < hu.nbytes + 25_000_000
    finally:
        tracemalloc.stop()
