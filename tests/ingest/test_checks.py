import numpy as np
import pytest

from boneseg.errors import LabelError, SeriesError
from boneseg.ingest.checks import check_label, check_values


def body() -> tuple[np.ndarray, np.ndarray]:
    """Return HU and label of a box of tissue with a box of bone in air."""
    hu = np.full((8, 32, 32), -1000, dtype=np.int16)
    label = np.zeros(hu.shape, dtype=np.uint8)
    hu[:, 4:28, 4:28], label[:, 4:28, 4:28] = 40, 1
    hu[:, 12:20, 12:20], label[:, 12:20, 12:20] = 400, 2
    return hu, label


def test_plausible_series_pass_without_a_word() -> None:
    hu, label = body()
    assert check_values(hu) == []
    assert check_label(hu, label) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda hu: hu * 0 - 5, "every voxel is -5"),
        (lambda hu: hu + 1024, "stored values, not HU"),
        (lambda hu: np.minimum(hu, 100), "too dark for bone"),
    ],
    ids=["constant", "unscaled", "dark"],
)
def test_values_that_cannot_be_hu_are_refused(change: object, reason: str) -> None:
    with pytest.raises(SeriesError, match=reason):
        check_values(change(body()[0]).astype(np.int16))  # type: ignore[operator]


def test_a_crop_without_air_is_a_warning() -> None:
    hu = body()[0]
    hu[:, 6:8] = -110
    assert "no air is in view" in check_values(hu[:, 6:26, 6:26])[0]


def test_tissue_far_from_water_is_refused() -> None:
    hu, label = body()
    with pytest.raises(SeriesError, match=r"soft tissue has a median of 540 HU"):
        check_label(hu + 500, label)


def test_values_of_a_label_that_mean_something_else_are_not_blamed_on_the_rescale() -> None:
    hu, label = body()
    swapped = np.array([0, 2, 1], dtype=np.uint8)[label]
    with pytest.raises(LabelError, match=r"values mean something else.*prepare.label_map"):
        check_label(hu, swapped)


def test_a_label_on_air_is_refused() -> None:
    hu, label = body()
    with pytest.raises(SeriesError, match="nearly only air"):
        check_label(np.full_like(hu, -1000), label)


def test_bone_mostly_as_dark_as_tissue_is_a_warning() -> None:
    """Fatty marrow may be most of a bone; its cortex is bright all the same."""
    hu, label = body()
    hu[:, 13:19, 12:20] = -60
    assert "does the label belong to this series" in check_label(hu, label)[0]


def skeleton() -> tuple[np.ndarray, np.ndarray]:
    """Return HU and label of a body with a spine and a slanted bone on one side."""
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:24, :48, :48]
    label = np.zeros(z.shape, dtype=np.uint8)
    label[(y - 24) ** 2 + (x - 24) ** 2 < 21**2] = 1
    label[(y - 36) ** 2 + (x - 24) ** 2 < 16] = 2
    label[(y - 20) ** 2 + (x - 10 - z / 2) ** 2 < 20] = 2
    hu = np.choose(label, (-1000, 40, 500)) + rng.integers(-60, 60, z.shape)
    return hu.astype(np.int16), label


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (lambda label: label[:, :, ::-1], "mirrored left to right"),
        (lambda label: label[:, ::-1], "mirrored front to back"),
        (lambda label: label[::-1, :, ::-1], "turned by half"),
        (lambda label: np.roll(label, 6, axis=0), "moved by . slices"),
        (lambda label: np.roll(label, 3, axis=2), "moved by 3 columns"),
    ],
    ids=["left", "front", "turned", "slices", "columns"],
)
def test_a_label_that_lies_on_bone_only_when_moved_is_refused(change: object, how: str) -> None:
    hu, label = skeleton()
    assert check_label(hu, label) == []
    with pytest.raises(LabelError, match=how):
        check_label(hu, change(label).copy())  # type: ignore[operator]


def test_a_label_a_little_off_is_a_warning() -> None:
    hu, label = skeleton()
    (warning,) = check_label(hu, np.roll(label, 1, axis=2))
    assert "moved by 1 columns" in warning


def test_a_label_too_small_to_judge_passes() -> None:
    hu, label = skeleton()
    few = np.where(label == 2, 1, label)
    few[3, 20, 40:44] = 2
    assert not [warning for warning in check_label(hu, few) if "moved" in warning or "mirrored" in warning]


@pytest.mark.parametrize("structure", [-850, -100, 40, 90])
def test_a_mask_of_what_is_no_bone_is_refused(structure: int) -> None:
    """A lone mask without a telling name is taken for bone, unless the picture shows that it is not."""
    hu, label = body()
    random = np.random.default_rng(0)
    hu[label == 2] = structure
    with pytest.raises(LabelError, match=r"as bright as bone, its median is -?\d+ HU: it is another structure"):
        check_label((hu + random.integers(-20, 21, hu.shape)).astype(np.int16), label)
