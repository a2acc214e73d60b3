import hashlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from boneseg.dicom.header import read_header
from boneseg.dicom.segmentation import read_segmentation
from boneseg.dicom.series import read_series
from boneseg.dicom.sop_classes import CT_IMAGE
from boneseg.phantom.series import FIELD_OF_VIEW_MM, Phantom, make_phantom, write_phantom

BONE = 2


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [make_phantom(seed, slices=20, size=128) for seed in range(3)]


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(tmp_path: Path) -> None:
    first = contents(write_phantom(tmp_path / "a", 7, slices=3, size=64))
    again = contents(write_phantom(tmp_path / "b", 7, slices=3, size=64))
    other = contents(write_phantom(tmp_path / "c", 8, slices=3, size=64))
    assert first == again
    assert len(first) == 4
    assert not set(first.values()) & set(other.values())


def test_files_hold_the_voxels_and_the_label_that_were_made(tmp_path: Path) -> None:
    made = make_phantom(4, slices=5, size=64)
    folder = write_phantom(tmp_path, 4, slices=5, size=64)
    hu, geometry, warnings = read_series(list((folder / "dicom").iterdir()))
    label, place, names = read_segmentation(folder / "label.dcm")
    assert np.array_equal(hu, made.hu)
    assert np.array_equal(label, made.label)
    assert geometry.close_to(made.geometry)
    assert place.close_to(geometry, tolerance_mm=0.01)
    assert (warnings, names) == ([], {1: "patient outline", 2: "bone"})


def test_files_are_ct_images_of_a_patient_that_is_nobody(tmp_path: Path) -> None:
    folder = write_phantom(tmp_path, 12, slices=3, size=64)
    for path in (folder / "dicom").iterdir():
        header = read_header(path)
        assert header is not None
        assert (header.sop_class, header.modality, header.patient_id) == (CT_IMAGE, "CT", "PHANTOM-0012")
        assert None not in (header.position, header.orientation, header.pixel_spacing, header.thickness)
        assert header.rescaled
    series = {pydicom.dcmread(path).SeriesInstanceUID for path in (folder / "dicom").iterdir()}
    assert len(series) == 1


def test_two_sizes_of_one_patient_are_two_series(tmp_path: Path) -> None:
    small, large = write_phantom(tmp_path / "a", 0, slices=3, size=64), write_phantom(tmp_path / "b", 0, 3, 80)
    uids = {pydicom.dcmread(folder / "dicom" / "slice-0001.dcm").SOPInstanceUID for folder in (small, large)}
    assert len(uids) == 2


def test_every_slice_holds_bone_inside_the_patient(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        assert all((plane == BONE).any() for plane in phantom.label)
        assert 0.003 < (phantom.label == BONE).mean() < 0.06
        assert 0.15 < (phantom.label > 0).mean() < 0.5
        body = ndimage.binary_dilation(phantom.label == 1, iterations=3)
        assert body[phantom.label == BONE].mean() > 0.5


def test_bone_has_a_hard_shell_and_a_core_that_overlaps_soft_tissue() -> None:
    phantom = make_phantom(1, slices=12, size=320)
    bone = phantom.label == BONE
    core = ndimage.binary_erosion(bone, np.ones((1, 5, 5)))
    shell = bone & ~ndimage.binary_erosion(bone, np.ones((1, 3, 3)))
    assert np.percentile(phantom.hu[shell], 90) > 500
    assert np.percentile(phantom.hu[core], 15) < np.percentile(phantom.hu[phantom.label == 1], 95)


def test_bright_things_that_are_not_bone_are_there(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        inside = phantom.label == 1
        distance = ndimage.distance_transform_edt(phantom.label != BONE, sampling=phantom.geometry.spacing)
        assert (phantom.hu[inside & (distance > 10)] > 150).sum() > 20  # vessels, contrast medium
        outside = phantom.label == 0
        assert phantom.hu[outside].max() > 600  # a marker on the skin
        assert (phantom.hu[inside] < -500).any()  # gas


def test_a_threshold_stays_clearly_below_perfect() -> None:
    scores = []
    for seed in range(3):
        phantom = make_phantom(seed, slices=16, size=256)
        truth, body = phantom.label == BONE, phantom.label > 0
        bright = ndimage.binary_closing(phantom.hu > 200, np.ones((1, 3, 3)), iterations=2)
        guess = np.stack([ndimage.binary_fill_holes(plane) for plane in bright]) & body
        scores.append(2 * (guess & truth).sum() / (guess.sum() + truth.sum()))
    assert 0.6 < np.mean(scores) < 0.92
    assert max(scores) < 0.95


def test_left_and_right_differ() -> None:
    phantom = make_phantom(0, slices=12, size=128)
    wire = np.argwhere((phantom.hu > 600) & (phantom.label == 0)).astype(float)
    places = phantom.geometry.to_patient(wire)
    assert (places[:, 0] > 60).any()  # the marker that is always on the patient's left
    assert not (phantom.geometry.to_patient(wire)[:, 0] < -190).any()


def test_patients_differ_in_shape_and_density(phantoms: list[Phantom]) -> None:
    volumes = [(phantom.label == BONE).sum() for phantom in phantoms]
    densities = [phantom.hu[phantom.label == BONE].mean() for phantom in phantoms]
    assert len(set(volumes)) == 3
    assert np.ptp(densities) > 10


def test_few_slices_stay_around_the_hips_and_many_reach_from_thigh_to_spine() -> None:
    few, many = make_phantom(0, slices=6, size=64), make_phantom(0, slices=71, size=64)
    assert few.geometry.spacing[0] == pytest.approx(8.0)
    low, high = (float(many.geometry.affine[2, 3] + index * many.geometry.spacing[0]) for index in (0, 70))
    assert (round(low), round(high)) == (-150, 200)
    low = float(few.geometry.affine[2, 3])
    assert low < 0 < low + 40
    assert few.geometry.spacing[1] * 64 == pytest.approx(FIELD_OF_VIEW_MM)


def test_spacing_can_be_given() -> None:
    assert make_phantom(0, slices=3, size=64, spacing_mm=(3.0, 5.0, 5.0)).geometry.spacing == (3.0, 5.0, 5.0)
