from pathlib import Path

import numpy as np
import pytest

from boneseg.dicom.series import read_series
from boneseg.geometry import to_axial
from boneseg.ingest.outline import patient_outline
from boneseg.nifti import read_volume

SPACING = (3.0, 1.0, 1.0)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def ellipse(shape: tuple[int, int], centre: tuple[int, int], radii: tuple[int, int]) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 <= 1


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return HU, bone and the true outline: a trunk with gas, an arm apart, a couch that touches the back."""
    rng = np.random.default_rng(0)
    trunk, arm = ellipse((256, 256), (110, 110), (70, 90)), ellipse((256, 256), (120, 230), (30, 22))
    plane = np.full((256, 256), -1000.0)
    plane[trunk | arm] = 30
    plane[ellipse((256, 256), (90, 100), (15, 20))] = -950
    plane[180:183, 20:230] = 100
    plane[183:200, 20:230] = -900
    plane[200:203, 20:230] = 100
    bone = ellipse((256, 256), (140, 120), (12, 12))
    plane[bone] = 500
    hu = np.stack([plane] * 6) + rng.normal(0, 20, (6, 256, 256))
    truth = np.stack([trunk | arm] * 6)
    return hu.astype(np.int16), np.stack([bone] * 6).astype(np.uint8), truth


def test_trunk_and_arm_are_inside_gas_is_filled_and_the_couch_is_outside() -> None:
    hu, bone, truth = scene()
    outline = patient_outline(hu, bone, SPACING) > 0
    assert dice(outline, truth) > 0.99
    assert outline[:, 90, 100].all()
    assert not outline[:, 201, 30:60].any()
    assert outline[:, 120, 230].all()


def test_bone_is_always_inside() -> None:
    hu, bone, _ = scene()
    bone[:, 5:8, 5:8] = 1
    assert (patient_outline(hu, bone, SPACING)[bone > 0] == 1).all()


def test_air_alone_has_no_patient() -> None:
    hu = np.full((3, 64, 64), -1000, dtype=np.int16)
    assert not patient_outline(hu, np.zeros(hu.shape, np.uint8), SPACING).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "acrin-flt-breast-001-pelvis",
        "acrin-flt-breast-001-thorax",
        "totalsegmentator-thorax-20",
        "semisynthetic-pelvis-004",
        "hybrid-pelvis-s0328",
    ],
)
def test_outlines_of_real_series_are_those_of_their_labels(shared_series: Path, name: str) -> None:
    folder = shared_series / name
    if (folder / "dicom").is_dir():
        hu, geometry, _ = read_series(sorted((folder / "dicom").iterdir()))
    else:
        hu, geometry = read_volume(folder / "ct.nii.gz")
    label, label_geometry = read_volume(folder / "labels.nii.gz")
    axial_geometry, order = to_axial(geometry)
    label = to_axial(label_geometry)[1].apply(label)
    nothing = np.zeros(label.shape, dtype=np.uint8)  # the harder case: bone does not show where the body is
    outline = patient_outline(np.ascontiguousarray(order.apply(hu)), nothing, axial_geometry.spacing)
    assert dice(outline > 0, label > 0) > 0.995
