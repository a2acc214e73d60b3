import numpy as np
import pytest

from boneseg.errors import SeriesError
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


def test_a_label_on_air_is_refused() -> None:
    hu, label = body()
    with pytest.raises(SeriesError, match="nearly only air"):
        check_label(np.full_like(hu, -1000), label)


def test_bone_as_dark_as_tissue_is_a_warning() -> None:
    hu, label = body()
    assert "does the label belong to this series" in check_label(np.minimum(hu, 45), label)[0]
