import gzip
import resource
import shutil
import tracemalloc
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from boneseg.errors import SeriesError
from boneseg.geometry import Geometry, axial, to_axial
from boneseg.nifti import is_nifti, read_header, read_pieces, read_volume, write_volume

SHAPE = (3, 4, 5)


def tilted() -> Geometry:
    affine = axial(SHAPE, (3.0, 1.0, 2.0)).affine.copy()
    affine[:3, 3] = (10, -20, 30)
    affine[1, 0] = 0.4  # a gantry tilt: slices shift to the back as they go up
    return Geometry(SHAPE, affine)


@pytest.fixture
def voxels() -> np.ndarray:
    return np.arange(60, dtype=np.int16).reshape(SHAPE) - 30


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_volume_comes_back(tmp_path: Path, voxels: np.ndarray, name: str) -> None:
    write_volume(tmp_path / name, voxels, tilted())
    back, geometry = read_volume(tmp_path / name)
    assert back.dtype == np.int16
    assert np.array_equal(back, voxels)
    assert geometry == tilted() == read_header(tmp_path / name).geometry
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_content_decides_not_the_name(tmp_path: Path, voxels: np.ndarray, name: str) -> None:
    write_volume(tmp_path / name, voxels, tilted())
    bare = shutil.copy(tmp_path / name, tmp_path / "0123abcd")
    assert is_nifti(bare)
    assert np.array_equal(read_volume(bare)[0], voxels)
    (tmp_path / "fake.nii").write_bytes(b"x" * 1000)
    (tmp_path / "fake.nii.gz").write_bytes(b"\x1f\x8b" + b"x" * 1000)
    (tmp_path / "empty.nii").write_bytes(b"")
    assert not any(is_nifti(tmp_path / fake) for fake in ("fake.nii", "fake.nii.gz", "empty.nii"))


def test_values_lie_where_simpleitk_sees_them(tmp_path: Path, voxels: np.ndarray) -> None:
    image = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing((2.0, 1.0, 3.0))
    image.SetOrigin((10, -20, 30))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))  # columns to the back, rows to the head, slices to the left
    SimpleITK.WriteImage(image, str(tmp_path / "x.nii.gz"))
    back, geometry = read_volume(tmp_path / "x.nii.gz")
    for index in ((0, 0, 0), (2, 3, 4), (1, 2, 0)):
        value = back[index]
        x, y, z = geometry.to_patient(np.array([index], dtype=float))[0]
        assert image[image.TransformPhysicalPointToIndex((x, y, z))] == value


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_left_stays_left_in_every_order_of_axes(tmp_path: Path, order: tuple[int, int, int]) -> None:
    """A file of nibabel in any order of axes and a file of ours give the same point for the same voxel."""
    ras = np.diag([-2.0, -1.0, 3.0, 1.0])
    ras[:3, 3] = (-10, 20, 30)
    data = np.zeros((5, 4, 3), dtype=np.int16)
    data[4, 0, 1] = 7
    point = ras @ (4, 0, 1, 1)  # R+ A+ S+
    affine = np.eye(4)
    affine[:3, :3] = ras[:3, :3][:, order]
    affine[:3, 3] = ras[:3, 3]
    nib.save(nib.Nifti1Image(data.transpose(order), affine), tmp_path / "x.nii")
    voxels, geometry = read_volume(tmp_path / "x.nii")
    target, reorientation = to_axial(geometry)
    found = np.argwhere(reorientation.apply(voxels) == 7).astype(float)
    assert target.to_patient(found)[0] == pytest.approx([-point[0], -point[1], point[2]])


def test_header_scaling_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(2, -1000)
    nib.save(image, tmp_path / "x.nii")
    raw = np.asanyarray(nib.load(tmp_path / "x.nii").dataobj)
    assert np.array_equal(read_volume(tmp_path / "x.nii")[0], raw.transpose(2, 1, 0))


def test_nifti_2_and_a_fourth_axis_of_one_are_read(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    nib.save(nib.Nifti2Image(data, np.eye(4)), tmp_path / "x.nii.gz")
    voxels, geometry = read_volume(tmp_path / "x.nii.gz")
    assert geometry.shape == (4, 3, 2)
    assert np.array_equal(voxels, data[..., 0].transpose(2, 1, 0))


def test_series_over_time_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4, 5), dtype=np.int16), np.eye(4)), tmp_path / "x.nii")
    with pytest.raises(SeriesError, match=r"x\.nii: a volume must have 3 dimensions, this one has 4"):
        read_volume(tmp_path / "x.nii")


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_cut_file_is_named_but_tells_its_place(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(-1000, 1000, (20, 40, 40)).astype(np.int16)
    write_volume(path, noise, axial(noise.shape, (1, 1, 1)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SeriesError, match=r"x\.nii.*damaged or cut short"):
        read_volume(path)
    assert read_header(path).geometry.shape == noise.shape
    pieces = read_pieces(path, read_header(path))
    assert np.array_equal(next(pieces).values, noise[0])  # enough to tell that it was CT
    with pytest.raises(SeriesError, match="damaged or cut short"):
        list(pieces)


def test_file_that_is_no_nifti_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.nii").write_bytes(b"x" * 1000)
    with pytest.raises(SeriesError, match=r"x\.nii: not a readable NIfTI file"):
        read_volume(tmp_path / "x.nii")


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, voxels: np.ndarray) -> None:
    write_volume(tmp_path / "x.nii", voxels, tilted())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # as if the disk were full
    try:
        with pytest.raises(OSError, match="File too large"):
            write_volume(tmp_path / "x.nii", np.zeros((100, 100, 100), dtype=np.int16), tilted())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert np.array_equal(read_volume(tmp_path / "x.nii")[0], voxels)
    assert [path.name for path in tmp_path.iterdir()] == ["x.nii"]


def test_a_flipped_bit_in_a_compressed_file_is_found_wherever_it_is(tmp_path: Path, voxels: np.ndarray) -> None:
    """Also in the check sum, which stands behind the last voxel."""
    path = tmp_path / "x.nii.gz"
    write_volume(path, voxels, tilted())
    whole = path.read_bytes()
    harmless = set(range(4, 10))  # date, and by which system it was compressed
    for place in sorted(set(range(2, len(whole), 7)) | set(range(len(whole) - 8, len(whole)))):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        if place in harmless:
            assert np.array_equal(read_volume(path)[0], voxels)
        else:
            with pytest.raises(SeriesError, match=r"^x\.nii\.gz: "):
                read_volume(path)


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (b"garbage", "something else follows"),
        (gzip.compress(b"more", mtime=0), "it goes on for 4 bytes or more"),
        (b"\0" * 512, None),
    ],
)
def test_what_follows_the_voxels_is_not_passed_over(
    tmp_path: Path, voxels: np.ndarray, extra: bytes, why: str | None
) -> None:
    path = tmp_path / "x.nii.gz"
    write_volume(path, voxels, tilted())
    path.write_bytes(path.read_bytes() + extra)
    if why is None:
        assert np.array_equal(read_volume(path)[0], voxels)  # padding, as gzip itself allows
    else:
        with pytest.raises(SeriesError, match=why):
            read_volume(path)


def test_zeros_up_to_the_next_block_of_a_medium_are_no_damage(tmp_path: Path, voxels: np.ndarray) -> None:
    path = tmp_path / "x.nii"
    write_volume(path, voxels, axial(voxels.shape, (1, 1, 1)))
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(-len(whole) % 512))
    assert np.array_equal(read_volume(path)[0], voxels)
    path.write_bytes(whole + bytes(-len(whole) % 512 - 1) + b"x")
    with pytest.raises(SeriesError, match="it goes on for"):
        read_volume(path)


@pytest.mark.parametrize("shape", [(3, 700, 900), (2, 3, 300_000), (5, 2, 2)])
def test_pieces_make_up_the_volume(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    nib.save(nib.Nifti2Image(values.transpose(2, 1, 0), np.diag([0.1, 1, 1, 1])), tmp_path / "x.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "x.nii.gz")[0], values)


def test_a_small_file_that_unpacks_to_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape((1000, 1000, 1500))
    header.set_data_dtype(np.uint8)
    header.set_sform(np.diag([1.0, 1.0, 1.0, 1.0]), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(tmp_path / "bomb.nii.gz", "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(20):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(SeriesError, match="the file has fewer"):
            read_volume(tmp_path / "bomb.nii.gz")
        with pytest.raises(SeriesError, match=r"the compressed data end|the file has fewer"):
            for _ in read_pieces(tmp_path / "bomb.nii.gz", read_header(tmp_path / "bomb.nii.gz")):
                pass
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
