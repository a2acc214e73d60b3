"""Left is never taken for right: whatever an augmentation does, the body it shows could be a body."""

import numpy as np
import pytest

from boneseg.augment.build import AUGMENTATIONS, build_augmentation
from boneseg.scheme import BUILT_IN, Labelling
from boneseg.settings.schema import PreprocessSettings

PELVIS = BUILT_IN["pelvis"]
LEFT, RIGHT, SACRUM = (PELVIS.names.index(name) for name in ("hip left", "hip right", "sacrum"))
EITHER_SET = (LEFT, SACRUM)
PLACES = {LEFT: (0.4, 0.7), RIGHT: (0.4, 0.3), SACRUM: (0.65, 0.5)}


def picture(size: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:size, :size] / size
    label = (np.hypot(rows - 0.5, columns - 0.5) < 0.45).astype(np.uint8)
    for value, (row, column) in PLACES.items():
        label[np.hypot(rows - row, columns - column) < 0.07] = value
    return np.where(label > 1, 700.0, np.where(label == 1, 40.0, -1000.0))[None].astype(np.float32), label


def handedness(label: np.ndarray) -> float | None:
    """Return on which side of the line from right to left the sacrum lies; none where one of them is not in view."""
    places = []
    for value in (LEFT, RIGHT, SACRUM):
        rows, columns = np.nonzero(label == value)
        if len(rows) < 20:
            return None
        places.append(np.array([columns.mean(), rows.mean()]))
    left, right, sacrum = places
    return float(np.sign(np.cross(np.append(left - right, 0), np.append(sacrum - right, 0))[2]))


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_a_mirrored_body_changes_sides(name: str) -> None:
    augmentation = build_augmentation(name, 128, PreprocessSettings(spacing_mm=None), Labelling(PELVIS))
    hu, label = picture(augmentation.window)
    before = handedness(label)
    found = [handedness(augmentation(hu.copy(), label.copy(), 1.0, seed)[1]) for seed in range(80)]
    seen = [value for value in found if value is not None]
    assert len(seen) > 20
    assert set(seen) == {before}


def test_without_partners_a_mirrored_body_is_told_apart() -> None:
    """The check above can fail."""
    names = [item.model_copy(update={"partner": None}) for item in PELVIS.classes]
    scheme = PELVIS.model_copy(update={"classes": tuple(names)})
    augmentation = build_augmentation("ct", 128, PreprocessSettings(spacing_mm=None), Labelling(scheme))
    hu, label = picture(augmentation.window)
    found = {handedness(augmentation(hu.copy(), label.copy(), 1.0, seed)[1]) for seed in range(40)} - {None}
    assert found == {-1.0, 1.0}


@pytest.mark.parametrize("name", ["ct", "basic", "paper"])
def test_a_set_of_classes_is_mirrored_to_the_set_of_their_partners(name: str) -> None:
    labelling = Labelling(PELVIS, (EITHER_SET,)).joined()
    own, other = (PELVIS.size + labelling.sets.index(value) for value in (EITHER_SET, (RIGHT, SACRUM)))
    augmentation = build_augmentation(name, 128, PreprocessSettings(spacing_mm=None), labelling)
    hu, label = picture(augmentation.window)
    label[label == SACRUM] = own
    seen = set()
    for seed in range(60):
        values = set(np.unique(augmentation(hu.copy(), label.copy(), 1.0, seed)[1]).tolist())
        assert not {own, other} <= values
        seen |= values & {own, other}
    assert seen == {own, other}
