"""A volume without negative values: a crop within the patient is CT, anything else is called what it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from boneseg.errors import SeriesError
from boneseg.ingest.checks import check_values
from boneseg.ingest.facts import Kind, inspect
from boneseg.ingest.local import local_series
from boneseg.ingest.read import read_labelled
from boneseg.nifti import write_volume
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.catalogue import ObjectRef
from tests.ct_files import place

SHAPE = (8, 48, 48)
CROP = (slice(None), slice(14, 34), slice(14, 34))


def body(noise: int = 20) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Air around a body with a bone of varied density, and its label."""
    random = np.random.default_rng(0)
    _, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    from_bone = np.hypot(y - 24, x - 22)
    label = np.where(from_bone < 7, 2, np.hypot(y - 24, x - 24) < 20).astype(np.uint8)
    hu = np.choose(label, (-1000, 60, 1200 - 100 * from_bone)) + random.integers(-noise, noise + 1, SHAPE)
    return hu.round().astype(np.int64), label


def write(path: Path, values: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, values, place(values.shape))  # type: ignore[arg-type]
    return path


def kind_of(path: Path) -> tuple[Kind, str]:
    found = inspect(path, ObjectRef(key=path.name, size=1, etag="", sha256=""), b"")
    return found.kind, found.reason


@pytest.mark.parametrize("kind", ["i2", "u2", "i4", "f4"])
@pytest.mark.parametrize("noise", [5, 20, 40])
def test_a_tight_crop_without_any_negative_value_is_ct_and_keeps_its_label(
    tmp_path: Path, kind: str, noise: int
) -> None:
    hu, label = (array[CROP] for array in body(noise))
    assert hu.min() > 10
    write(tmp_path / "ct.nii.gz", hu.astype(kind))
    write(tmp_path / "label.nii.gz", label)
    (row,), problems = local_series(tmp_path)
    assert problems == ()
    series = read_labelled(lambda ref: Path(ref.key), row, PrepareSettings())
    assert np.array_equal(series.hu, hu)
    assert np.array_equal(series.label == 2, label == 2)
    assert series.warnings == (f"the lowest value is {hu.min()} HU, so no air is in view; is the series cropped?",)


def test_a_crop_that_is_bone_all_over_is_read(tmp_path: Path) -> None:
    hu, _ = body()
    hu = hu[:, 20:28, 18:26]
    write(tmp_path / "ct.nii.gz", hu.astype(np.int16))
    write(tmp_path / "label.nii.gz", np.ones(hu.shape, dtype=np.uint8))
    (row,), _ = local_series(tmp_path)
    series = read_labelled(lambda ref: Path(ref.key), row, PrepareSettings())
    assert (series.label == 2).all()
    assert "leaves no tissue beside bone" in series.warnings[-1]


@pytest.mark.parametrize("added", [1000, 1024])
@pytest.mark.parametrize("kind", ["i2", "u2", "f4"])
@pytest.mark.parametrize("cropped", [False, True])
def test_hu_to_which_1024_was_added_are_called_that_first_of_all(
    tmp_path: Path, added: int, kind: str, cropped: bool
) -> None:
    hu, label = body()
    stored = np.maximum(hu, -added) + added
    if cropped:
        stored, label = stored[CROP], label[CROP]
    write(tmp_path / "ct.nii.gz", stored.astype(kind))
    write(tmp_path / "label.nii.gz", label)
    rows, problems = local_series(tmp_path)
    assert rows == ()
    assert problems[0].source == "ct.nii.gz"
    assert "as if 1024 or 1000 had been added; subtract that" in problems[0].reason
    assert "ct.nii.gz" in problems[1].reason
    with pytest.raises(SeriesError, match="as if 1024 or 1000 had been added"):
        check_values(stored.astype(np.int16))


@pytest.mark.parametrize("way", ["cut off at 0", "magnetic resonance"])
def test_a_background_at_the_lowest_value_is_no_air_of_hu(tmp_path: Path, way: str) -> None:
    hu, label = body()
    random = np.random.default_rng(1)
    resonance = np.choose(label, (0, 600, 150)) + np.hypot(*random.normal(0, 3, (2, *SHAPE)))
    values = np.maximum(hu, 0) if way == "cut off at 0" else resonance.round()
    kind, reason = kind_of(write(tmp_path / "ct.nii.gz", values.astype(np.int16)))
    assert kind == Kind.BROKEN
    assert "about the lowest value, 0, where HU has air at -1000" in reason


@pytest.mark.parametrize("window", [(-160, 240), (-500, 1500), (0, 100)])
@pytest.mark.parametrize("kind", ["u1", "f4"])
def test_a_window_of_8_bits_is_called_that(tmp_path: Path, window: tuple[int, int], kind: str) -> None:
    low, high = window
    grey = np.rint((body()[0].clip(low, high) - low) * 255 / (high - low))
    kind_found, reason = kind_of(write(tmp_path / "ct.nii.gz", grey.astype(kind)))
    assert kind_found == Kind.BROKEN
    assert "a CT windowed to 8 bits?" in reason


@pytest.mark.parametrize("edge", [2, 3, 6])
def test_a_label_of_many_thin_structures_stays_a_label(tmp_path: Path, edge: int) -> None:
    z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    structures = (z // edge * 64 + y // edge * 8 + x // edge) % 199 + 1
    structures[(x % edge == 0) & (z % 2 == 0)] = 0
    assert len(np.unique(structures)) > 32
    assert kind_of(write(tmp_path / "label.nii.gz", structures.astype(np.uint16)))[0] == Kind.LABEL


def test_values_too_close_together_for_hu_are_a_label_however_they_are_mixed(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 118, SHAPE).astype(np.uint8)
    assert kind_of(write(tmp_path / "label.nii.gz", values))[0] == Kind.LABEL
    _, problems = local_series(tmp_path)
    assert [problem.fatal for problem in problems if "are mixed as in a CT" in problem.reason] == [False]
