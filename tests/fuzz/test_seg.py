"""Damaged DICOM SEG files: each is read as pydicom reads it, or named; none ends the pull or takes much memory."""

import resource
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.segmentation import read_segmentation
from boneseg.errors import LabelError
from boneseg.geometry import axial
from boneseg.ingest.facts import Kind, inspect
from boneseg.storage.catalogue import ObjectRef
from tests.ct_files import body
from tests.fuzz.mutations import mutate

SHAPE = (5, 16, 20)
SEEDS = range(60)
KINDS = ("BINARY", "FRACTIONAL", "LABELMAP", "deflated", "rle", "no references")


@cache
def originals() -> tuple[bytes, ...]:
    hu, label = body(shape=SHAPE)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = write_ct_series(Path(folder), hu, axial(SHAPE, (3.0, 0.9, 0.8)), identity="a")
        images = [pydicom.dcmread(path) for path in paths]
        made = [
            _seg(images, label, kind) for kind in ("BINARY", "FRACTIONAL", "LABELMAP", "BINARY", "LABELMAP", "BINARY")
        ]
        made[3].file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        made[4].compress(RLELossless)
        del made[5].ReferencedSeriesSequence
        data = []
        for number, seg in enumerate(made):
            seg.save_as(Path(folder) / f"{number}.seg")
            data.append((Path(folder) / f"{number}.seg").read_bytes())
    return tuple(data)


def _seg(images: list[Any], label: np.ndarray, kind: str) -> Any:
    pixels = (label == 2).astype(np.float64) * 0.75 if kind == "FRACTIONAL" else label
    names = ["bone"] if kind == "FRACTIONAL" else ["outline", "bone"]
    segments = [
        hd.seg.SegmentDescription(number, name, codes.SCT.Tissue, codes.SCT.Bone, "MANUAL")
        for number, name in enumerate(names, 1)
    ]
    return hd.seg.Segmentation(
        images,
        pixels,
        kind,
        segments,
        series_instance_uid="1.2.3",
        series_number=2,
        sop_instance_uid="1.2.4",
        instance_number=1,
        manufacturer="other",
        manufacturer_model_name="other",
        software_versions="1",
        device_serial_number="1",
    )


Counts = Counter[tuple[int, tuple[int, ...]]]


def by_pydicom(path: Path) -> tuple[Counts, bool]:
    """Count voxels by segment and place, straight from the file; and say whether segments overlap."""
    data = pydicom.dcmread(path, force=True)
    if not data.file_meta.get("TransferSyntaxUID"):
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    drawn: dict[tuple[int, ...], Any] = {}
    shared = data.get("SharedFunctionalGroupsSequence", [pydicom.Dataset()])[0]
    frames = data.pixel_array.reshape(-1, data.Rows, data.Columns)
    found: Counts = Counter()
    for group, frame in zip(data.PerFrameFunctionalGroupsSequence, frames, strict=True):
        position = (group.get("PlanePositionSequence") or shared.PlanePositionSequence)[0].ImagePositionPatient
        place = tuple(round(float(value)) for value in position)
        if data.SegmentationType == "LABELMAP":
            for value, count in zip(*np.unique(frame[frame > 0], return_counts=True), strict=True):
                found[int(value), place] += int(count)
            continue
        identity = group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        half = data.MaximumFractionalValue / 2 if data.SegmentationType == "FRACTIONAL" else 0.5
        found[int(identity[0].ReferencedSegmentNumber), place] += int((frame >= half).sum())
        drawn[place] = drawn.get(place, 0) + (frame >= half)
    return +found, any(times.max() > 1 for times in drawn.values())


def check(path: Path) -> str:
    found = inspect(path, ObjectRef(key=f"raw/{path.name}", size=1, etag="", sha256=""), b"")
    if found.kind in (Kind.BROKEN, Kind.IGNORED):
        assert found.reason
        assert "Error" not in found.reason
        with pytest.raises(LabelError):
            read_segmentation(path)
        return found.kind
    assert found.kind == Kind.LABEL
    volume, geometry, names = read_segmentation(path)
    assert found.geometry is not None
    assert geometry == found.geometry.geometry()
    mine: Counts = Counter()
    for index, plane in enumerate(volume):
        x, y, z = (round(float(value)) for value in geometry.to_patient(np.array([[index, 0.0, 0.0]]))[0])
        for value in np.unique(plane[plane > 0]).tolist():
            assert value in names
            mine[value, (x, y, z)] += int((plane == value).sum())
    theirs, overlap = by_pydicom(path)
    assert mine <= theirs if overlap else mine == theirs
    assert found.values == tuple(sorted({value for value, _ in theirs}))
    return found.kind


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_as_pydicom_reads_them_or_named(tmp_path: Path) -> None:
    kinds = set()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in SEEDS:
        (tmp_path / "x.dcm").write_bytes(damaged(seed))
        kinds.add(check(tmp_path / "x.dcm"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert {Kind.LABEL, Kind.BROKEN} <= kinds


def damaged(seed: int) -> bytes:
    data = originals()[seed % len(KINDS)]
    return mutate(data, seed, len(data))


@pytest.mark.parametrize("index", range(len(KINDS)), ids=KINDS)
def test_the_files_are_right_before_they_are_damaged(tmp_path: Path, index: int) -> None:
    (tmp_path / "x.dcm").write_bytes(originals()[index])
    assert check(tmp_path / "x.dcm") == Kind.LABEL
