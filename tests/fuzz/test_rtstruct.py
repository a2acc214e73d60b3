"""Damaged RTSTRUCT files: each is read, or named in a sentence; none ends the pull, and what is found can be drawn."""

import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from boneseg.dicom.contours import read_structures
from boneseg.errors import LabelError
from boneseg.geometry import axial
from boneseg.ingest.facts import Kind, inspect
from boneseg.ingest.rtstruct_regions import read_regions
from boneseg.storage.catalogue import FileKind, ObjectRef
from tests.dicom.contour_files import contours_of, rtstruct
from tests.dicom.test_contours import blobs
from tests.fuzz.mutations import mutate

GEOMETRY = axial((5, 20, 20), (2.0, 1.0, 1.0))
SEEDS = range(240)
KINDS = ("explicit", "undefined lengths", "implicit", "deflated")


@cache
def originals() -> tuple[bytes, ...]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        square = np.array([[1.0, 1, 2], [5, 1, 2], [5, 5, 2]])
        regions = {"femur": contours_of(blobs(0, (5, 20, 20)), GEOMETRY), "x": [square]}
        path = rtstruct(folder / "0.dcm", regions, kinds={"x": "EXTERNAL"}, frame="1.2.3")
        for number in (1, 2, 3):
            data = pydicom.dcmread(path)
            if number == 1:
                _lengths_undefined(data)
            else:
                syntax = ImplicitVRLittleEndian if number == 2 else DeflatedExplicitVRLittleEndian
                data.file_meta.TransferSyntaxUID = syntax
            data.save_as(folder / f"{number}.dcm", implicit_vr=number == 2, little_endian=True)
        return tuple((folder / f"{number}.dcm").read_bytes() for number in range(len(KINDS)))


def _lengths_undefined(data: Dataset) -> None:
    for element in data:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                _lengths_undefined(item)


def check(path: Path) -> str:
    found = inspect(path, ObjectRef(key=f"raw/{path.name}", size=1, etag="", sha256=""), b"")
    if found.kind != Kind.LABEL:
        assert found.reason
        assert "Error" not in found.reason
        if found.kind == Kind.BROKEN:
            with pytest.raises(LabelError):
                read_structures(path)
        return found.kind
    assert found.file == FileKind.RTSTRUCT
    assert found.values
    assert found.outermost
    with suppress(LabelError):  # a point that was moved leaves the plane of its contour
        layers = read_regions(path, GEOMETRY, None)
        drawn = {int(value) for layer in layers.values for value in np.unique(layer)} - {0}
        assert drawn <= set(found.values)
    return found.kind


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_named(tmp_path: Path) -> None:
    kinds = set()
    for seed in SEEDS:
        data = originals()[seed % len(KINDS)]
        (tmp_path / "x.dcm").write_bytes(mutate(data, seed, len(data)))
        kinds.add(check(tmp_path / "x.dcm"))
    assert {Kind.LABEL, Kind.BROKEN} <= kinds


@pytest.mark.parametrize("index", range(len(KINDS)), ids=KINDS)
def test_the_files_are_right_before_they_are_damaged(tmp_path: Path, index: int) -> None:
    (tmp_path / "x.dcm").write_bytes(originals()[index])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check(tmp_path / "x.dcm") == Kind.LABEL
    layers = read_regions(tmp_path / "x.dcm", GEOMETRY, lambda name: name == "femur")
    np.testing.assert_array_equal(layers.values[0] == 1, blobs(0, (5, 20, 20)))
