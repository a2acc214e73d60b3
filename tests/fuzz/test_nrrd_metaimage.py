"""Damaged NRRD and MetaImage files: each is read, or named; none ends the process or takes much memory."""

import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from boneseg.errors import LabelError
from boneseg.geometry import Geometry
from boneseg.ingest.facts import Kind, inspect
from boneseg.ingest.volumes import read_hu, read_label
from boneseg.storage.catalogue import ObjectRef
from tests.ct_files import body, place
from tests.fuzz.mutations import mutate
from tests.volume_formats import mha, mhd, nhdr, nrrd, slicer_keys

SHAPE = (8, 20, 24)
HU, LABEL = body(shape=SHAPE)
GRID: Geometry = place(SHAPE, (12, 10, -30))
SECRET = "Jane Doe"
WRITERS = {
    "raw": lambda folder: nrrd(folder / "x.nrrd", HU, GRID, fields={"content": SECRET}, keys={"who": SECRET}),
    "gzip": lambda folder: nrrd(folder / "x.nrrd", HU, GRID, "gzip", {"content": SECRET}),
    "bzip2": lambda folder: nrrd(folder / "x.nrrd", HU, GRID, "bzip2", keys={"who": SECRET}),
    "label": lambda folder: nrrd(folder / "x.nrrd", LABEL, GRID, "gzip", keys={"who": SECRET}),
    "segmentation": lambda folder: nrrd(
        folder / "x.nrrd", LABEL, GRID, "gzip", keys=slicer_keys([(SECRET, 0, 1), ("Bone", 0, 2)])
    ),
    "layers": lambda folder: nrrd(
        folder / "x.nrrd",
        np.stack([LABEL, LABEL // 2], axis=-1),
        GRID,
        keys=slicer_keys([("Body", 0, 1), (SECRET, 0, 2), ("Bone", 1, 1)]),
    ),
    "mha": lambda folder: mha(folder / "x.mha", HU, GRID, {"PatientName": SECRET}),
    "packed mha": lambda folder: mha(folder / "x.mha", HU, GRID, {"PatientName": SECRET}, packed=True),
    "nhdr": lambda folder: nhdr(folder / "x.nhdr", HU, GRID, "gzip"),
    "mhd": lambda folder: mhd(folder / "x.mhd", HU, GRID, packed=True),
}


def check(path: Path) -> Kind:
    data = [other for other in path.parent.iterdir() if other != path][:1]
    refs = [ObjectRef(key=f"raw/{one.name}", size=1, etag="", sha256=one.name) for one in (path, *data)]
    found = inspect(path, refs[0], b"", (data[0], refs[1]) if data else None)
    told = " ".join((found.reason, *found.warnings))
    assert SECRET not in told
    assert "Jane" not in told
    if found.kind in (Kind.BROKEN, Kind.IGNORED, Kind.NAMES):
        assert found.reason or found.kind == Kind.NAMES
        assert "Error" not in found.reason  # a cause, not the name of what some library raised
        assert "\n" not in found.reason
    elif found.kind == Kind.VOLUME:
        read_hu(path, *data)
    elif not found.is_segmentation:
        with suppress(LabelError):  # values below 0, which count only where voxels are read as classes
            read_label(path, *data)
    return found.kind


@pytest.mark.parametrize("writer", WRITERS)
def test_the_files_are_right_before_they_are_damaged(tmp_path: Path, writer: str) -> None:
    expected = Kind.LABEL if writer in ("label", "segmentation", "layers") else Kind.VOLUME
    assert check(WRITERS[writer](tmp_path)) == expected


@pytest.mark.parametrize("writer", WRITERS)
def test_damaged_files_are_read_or_named(tmp_path: Path, writer: str) -> None:
    path = WRITERS[writer](tmp_path)
    good, kinds = path.read_bytes(), set()
    tracemalloc.start()
    try:
        for seed in range(120):
            path.write_bytes(mutate(good, seed, 600))
            kinds.add(check(path))
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    assert Kind.BROKEN in kinds


@pytest.mark.parametrize("writer", ["gzip", "bzip2", "packed mha", "nhdr", "mhd", "segmentation"])
def test_damaged_packed_voxels_are_never_read_as_others(tmp_path: Path, writer: str) -> None:
    path = WRITERS[writer](tmp_path)
    file = next((other for other in tmp_path.iterdir() if other != path), path)
    good = file.read_bytes()
    text = 0 if file != path else max(good.find(b"\n\n") + 2, good.find(b"LOCAL\n") + 6)
    for seed in range(120):
        damaged = good[:text] + mutate(good[text:], seed, len(good))
        file.write_bytes(damaged)
        if check(path) == Kind.VOLUME:
            data = [file] if file != path else []
            np.testing.assert_array_equal(read_hu(path, *data)[0], HU)
