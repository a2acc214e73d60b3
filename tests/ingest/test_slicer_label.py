"""Segmentations of 3D Slicer: layers, names, codes, numbers of segments, and where a crop may lie."""

from pathlib import Path

import numpy as np
import pytest

from boneseg.errors import LabelError
from boneseg.geometry import Geometry
from boneseg.ingest.facts import Kind, ObjectFacts, inspect
from boneseg.ingest.label_file import local_file, read_layers
from boneseg.ingest.local import local_series
from boneseg.ingest.read import read_labelled
from boneseg.nifti import write_volume
from boneseg.scheme.builtin import PELVIS
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.catalogue import FileKind, LabelRow, ObjectRef
from tests.ct_files import body, nifti, place
from tests.ingest.label_files import fatal, read
from tests.volume_formats import nrrd, part_of, slicer_keys

GRID = place()
LABEL = body()[1]
BONE = LABEL == 2
LEFT, RIGHT = BONE.copy(), BONE.copy()
LEFT[:, :, 11:], RIGHT[:, :, :11] = False, False
FEMUR_LEFT = "SCT^85756007^Tissue~SCT^272673000^Bone~^^~Anatomic codes~SCT^71341001^Femur~SCT^7771000^Left"
FEMUR_RIGHT = "SCT^123037004^Anatomical Structure~SCT^71341001^~SCT^24028007^~Anatomic codes~^^~^^"
TISSUE = "SCT^85756007^Tissue~SCT^85756007^Tissue~^^~Anatomic codes~^^~^^"


def facts(path: Path) -> ObjectFacts:
    return inspect(path, ObjectRef(key=str(path), size=1, etag="", sha256=""), b"")


def layered(*masks: np.ndarray) -> np.ndarray:
    return np.stack([mask.astype(np.uint8) for mask in masks], axis=-1)


def test_segments_have_numbers_of_their_own_also_where_layers_repeat_values(tmp_path: Path) -> None:
    layers = layered(LEFT + 2 * RIGHT, BONE)
    keys = slicer_keys([("femur left", 0, 1), ("femur right", 0, 2), ("all bone", 1, 1)])
    path = nrrd(tmp_path / "x.seg.nrrd", layers, GRID, keys=keys)
    found = facts(path)
    assert (found.kind, found.values) == (Kind.LABEL, (1, 2, 3))
    assert found.segments == {1: "femur left", 2: "femur right", 3: "all bone"}
    one, two = read_layers(local_file, LabelRow(kind=FileKind.NRRD, object=found.ref, values=found.values))
    assert dict(one.names or {}) == {1: "femur left", 2: "femur right"}
    assert dict(two.names or {}) == {3: "all bone"}
    np.testing.assert_array_equal(one.values, LEFT + 2 * RIGHT)
    np.testing.assert_array_equal(two.values, 3 * BONE)


def test_values_that_differ_stay_the_numbers(tmp_path: Path) -> None:
    keys = slicer_keys([("femur left", 0, 7), ("femur right", 0, 300)])
    values = (7 * LEFT + 300 * RIGHT).astype(np.int16)
    found = facts(nrrd(tmp_path / "x.seg.nrrd", values, GRID, keys=keys))
    assert found.values == (7, 300)
    assert found.segments == {7: "femur left", 300: "femur right"}


def test_codes_tell_where_names_say_nothing(tmp_path: Path) -> None:
    keys = slicer_keys(
        [("Segment_1", 0, 1), ("Segment_2", 0, 2), ("femur right", 0, 3), ("Segment_4", 0, 4)],
        [FEMUR_LEFT, FEMUR_RIGHT, FEMUR_LEFT, TISSUE],
    )
    found = facts(nrrd(tmp_path / "x.seg.nrrd", (LEFT + 2 * RIGHT).astype(np.uint8), GRID, keys=keys))
    assert found.segments == {1: "Bone Femur Left", 2: "Femur Right", 3: "femur right", 4: "Segment_4"}


def test_bones_are_told_apart_by_names_and_codes_where_they_overlap(tmp_path: Path) -> None:
    nifti(tmp_path / "ct.nii.gz")
    both = LEFT | (BONE & (np.arange(24) < 13))  # reaches into the right one
    keys = slicer_keys([("Segment_1", 0, 1), ("Segment_2", 1, 1)], [FEMUR_RIGHT, FEMUR_LEFT])
    nrrd(tmp_path / "x.seg.nrrd", layered(RIGHT, both), GRID, keys=keys)
    (row,), _ = local_series(tmp_path)
    found = read_labelled(local_file, row, PrepareSettings(), PELVIS)
    np.testing.assert_array_equal(found.label == PELVIS.names.index("femur right"), RIGHT)
    np.testing.assert_array_equal(found.label == PELVIS.names.index("femur left"), both & ~RIGHT)
    assert any("are marked as two bones" in warning for warning in found.warnings)


def test_segmentations_of_early_versions_have_a_layer_a_segment(tmp_path: Path) -> None:
    keys = {
        key: value
        for key, value in slicer_keys([("femur left", 0, 1), ("femur right", 1, 1)]).items()
        if not key.endswith(("_Layer", "_LabelValue"))
    }
    found = facts(nrrd(tmp_path / "x.seg.nrrd", layered(LEFT, RIGHT), GRID, keys=keys))
    assert (found.values, found.segments) == ((1, 2), {1: "femur left", 2: "femur right"})


@pytest.mark.parametrize("cut", [[slice(1, 3), slice(8, 12), slice(9, 14)], [slice(2, 3), slice(8, 9), slice(9, 11)]])
def test_a_crop_covers_the_whole_series(tmp_path: Path, cut: list[slice]) -> None:
    nifti(tmp_path / "ct.nii.gz")
    part, where = part_of(BONE.astype(np.uint8), GRID, cut)
    nrrd(tmp_path / "x.seg.nrrd", part, where, keys=slicer_keys([("bone", 0, 1)]))
    (row,), problems = local_series(tmp_path)
    assert problems == ()
    wanted = np.zeros(BONE.shape, dtype=bool)
    wanted[tuple(cut)] = BONE[tuple(cut)]
    found = read(row)
    assert len(found.label) == 6
    np.testing.assert_array_equal(found.label == 2, wanted)


@pytest.mark.parametrize("by", [(0.0, 0.5, 0.0), (0.0, 0.0, 15.0), (0.0, -9.0, 0.0), (30.0, 0.0, 0.0)])
def test_a_crop_beside_the_voxels_of_the_series_is_refused(tmp_path: Path, by: tuple[float, float, float]) -> None:
    nifti(tmp_path / "ct.nii.gz")
    part, where = part_of(BONE.astype(np.uint8), GRID, [slice(1, 4), slice(8, 12), slice(9, 14)])
    moved = where.affine.copy()
    moved[:3, 3] += np.array(by)[::-1]
    nrrd(tmp_path / "x.seg.nrrd", part, Geometry(where.shape, moved), keys=slicer_keys([("bone", 0, 1)]))
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert fatal(problems) == ["x.seg.nrrd"]


def test_a_crop_without_segments_is_refused_as_before(tmp_path: Path) -> None:
    nifti(tmp_path / "ct.nii.gz")
    part, where = part_of(BONE.astype(np.uint8), GRID, [slice(1, 4), slice(8, 12), slice(9, 14)])
    write_volume(tmp_path / "label.nii.gz", part, where)
    (row,), problems = local_series(tmp_path)
    assert row.label is None
    assert "covers only rows" in problems[0].reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Segmentation_MasterRepresentation": "Closed surface"}, "no binary labelmap"),
        ({"Segmentation_SourceRepresentation": "Fractional labelmap"}, "no binary labelmap"),
        ({"Segment0_Layer": "2"}, "a layer that is not there"),
        ({"Segment0_Layer": "Doe^Jane"}, "a layer that is not there"),
        ({"Segment0_LabelValue": "0"}, "no value from 1 to 65535"),
        ({"Segment0_LabelValue": "2"}, "the same value in the same layer"),
        ({"Segment1_LabelValue": "3"}, "holds a value of no segment"),
    ],
)
def test_segmentations_that_contradict_themselves_are_named(
    tmp_path: Path, changes: dict[str, str], reason: str
) -> None:
    keys = slicer_keys([("Doe^Jane", 0, 1), ("femur right", 0, 2)]) | changes
    path = nrrd(tmp_path / "x.seg.nrrd", (LEFT + 2 * RIGHT).astype(np.uint8), GRID, keys=keys)
    found = facts(path)
    assert found.kind == Kind.BROKEN
    assert reason in found.reason
    assert "Jane" not in found.reason


def test_layers_that_are_no_segmentation_and_empty_segmentations_are_named(tmp_path: Path) -> None:
    assert "must have 3 dimensions" in facts(nrrd(tmp_path / "x.nrrd", layered(LEFT, RIGHT), GRID)).reason
    empty = np.zeros((1, 1, 1), dtype=np.uint8)
    path = nrrd(tmp_path / "y.seg.nrrd", empty, Geometry((1, 1, 1), GRID.affine), keys=slicer_keys([("bone", 0, 1)]))
    assert "the segmentation is empty" in facts(path).reason


def test_segments_without_names_of_bones_ask_for_a_map_in_one_layer_as_in_two(tmp_path: Path) -> None:
    for name, values, layer in (("one", LABEL, 0), ("two", layered(LABEL > 0, 2 * BONE), 1)):
        nifti(tmp_path / name / "ct.nii.gz")
        nrrd(tmp_path / name / "x.seg.nrrd", values, GRID, keys=slicer_keys([("Doe", 0, 1), ("Roe", layer, 2)]))
        (row,), _ = local_series(tmp_path / name)
        with pytest.raises(LabelError, match="label values 1, 2 are unknown") as caught:
            read(row)
        assert "Doe" not in str(caught.value)
        found = read(row, PrepareSettings(label_map={1: 1, 2: 2}))
        np.testing.assert_array_equal(found.label, LABEL)
