"""What ``boneseg schemes FOLDER`` says of labels is what prepare makes of them."""

from pathlib import Path

import numpy as np

from boneseg.ingest.understood import labels_of, understood
from boneseg.scheme import BONE_SCHEME, BUILT_IN
from tests.ingest.test_by_bone import truth
from tests.ingest.test_layouts import ct, mask

PELVIS, SKELETON = BUILT_IN["pelvis"], BUILT_IN["skeleton"]


def test_an_outline_and_a_bone_are_not_two_hips(tmp_path: Path) -> None:
    for number, name in enumerate(("outline", "hips", "bones")):
        ct(tmp_path / name / "ct.nii.gz", number)
    body = np.zeros(truth().shape, dtype=np.uint8)
    body[:, 4:28, 4:28] = 1
    mask(tmp_path / "outline" / "label.nii.gz", np.where(truth() > 0, 2, body).astype(np.uint8))
    hips = truth("hip left", "hip right")
    mask(tmp_path / "hips" / "label.nii.gz", np.where(hips > 0, hips - 1, 0).astype(np.uint8))
    mask(tmp_path / "bones" / "label.nii.gz", np.where(truth() > 0, truth() - 1, 0).astype(np.uint8))
    labels = labels_of(tmp_path, PELVIS)
    found = understood(labels, PELVIS)
    assert found.whole == 3
    assert found.classes["any bone"] == 1
    assert found.classes["hip left"] == found.classes["hip right"] == 2
    assert found.classes["sacrum"] == 1


def test_numbers_that_mean_no_bone_in_a_scheme_are_not_understood(tmp_path: Path) -> None:
    """TotalSegmentator's 1 to 6 are organs."""
    ct(tmp_path / "ct.nii.gz")
    mask(tmp_path / "label.nii.gz", np.where(truth() > 0, truth() - 1, 0).astype(np.uint8))
    found = understood(labels_of(tmp_path, SKELETON), SKELETON)
    assert (found.whole, found.classes) == (0, {})
    assert found.unknown == {"ct.nii.gz": "no bone is among values 1, 2, 3, 4, 5, 6"}


def test_one_bone_and_an_outline_by_numbers(tmp_path: Path) -> None:
    ct(tmp_path / "ct.nii.gz")
    mask(tmp_path / "label.nii.gz", (2 * (truth() > 0)).astype(np.uint8))
    assert understood(labels_of(tmp_path, BONE_SCHEME), BONE_SCHEME).classes == {"bone": 1}
