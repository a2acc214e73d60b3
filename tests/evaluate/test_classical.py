"""The classical method."""

from pathlib import Path

import numpy as np
import pytest

from boneseg.evaluate.classical import threshold_segmentation
from boneseg.geometry import Geometry, axial
from boneseg.nifti import read_volume
from boneseg.phantom.series import make_phantom
from boneseg.scheme.roles import BONE, OUTLINE

SPACING = (3.0, 1.0, 1.0)


def dice(mask: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (mask & other).sum() / (mask.sum() + other.sum()))


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, dict[str, np.ndarray], Geometry]:
    """Return a trunk with a shell of bone around marrow, a speck, and a dense couch below."""
    shape = (12, 160, 200)
    rows, columns = np.mgrid[:160, :200]
    parts = {
        "body": ((rows - 70) / 55) ** 2 + ((columns - 100) / 80) ** 2 < 1,
        "bone": (rows - 70) ** 2 + (columns - 100) ** 2 < 12**2,
        "marrow": (rows - 70) ** 2 + (columns - 100) ** 2 < 8**2,
        "speck": (rows - 60) ** 2 + (columns - 60) ** 2 < 2**2,
        "couch": (rows > 140) & (rows < 146),
    }
    plane = np.full(shape[1:], -1000.0)
    for name, value in (("body", 40), ("bone", 700), ("marrow", 60), ("speck", 900), ("couch", 600)):
        plane[parts[name]] = value
    noise = np.random.default_rng(0).normal(0, 15, shape)
    return (plane[None] + noise).astype(np.int16), parts, axial(shape, SPACING)


def test_bone_is_the_shell_with_its_marrow(scene: tuple[np.ndarray, dict[str, np.ndarray], Geometry]) -> None:
    hu, parts, geometry = scene
    mask = threshold_segmentation(hu, geometry, 200.0)
    assert mask.shape == hu.shape
    assert dice(mask[5] == BONE, parts["bone"]) > 0.95
    assert (mask[5][parts["marrow"]] == BONE).all()


def test_specks_and_the_couch_are_not_bone_and_the_couch_not_the_patient(
    scene: tuple[np.ndarray, dict[str, np.ndarray], Geometry],
) -> None:
    hu, parts, geometry = scene
    mask = threshold_segmentation(hu, geometry, 200.0)
    assert (mask[5][parts["speck"]] == OUTLINE).all()
    assert (mask[5][parts["couch"]] == 0).all()
    assert dice(mask[5] > 0, parts["body"]) > 0.98


def test_on_a_phantom_it_is_a_fair_method_and_far_too_high_a_threshold_is_worse() -> None:
    phantom = make_phantom(3, slices=16, size=128)
    found = [
        dice(threshold_segmentation(phantom.hu, phantom.geometry, threshold) == BONE, phantom.label == BONE)
        for threshold in (150.0, 600.0)
    ]
    assert found[0] > 0.6
    assert found[1] < found[0]


def test_air_alone_has_neither_patient_nor_bone() -> None:
    mask = threshold_segmentation(np.full((3, 40, 40), -1000, np.int16), axial((3, 40, 40), SPACING), 200.0)
    assert not mask.any()


@pytest.mark.slow
def test_morphology_beats_the_bare_threshold_on_semi_synthetic_series(shared_series: Path) -> None:
    folder = shared_series / "semisynthetic-pelvis-002"
    hu, geometry = read_volume(folder / "ct.nii.gz")
    label, _ = read_volume(folder / "labels.nii.gz")
    bare = dice(hu > 150, label == BONE)
    mask = threshold_segmentation(hu.astype(np.int16), geometry, 150.0)
    assert dice(mask == BONE, label == BONE) > bare + 0.05
