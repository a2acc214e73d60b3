"""Voxels come back as they were stored, in every packing; what was damaged or cut is named, not read."""

import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from boneseg.errors import SeriesError
from boneseg.geometry import axial
from boneseg.ingest.volume_files import VolumeFile, open_volume
from tests.volume_formats import PACK, mha, mhd, nhdr, nrrd, nrrd_header

SHAPE = (5, 12, 10)
GEOMETRY = axial(SHAPE, (3, 1, 1))
HU = np.random.default_rng(0).integers(-1000, 2000, SHAPE).astype(np.int16)


def read(volume: VolumeFile) -> NDArray[np.generic]:
    volume.check_length()
    pieces = list(volume.pieces())
    values = np.empty(volume.geometry.shape, dtype=pieces[0].values.dtype)
    for piece in pieces:
        values[piece.slice, piece.row : piece.row + len(piece.values)] = piece.values
    return values


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("code", ["i2", "u1", "u2", "i4", "f4", "f8", "i1"])
def test_nrrd_voxels_come_back(tmp_path: Path, encoding: str, order: str, code: str) -> None:
    values = (HU % 100).astype(code)
    stored = values.astype(values.dtype.newbyteorder("<" if order == "little" else ">"))
    head = nrrd_header(values, GEOMETRY, encoding, {"endian": order})
    (tmp_path / "x.nrrd").write_bytes(head + b"\n" + PACK[encoding](stored.tobytes()))
    back = read(open_volume([tmp_path / "x.nrrd"]))
    np.testing.assert_array_equal(back, values)
    if encoding != "bzip2":  # which SimpleITK does not read
        image = SimpleITK.ReadImage(str(tmp_path / "x.nrrd"))
        np.testing.assert_array_equal(back, SimpleITK.GetArrayFromImage(image))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("msb", ["False", "True"])
@pytest.mark.parametrize("code", ["i2", "u1", "u2", "i4", "f4"])
def test_metaimage_voxels_come_back(tmp_path: Path, packed: bool, msb: str, code: str) -> None:
    values = (HU % 100).astype(code)
    stored = values.astype(values.dtype.newbyteorder(">")) if msb == "True" else values
    path = mha(tmp_path / "x.mha", values, GEOMETRY, {"BinaryDataByteOrderMSB": msb}, packed=packed)
    head = path.read_bytes().partition(b"LOCAL\n")[0] + b"LOCAL\n"
    body = zlib.compress(stored.tobytes()) if packed else stored.tobytes()
    path.write_bytes(head.replace(b"CompressedDataSize", b"Comment") + body)
    back = read(open_volume([path]))
    np.testing.assert_array_equal(back, values)
    if not packed:
        np.testing.assert_array_equal(back, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))


@pytest.mark.parametrize("suffix", ["nrrd", "nhdr", "mha", "mhd"])
@pytest.mark.parametrize("packed", [False, True])
def test_what_simpleitk_writes_is_read(tmp_path: Path, suffix: str, packed: bool) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(HU), str(tmp_path / f"x.{suffix}"), useCompression=packed)
    path, *data = sorted(tmp_path.iterdir(), key=lambda path: path.suffix != f".{suffix}")
    np.testing.assert_array_equal(read(open_volume([path, *data])), HU)


def test_bytes_before_the_voxels_are_passed_over(tmp_path: Path) -> None:
    for encoding in ("raw", "gzip", "bzip2"):
        head = nrrd_header(HU, GEOMETRY, encoding, {"byte skip": "7"})
        (tmp_path / "x.nrrd").write_bytes(head + b"\n" + PACK[encoding](b"1234567" + HU.tobytes()))
        np.testing.assert_array_equal(read(open_volume([tmp_path / "x.nrrd"])), HU)
    path = nrrd(tmp_path / "y.nhdr", HU, GEOMETRY, fields={"byte skip": "-1", "data file": "y.raw"})
    (tmp_path / "y.raw").write_bytes(b"something else" + HU.tobytes())
    np.testing.assert_array_equal(read(open_volume([path, tmp_path / "y.raw"])), HU)
    for size, start in (("-1", b"something else"), ("3", b"abc")):
        path = mhd(tmp_path / "z.mhd", HU, GEOMETRY)
        path.write_text(path.read_text().replace("ElementDataFile", f"HeaderSize = {size}\nElementDataFile"))
        (tmp_path / "z.raw").write_bytes(start + HU.tobytes())
        np.testing.assert_array_equal(read(open_volume([path, tmp_path / "z.raw"])), HU)


def test_several_members_and_padding_of_archives_are_read(tmp_path: Path) -> None:
    data = HU.tobytes()
    for encoding in ("gzip", "bzip2"):
        head, pack = nrrd_header(HU, GEOMETRY, encoding), PACK[encoding]
        body = pack(data[:100]) + pack(data[100:]) + bytes(300)
        (tmp_path / "x.nrrd").write_bytes(head + b"\n" + body)
        np.testing.assert_array_equal(read(open_volume([tmp_path / "x.nrrd"])), HU)


WRITERS: dict[str, Callable[[Path], list[Path]]] = {
    "raw": lambda folder: [nrrd(folder / "x.nrrd", HU, GEOMETRY)],
    "gzip": lambda folder: [nrrd(folder / "x.nrrd", HU, GEOMETRY, "gzip")],
    "bzip2": lambda folder: [nrrd(folder / "x.nrrd", HU, GEOMETRY, "bzip2")],
    "detached": lambda folder: [nhdr(folder / "x.nhdr", HU, GEOMETRY, "gzip"), folder / "x.raw.gz"],
    "mha": lambda folder: [mha(folder / "x.mha", HU, GEOMETRY)],
    "packed mha": lambda folder: [mha(folder / "x.mha", HU, GEOMETRY, packed=True)],
    "mhd": lambda folder: [mhd(folder / "x.mhd", HU, GEOMETRY, packed=True), folder / "x.zraw"],
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("damage", ["cut", "a byte less", "more", "one bit"])
def test_damage_is_named(tmp_path: Path, kind: str, damage: str) -> None:
    paths = WRITERS[kind](tmp_path)
    data = bytearray(paths[-1].read_bytes())
    if damage == "cut":
        del data[len(data) * 2 // 3 :]
    elif damage == "a byte less":
        del data[-1]
    elif damage == "more":
        data += b"more"
    else:
        data[-200] ^= 4
    paths[-1].write_bytes(data)
    if damage == "one bit" and kind in ("raw", "mha"):
        read(open_volume(paths))  # nothing tells
        return
    with pytest.raises(SeriesError, match="is damaged or cut short") as caught:
        read(open_volume(paths))
    assert str(caught.value).startswith(f"{paths[0].name}: ")


def test_a_small_file_that_claims_much_takes_no_memory(tmp_path: Path) -> None:
    head = nrrd_header(HU, GEOMETRY, "gzip", {"sizes": "1000 1000 1000"})
    (tmp_path / "x.nrrd").write_bytes(head + b"\n" + PACK["gzip"](bytes(10_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(SeriesError, match="cannot unpack to as many"):
            list(open_volume([tmp_path / "x.nrrd"]).pieces())
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_large_volume_is_read_in_little_memory(tmp_path: Path) -> None:
    shape = (60, 256, 256)
    path = nrrd(tmp_path / "x.nrrd", np.zeros(shape, dtype=np.float64), axial(shape, (3, 1, 1)), "gzip")
    tracemalloc.start()
    try:
        assert sum(piece.values.size for piece in open_volume([path]).pieces()) == 60 * 256 * 256
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
