"""Headers that contradict themselves, and places that NIfTI can give in three ways."""

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from boneseg.errors import SeriesError
from boneseg.nifti import is_nifti, read_header, read_volume

SHAPE = (6, 5, 4)
FIELDS = {  # name -> place and kind in a NIfTI-1 header
    "sizeof_hdr": (0, "i"),
    "dim0": (40, "h"),
    "dim1": (42, "h"),
    "dim3": (46, "h"),
    "dim5": (50, "h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "qfac": (76, "f"),
    "pixdim1": (80, "f"),
    "pixdim3": (88, "f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern_b": (256, "f"),
    "qoffset_x": (268, "f"),
    "srow_x0": (280, "f"),
    "srow_x1": (284, "f"),
    "srow_x3": (292, "f"),
    "magic": (344, "4s"),
}


def affine(edges: tuple[float, float, float] = (0.9, 0.8, 3.0)) -> np.ndarray:
    turned = nib.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag(edges)
    return nib.affines.from_matvec(turned, (10, -20, 30))


def write(path: Path, place: np.ndarray | None = None, sform: int = 1, qform: int = 1, **changes: Any) -> Path:
    data = (np.arange(np.prod(SHAPE)) - 1000).reshape(SHAPE).astype(np.int16)
    image = nib.Nifti1Image(data, affine() if place is None else place)
    image.set_sform(image.affine, sform)
    image.set_qform(image.affine, qform)
    nib.save(image, path.with_suffix(".nii"))
    raw = bytearray(path.with_suffix(".nii").read_bytes())
    for name, value in changes.items():
        offset, kind = FIELDS[name]
        struct.pack_into(f"<{kind}", raw, offset, value)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def ras(path: Path) -> np.ndarray:
    """Return the place that we read as NIfTI writes it."""
    lps = read_header(path).geometry.affine[:, [2, 1, 0, 3]]
    return np.diag([-1, -1, 1, 1]) @ lps


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sizeof_hdr": 347}, "sizeof_hdr is 347"),
        ({"magic": b"n+3\0"}, "its mark is wrong"),
        ({"dim0": 9}, "dim is 9, 6, 5, 4"),
        ({"dim1": -6}, "dim is 3, -6"),
        ({"dim3": 0}, "dim is 3, 6, 5, 0"),
        ({"dim0": 5, "dim5": 3}, r"this one has 5 \(6 x 5 x 4 x 1 x 3\)"),
        ({"dim0": 2}, r"this one has 2"),
        ({"dim3": 3}, "it goes on for 60 bytes"),
        ({"dim3": 5}, "the header speaks of 652 bytes, the file has fewer"),
        ({"dim1": 32767, "dim3": 32767}, "would take .* MB of memory"),
        ({"datatype": 5}, "datatype 5 is unknown"),
        ({"datatype": 128, "bitpix": 24}, "voxels are colours; store HU"),
        ({"datatype": 32}, "voxels are complex numbers"),
        ({"datatype": 2}, "datatype 2 has 8 bits, bitpix says 16"),
        ({"bitpix": 32}, "bitpix says 32"),
        ({"vox_offset": 336.0}, "vox_offset is 336"),
        ({"vox_offset": 352.5}, "vox_offset is 352.5"),
        ({"vox_offset": float("nan")}, "vox_offset is nan"),
        ({"vox_offset": 368.0}, "the file has fewer"),
        ({"scl_slope": float("inf")}, "scl_slope is inf"),
        ({"scl_slope": 1e30}, r"scl_slope is 1e\+30"),
        ({"scl_slope": 1.0, "scl_inter": float("nan")}, "scl_inter nan"),
        ({"srow_x3": float("nan")}, "sform holds what is no number"),
        ({"srow_x3": 3e30}, "sform puts the volume 3e.27 m away"),
        ({"srow_x0": 60.0}, "voxels of 60 x .* mm by sform, of 0.9 x 0.8 x 3 mm by qform and pixdim"),
        ({"sform_code": 0, "quatern_b": 5.0}, "qform is no rotation"),
        ({"sform_code": 0, "pixdim1": -1.0}, "qform is no rotation"),
        ({"sform_code": 0, "qfac": 3.0}, "qform is no rotation"),
        ({"sform_code": 0, "pixdim3": 1e-30}, "no possible voxel size"),
        ({"sform_code": 0, "pixdim3": 1000.0}, "no possible voxel size"),
        ({"sform_code": 0, "qform_code": 0, "pixdim1": 0.0}, "no possible voxel size"),
        ({"sform_code": -3}, "sform_code are 1 and -3"),
        ({"qform_code": 257}, "qform_code and sform_code are 257"),
        ({"xyzt_units": 1}, "no possible voxel size .* mm by sform in metres"),
    ],
)
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_a_header_that_contradicts_itself_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], why: str, name: str
) -> None:
    path = write(tmp_path / name, **changes)
    assert is_nifti(path)
    if name.endswith(".gz"):
        why = why.replace("it goes on for 60 bytes", "it goes on")
    with pytest.raises(SeriesError, match=rf"^{name}: .*{why}"):
        read_volume(path)


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 1), (2, 1), (1, 1), (0, 0)])
@pytest.mark.parametrize("flipped", [False, True])
def test_the_place_is_where_nibabel_sees_it(tmp_path: Path, sform: int, qform: int, flipped: bool) -> None:
    place = affine((-0.9, 0.8, 3.0) if flipped else (0.9, 0.8, 3.0))
    path = write(tmp_path / "x.nii", place, sform, qform)
    np.testing.assert_allclose(ras(path), nib.load(path).affine, atol=1e-5)
    warned = " ".join(read_header(path).warnings)
    assert ("left and right are a guess" in warned) == (sform == qform == 0)


def test_sform_counts_before_qform_and_a_difference_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nii", qoffset_x=13.0)
    assert read_header(path).warnings == ("sform and qform put the same voxel up to 3 mm apart; sform is used",)
    np.testing.assert_allclose(ras(path), affine(), atol=1e-5)
    assert read_header(write(tmp_path / "x.nii", qoffset_x=10.00001)).warnings == ()
    (warning,) = read_header(write(tmp_path / "x.nii", quatern_b=float("nan"))).warnings
    assert "qform is damaged" in warning


@pytest.mark.parametrize(("unit", "factor"), [(1, 1000.0), (3, 0.001)])
@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (1, 0), (0, 0)])
def test_metres_and_micrometres_become_millimetres(
    tmp_path: Path, unit: int, factor: float, codes: tuple[int, int]
) -> None:
    wanted = affine()
    stored = wanted.copy()
    stored[:3] /= factor
    path = write(tmp_path / "x.nii", stored, *codes, xyzt_units=unit | 8)
    expected = np.diag([factor] * 3 + [1.0]) @ nib.load(path).affine
    np.testing.assert_allclose(ras(path), expected, rtol=1e-5, atol=1e-4)
    assert any("converted to millimetres" in warning for warning in read_header(path).warnings)


def test_axes_in_one_plane_are_no_volume(tmp_path: Path) -> None:
    flat = np.diag([1.0, 1.0, 1.0, 1.0])
    flat[:3, 1] = (0.999, 0.04, 0)
    with pytest.raises(SeriesError, match="do not span a volume"):
        read_header(write(tmp_path / "x.nii", flat, qform=0))


@pytest.mark.parametrize(
    ("slope", "inter", "scale"),
    [(0.0, 0.0, (1, 0)), (float("nan"), float("nan"), (1, 0)), (2.0, -24.0, (2, -24)), (0.0, -24.0, (1, 0))],
)
def test_a_slope_of_zero_or_none_scales_nothing(
    tmp_path: Path, slope: float, inter: float, scale: tuple[float, float]
) -> None:
    path = write(tmp_path / "x.nii", scl_slope=slope, scl_inter=inter)
    stored = (np.arange(np.prod(SHAPE)) - 1000).reshape(SHAPE).transpose(2, 1, 0)
    assert np.array_equal(read_volume(path)[0], stored * scale[0] + scale[1])
    assert np.array_equal(read_volume(path)[0], np.asanyarray(nib.load(path).dataobj).transpose(2, 1, 0))
    assert bool(read_header(path).warnings) == (slope == 0 and inter != 0)


def test_another_format_with_the_size_of_a_header_is_not_nifti(tmp_path: Path) -> None:
    analyze = write(tmp_path / "x.hdr.nii", magic=b"\0\0\0\0")
    pair = write(tmp_path / "y.hdr.nii", magic=b"ni1\0")
    assert not is_nifti(analyze)
    assert not is_nifti(pair)
