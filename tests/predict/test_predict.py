"""Masks must lie where the series lies: left stays left in every orientation."""

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from numpy.typing import NDArray

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.segmentation import read_segmentation
from boneseg.dicom.series import read_series
from boneseg.errors import DataError, ModelError, SeriesError
from boneseg.geometry import Geometry, axial, to_axial
from boneseg.inference import predict_volume
from boneseg.models.build import build_model
from boneseg.models.checkpoint import load_model, save_model
from boneseg.nifti import read_header, read_volume, write_volume
from boneseg.phantom.series import make_phantom, write_phantom
from boneseg.predict.masks import write_masks
from boneseg.predict.predict import predict_series
from boneseg.settings.schema import ModelSettings, TrainSettings

BONE = 2
SHAPE = (10, 14, 18)
SPACING = (3.0, 0.9, 1.1)


def orientations() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All 48 ways in which slices, rows and columns can run along the patient's axes."""
    orders = itertools.permutations(range(3))
    return [(order, signs) for order in orders for signs in itertools.product((-1, 1), repeat=3)]


def placed(order: tuple[int, ...], signs: tuple[int, ...], oblique: float = 0.0) -> Geometry:
    geometry = axial(SHAPE, SPACING)
    directions = np.zeros((3, 3))
    for array_axis, (patient_axis, sign) in enumerate(zip(order, signs, strict=True)):
        directions[patient_axis, array_axis] = sign
    cos, sin = math.cos(oblique), math.sin(oblique)
    about_z = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    geometry.affine[:3, :3] = about_x @ about_z @ directions * np.array(SPACING)
    geometry.affine[:3, 3] = (40.0, -70.5, 333.0)
    return geometry


def corner_mask() -> NDArray[np.uint8]:
    """A body with bone near one corner: any flip or exchange of axes moves it."""
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[1:9, 2:12, 2:16] = 1
    mask[1:3, 2:6, 9:15] = BONE
    return mask


def centre(mask: NDArray[np.generic], geometry: Geometry) -> NDArray[np.float64]:
    return geometry.to_patient(np.argwhere(mask == BONE).astype(np.float64)).mean(axis=0)


def centre_by_simpleitk(image: SimpleITK.Image) -> NDArray[np.float64]:
    """Return the bone's centre as an independent reader of the file sees it."""
    index = np.argwhere(SimpleITK.GetArrayFromImage(image) == BONE).mean(axis=0)
    return np.array(image.TransformContinuousIndexToPhysicalPoint([float(value) for value in index[::-1]]))


@pytest.mark.parametrize("oblique", [0.0, 0.3])
@pytest.mark.parametrize(("order", "signs"), orientations())
def test_nifti_and_dicom_masks_lie_where_the_mask_lies(
    tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...], oblique: float
) -> None:
    geometry, mask = placed(order, signs, oblique), corner_mask()
    nifti, seg = write_masks(tmp_path, mask, geometry).files
    expected = centre(mask, geometry)
    np.testing.assert_allclose(centre_by_simpleitk(SimpleITK.ReadImage(str(nifti))), expected, atol=0.05)
    labels, place, _ = read_segmentation(seg)
    np.testing.assert_allclose(centre(labels, place), expected, atol=0.05)
    assert (labels == BONE).sum() == (mask == BONE).sum()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights: what it draws is meaningless, but depends on what it sees and where."""
    torch.manual_seed(4)
    settings = ModelSettings(architecture="unet", encoder="mobilenet_v2")
    folder = tmp_path_factory.mktemp("model")
    save_model(
        folder,
        build_model(settings),
        model=settings,
        train=TrainSettings(),
        dataset_hash="d",
        fingerprint="f",
        run="random",
        best_epoch=1,
        history=(),
    )
    return folder


def body_with_bone() -> NDArray[np.int16]:
    """An axial volume with bone at the patient's lower front left."""
    hu = np.random.default_rng(0).normal(-900, 30, (32, 64, 64))
    hu[:, 8:56, 8:56] += 940
    hu[2:20, 12:26, 36:52] += 1100
    return hu.astype(np.int16)


@pytest.mark.parametrize(
    ("order", "signs"),
    [((2, 1, 0), (1, 1, 1)), ((2, 1, 0), (-1, 1, -1)), ((1, 2, 0), (1, -1, 1)), ((0, 2, 1), (-1, -1, 1))],
)
@pytest.mark.parametrize("kind", ["dicom", "nifti"])
def test_the_mask_follows_the_series_in_whatever_order_its_voxels_are(
    tmp_path: Path, model: Path, order: tuple[int, ...], signs: tuple[int, ...], kind: str
) -> None:
    hu_axial = body_with_bone()
    standard = axial(hu_axial.shape, (2.0, 2.0, 2.0))
    network, card = load_model(model)
    expected = predict_volume(network, card.model.preprocess, hu_axial, standard)
    assert len(np.unique(expected)) > 1
    assert not np.array_equal(expected, expected[:, :, ::-1])
    geometry, hu = reordered(standard, hu_axial, order, signs)
    place = tmp_path / "ct"
    if kind == "dicom":
        write_ct_series(place, hu, geometry, identity="x")
    else:
        place.mkdir()
        write_volume(place / "ct.nii.gz", hu, geometry)
    nifti, seg = predict_series(model, place, tmp_path / "out")
    own = read_series(sorted(place.iterdir()))[1] if kind == "dicom" else geometry
    assert read_header(nifti).geometry.close_to(own, tolerance_mm=0.01)
    for mask, found in (read_volume(nifti), read_segmentation(seg)[:2]):
        back, reorientation = to_axial(found)
        assert back.close_to(standard, tolerance_mm=0.01)
        assert np.array_equal(reorientation.apply(mask), expected)


def reordered(
    standard: Geometry, hu: NDArray[np.int16], order: tuple[int, ...], signs: tuple[int, ...]
) -> tuple[Geometry, NDArray[np.int16]]:
    """Store an axial volume along other axes, as another scanner would."""
    size = [standard.shape[{2: 0, 1: 1, 0: 2}[axis]] for axis in order]
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for array_axis, (patient_axis, sign) in enumerate(zip(order, signs, strict=True)):
        affine[patient_axis, array_axis] = 2.0 * sign
        if sign < 0:
            affine[patient_axis, 3] = 2.0 * (size[array_axis] - 1)
    geometry = Geometry((size[0], size[1], size[2]), affine)
    back, reorientation = to_axial(geometry)
    assert back == standard
    return geometry, np.ascontiguousarray(reorientation.undo(hu))


def test_every_series_gets_a_folder_named_after_its_place(tmp_path: Path, model: Path) -> None:
    data = tmp_path / "data"
    write_phantom(data / "a", 0, slices=3, size=64)
    phantom = make_phantom(1, slices=3, size=64)
    write_volume(data / "b.nii.gz", phantom.hu, phantom.geometry)
    written = predict_series(model, data, tmp_path / "out")
    names = {str(path.relative_to(tmp_path / "out")) for path in written}
    assert names == {"a/dicom/mask.nii.gz", "a/dicom/mask.dcm", "b/mask.nii.gz", "b/mask.dcm"}
    for path in written:
        geometry = read_header(path).geometry if path.suffix == ".gz" else read_segmentation(path)[1]
        assert geometry.shape == (3, 64, 64)


def test_a_single_folder_or_file_names_its_own_result(tmp_path: Path, model: Path) -> None:
    folder = write_phantom(tmp_path / "data", 0, slices=3, size=64) / "dicom"
    assert [path.parent for path in predict_series(model, folder, tmp_path / "out")] == [tmp_path / "out" / "dicom"] * 2
    phantom = make_phantom(1, slices=3, size=64)
    write_volume(tmp_path / "one.nii", phantom.hu, phantom.geometry)
    assert predict_series(model, tmp_path / "one.nii", tmp_path / "out")[0].parent.name == "one"


def test_a_damaged_series_is_named_and_the_rest_goes_on(tmp_path: Path, model: Path) -> None:
    data = tmp_path / "data"
    write_phantom(data / "good", 0, slices=3, size=64)
    write_phantom(data / "bad", 1, slices=3, size=64)
    broken = data / "bad" / "dicom" / "slice-0002.dcm"
    broken.write_bytes(broken.read_bytes()[:2000])
    with pytest.raises(SeriesError, match=r"slice-0002\.dcm"):
        predict_series(model, data, tmp_path / "out")
    assert (tmp_path / "out" / "good" / "dicom" / "mask.dcm").is_file()
    assert not list(tmp_path.rglob("*.partial*"))


def test_masks_beside_the_series_do_not_become_series(tmp_path: Path, model: Path) -> None:
    folder = write_phantom(tmp_path, 0, slices=3, size=64)
    first = predict_series(model, folder, folder / "masks")
    before = [path.read_bytes() for path in first if path.suffix == ".gz"]
    again = predict_series(model, folder, folder / "masks")
    assert again == first
    assert [path.read_bytes()[10:] for path in again if path.suffix == ".gz"] == [data[10:] for data in before]


def test_a_place_without_ct_is_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        predict_series(model, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "notes.txt").write_text("no CT here")
    with pytest.raises(SeriesError, match="no CT series"):
        predict_series(model, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", 0, slices=3, size=64)
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
    with pytest.raises(ModelError):
        predict_series(tmp_path / "none", tmp_path / "data", tmp_path / "out")
