"""CT slices and masks as PNG pictures: with the spacing given they are series like any others."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from boneseg.errors import LabelError
from boneseg.geometry import to_axial
from boneseg.ingest.label_file import local_file
from boneseg.ingest.local import local_series
from boneseg.ingest.read import read_labelled
from boneseg.png import read_png, write_png
from boneseg.scheme import BUILT_IN
from boneseg.settings.schema import PngSettings, PrepareSettings
from tests.ingest.test_by_bone import SHAPE, truth

PELVIS = BUILT_IN["pelvis"]
ASKED = PngSettings(spacing_mm=(3.0, 1.5, 1.25))


def image(seed: int = 0) -> NDArray[np.int16]:
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[:, 4:28, 4:28] = 40
    hu[truth() > 0] = 700
    return (hu + np.random.default_rng(seed).integers(-20, 20, SHAPE)).astype(np.int16)


def bones() -> NDArray[np.uint8]:
    """Return the values by which files call the bones of scheme ``pelvis``."""
    return np.where(truth() > 1, truth() - 1, 0).astype(np.uint8)


def save(folder: Path, volume: NDArray[np.generic], names: str = "{:03d}.png", first: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, plane in enumerate(volume, start=first):
        write_png(folder / names.format(number), plane)  # type: ignore[arg-type]


def deep(hu: NDArray[np.int16]) -> NDArray[np.uint16]:
    return (hu.astype(np.int32) + 1024).astype(np.uint16)


@pytest.mark.parametrize(
    ("images", "masks", "names"),
    [
        ("p1/images", "p1/masks", ("{:03d}.png", "{:03d}.png")),
        ("images/p1", "masks/p1", ("slice{}.png", "slice{}.png")),
        ("images", "annotations", ("p1_{:04d}.png", "p1_{:04d}.png")),
        ("p1", "p1", ("ct_{:02d}.png", "label_{:02d}.png")),
        ("all", "all", ("p1_{:02d}.png", "p1_{:02d}_mask.png")),
    ],
)
def test_pictures_of_16_bits_are_the_series_that_they_hold(
    tmp_path: Path, images: str, masks: str, names: tuple[str, str]
) -> None:
    save(tmp_path / images, deep(image()), names[0])
    save(tmp_path / masks, bones(), names[1])
    rows, problems = local_series(tmp_path, scheme=PELVIS, png=ASKED)
    assert len(rows) == 1, problems
    assert rows[0].label is not None, problems
    series = read_labelled(local_file, rows[0], PrepareSettings(), PELVIS)
    np.testing.assert_array_equal(series.hu, image())
    np.testing.assert_array_equal(np.where(series.label > 1, series.label, 0), truth())
    assert series.geometry.spacing == (3.0, 1.5, 1.25)
    assert to_axial(rows[0].geometry.geometry())[0].close_to(series.geometry)


def test_two_patients_in_one_folder_are_two_series(tmp_path: Path) -> None:
    for patient in (1, 2):
        save(tmp_path / "images", deep(image(patient)), f"p{patient}_{{:03d}}.png")
        save(tmp_path / "masks", bones(), f"p{patient}_{{:03d}}.png")
    rows, problems = local_series(tmp_path, scheme=PELVIS, png=ASKED)
    assert len(rows) == 2, problems
    assert all(row.label for row in rows), problems
    assert len({row.patient for row in rows}) == 2


def test_pictures_of_8_bits_need_a_window(tmp_path: Path) -> None:
    """HU = low + grey * (high - low) / 255, by hand."""
    hu = image() + np.random.default_rng(9).integers(-250, 250, SHAPE)
    grey = np.clip(np.rint((hu + 1000) / 2000 * 255), 0, 255).astype(np.uint8)
    save(tmp_path / "images", grey)
    save(tmp_path / "masks", np.where(truth() > 0, 255, 0).astype(np.uint8))
    rows, problems = local_series(tmp_path, png=ASKED)
    assert not rows
    assert any("pull.png.window" in problem.reason for problem in problems)
    (row,), _ = local_series(tmp_path, png=ASKED.model_copy(update={"window": (-1000.0, 1000.0)}))
    series = read_labelled(local_file, row, PrepareSettings())
    np.testing.assert_array_equal(series.hu, np.rint(-1000 + grey * (2000 / 255)).astype(np.int16))
    np.testing.assert_array_equal(series.label == 2, truth() > 0)


def test_masks_of_some_slices_cover_only_these(tmp_path: Path) -> None:
    save(tmp_path / "images", deep(image()), first=11)
    save(tmp_path / "masks", bones()[2:5], first=13)
    (row,), _ = local_series(tmp_path, scheme=PELVIS, png=ASKED)
    series = read_labelled(local_file, row, PrepareSettings(), PELVIS)
    np.testing.assert_array_equal(series.hu, image()[2:5])
    assert any("covers 3 of 6 slices" in warning for warning in series.warnings)


def test_one_folder_a_bone(tmp_path: Path) -> None:
    save(tmp_path / "p1" / "images", deep(image()))
    for name in ("hip left", "hip right", "sacrum"):
        save(tmp_path / "p1" / "masks" / name.replace(" ", "_"), (truth(name) > 0).astype(np.uint8) * 255)
    (row,), problems = local_series(tmp_path, scheme=PELVIS, png=ASKED)
    assert row.label is not None, problems
    series = read_labelled(local_file, row, PrepareSettings(), PELVIS)
    for name in ("hip left", "hip right", "sacrum"):
        value = PELVIS.names.index(name)
        np.testing.assert_array_equal(series.label == value, truth(name) > 0)


def test_without_a_spacing_they_are_not_used_and_the_setting_is_named(tmp_path: Path) -> None:
    save(tmp_path / "images", deep(image()))
    rows, problems = local_series(tmp_path)
    assert not rows
    (problem,) = problems
    assert "6 files not used: a PNG picture; pictures hold no HU" in problem.reason
    assert "pull.png.spacing_mm" in problem.reason


@pytest.mark.parametrize("fault", ["gap", "size", "cut short", "colours", "no number"])
def test_what_is_no_stack_of_slices_is_told(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "images"
    save(folder, deep(image()))
    third = folder / "003.png"
    if fault == "gap":
        third.unlink()
    elif fault == "size":
        write_png(third, np.zeros((8, 8), dtype=np.uint16))
    elif fault == "cut short":
        third.write_bytes(third.read_bytes()[:200])
    elif fault == "colours":
        write_png(third, np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8))
    else:
        third.rename(folder / "third.png")
    rows, problems = local_series(tmp_path, png=ASKED)
    assert not rows
    told = {"gap": "gaps", "size": "sizes", "cut short": "damaged", "colours": "colours", "no number": "number"}[fault]
    assert any(told in problem.reason for problem in problems), problems


def test_grey_is_read_from_every_way_to_store_it(tmp_path: Path) -> None:
    from PIL import Image

    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    palette = Image.fromarray(values, mode="P")
    palette.putpalette(np.random.default_rng(0).integers(0, 255, 768).astype(np.uint8).tobytes())
    palette.save(tmp_path / "palette.png")
    Image.fromarray(np.repeat(values[..., None], 3, axis=2)).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([values, np.full_like(values, 9)]), mode="LA").save(tmp_path / "opacity.png")
    for name in ("palette", "rgb", "opacity"):
        np.testing.assert_array_equal(read_png(tmp_path / f"{name}.png"), values)
    Image.fromarray(values > 20).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_png(tmp_path / "bits.png"), (values > 20).astype(np.uint8))
    wide = (values.astype(np.uint16) << 9) + 5
    write_png(tmp_path / "wide.png", wide)
    np.testing.assert_array_equal(read_png(tmp_path / "wide.png"), wide)


def test_masks_of_every_second_slice_do_not_move(tmp_path: Path) -> None:
    save(tmp_path / "images", deep(image()))
    (tmp_path / "masks").mkdir()
    for number in (2, 4):
        write_png(tmp_path / "masks" / f"{number:03d}.png", bones()[number - 1])
    rows, problems = local_series(tmp_path, scheme=PELVIS, png=ASKED)
    (row,) = rows
    assert row.label is not None, problems
    with pytest.raises(LabelError, match="no two neighbouring slices"):
        read_labelled(local_file, row, PrepareSettings(), PELVIS)
