"""Predict on data as hospitals have it: odd series, odd neighbours, odd names; every other patient has a mask."""

import logging
import resource
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from boneseg.atomic_write import atomic_write
from boneseg.cli import cli
from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.segmentation import read_segmentation
from boneseg.dicom.series import read_series
from boneseg.errors import DataError, SeriesError
from boneseg.geometry import Geometry, axial, from_dicom
from boneseg.models.build import build_model
from boneseg.models.checkpoint import save_model
from boneseg.nifti import write_volume
from boneseg.predict.predict import predict_series
from boneseg.settings.schema import ModelSettings, PrepareSettings, TrainSettings

SHAPE = (6, 64, 64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def body(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.int16]:
    hu = np.random.default_rng(seed).normal(-900, 30, shape)
    hu[:, 8:56, 8:56] += 940
    hu[1:4, 12:26, 36:52] += 1100
    return hu.astype(np.int16)


def stacked(places: list[float], tilt_degrees: float = 0.0) -> Geometry:
    """Slices along z at these places, their planes turned about x as by a tilted gantry."""
    tilt = np.radians(tilt_degrees)
    orientation = np.array([1, 0, 0, 0, np.cos(tilt), np.sin(tilt)])
    positions = np.array([(-60.0, -70.0, 100.0 + place) for place in places])
    return from_dicom(positions, orientation, (2.0, 2.0), 64, 64)


def ct(folder: Path, seed: int = 0, geometry: Geometry | None = None, patient: str = "P1") -> list[Path]:
    geometry = geometry or stacked([3.0 * index for index in range(SHAPE[0])])
    return write_ct_series(
        folder, body(seed, geometry.shape), geometry, identity=f"s{seed}{patient}", patient_id=patient
    )


def check_seg(seg: Path, files: list[Path]) -> None:
    """Every plane of the SEG must lie exactly on the image that it refers to, and every image must be referred to."""
    hd.seg.segread(seg)
    data = pydicom.dcmread(seg)
    images = {str(image.SOPInstanceUID): image for image in map(pydicom.dcmread, files)}
    met = set()
    for frame in data.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence
        assert len(source) == 1
        image = images[source[0].ReferencedSOPInstanceUID]
        met.add(str(image.SOPInstanceUID))
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(np.array(place, float), np.array(image.ImagePositionPatient, float), atol=1e-3)
    assert met == set(images)
    first = next(iter(images.values()))
    assert [item.SeriesInstanceUID for item in data.ReferencedSeriesSequence] == [first.SeriesInstanceUID]
    for tag in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert data[tag].value == first[tag].value
    turn = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    np.testing.assert_allclose(np.array(turn, float), np.array(first.ImageOrientationPatient, float), atol=1e-4)


def test_a_tilted_gantry_is_refused_with_a_fix_that_works(tmp_path: Path, model: Path) -> None:
    geometry = stacked([3.0 * index for index in range(6)], tilt_degrees=15)
    files = ct(tmp_path / "data" / "ct", 0, geometry)
    command = ["predict", str(tmp_path / "data"), "--model", str(model), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(cli, command)
    assert isinstance(refused.exception, SeriesError)
    assert "prepare.max_tilt_degrees" in str(refused.exception)
    done = CliRunner().invoke(cli, [*command, "--set", "prepare.max_tilt_degrees=20"], catch_exceptions=False)
    nifti, seg = (tmp_path / "out" / "ct" / name for name in ("mask.nii.gz", "mask.dcm"))
    assert done.output.split() == [str(nifti), str(seg)]
    check_seg(seg, files)
    to_lps = np.diag([-1.0, -1, 1, 1]) @ nib.load(nifti).affine
    np.testing.assert_allclose(to_lps[:, [2, 1, 0, 3]], geometry.affine, atol=1e-3)


@pytest.mark.parametrize("tilt", [0.0, 0.8])
def test_uneven_slices_keep_their_masks(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture, tilt: float
) -> None:
    places = [0.0, 3.0, 6.0, 9.0, 13.0, 17.0, 21.0]
    files = ct(tmp_path / "data", 0, stacked(places, tilt))
    nifti, seg = predict_series(model, tmp_path / "data", tmp_path / "out")
    check_seg(seg, files)
    mask, geometry, _ = read_segmentation(seg)
    own = read_series(files)[1]
    assert own.uneven is not None
    assert geometry.close_to(own, tolerance_mm=0.01)
    assert np.array_equal(mask, np.asarray(nib.load(nifti).dataobj).transpose(2, 1, 0))
    assert nib.load(nifti).header.get_zooms()[2] == pytest.approx(3.5, abs=1e-4)
    assert "from 3.00 to 4.00 mm" in caplog.text


def test_slices_a_little_beside_the_line_still_refer_to_their_images(tmp_path: Path, model: Path) -> None:
    files = ct(tmp_path / "data")
    for index, path in enumerate(files):
        data = pydicom.dcmread(path)
        data.ImagePositionPatient[0] += 0.7 * (index % 3 == 1)
        data.save_as(path)
    _, seg = predict_series(model, tmp_path / "data", tmp_path / "out")
    check_seg(seg, files)


def neighbours(folder: Path, files: list[Path]) -> None:
    """Put beside a series what lies beside series: none of it costs the series anything."""
    for path, tags in (
        ("scout", {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("pet", {"Modality": "PT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}),
        ("structures", {"Modality": "RTSTRUCT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3"}),
        ("single", {"SeriesInstanceUID": generate_uid()}),
    ):
        data = pydicom.dcmread(files[0])
        for tag, value in {"SOPInstanceUID": generate_uid(), **tags}.items():
            setattr(data, tag, value)
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.save_as(folder / path)
    (folder / "readme.txt").write_text("no DICOM")


def test_what_lies_beside_a_series_is_a_note(tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = ct(tmp_path / "data")
    neighbours(tmp_path / "data", files)
    older = predict_series(model, tmp_path / "data", tmp_path / "out")
    for path in older:  # masks of an earlier run, one of them broken
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes()[: 3000 if path.suffix == ".dcm" else None])
    written = predict_series(model, tmp_path / "data", tmp_path / "out")
    assert len(written) == 2
    check_seg(written[1], files)
    assert "scout" in caplog.text


def test_a_damaged_slice_among_harmless_things_fails_and_is_named(tmp_path: Path, model: Path) -> None:
    files = ct(tmp_path / "data" / "ct")
    ct(tmp_path / "data" / "other", 1)
    neighbours(tmp_path / "data" / "ct", files)
    files[3].write_bytes(files[3].read_bytes()[:4000])
    with pytest.raises(SeriesError, match=files[3].name) as failed:
        predict_series(model, tmp_path / "data", tmp_path / "out")
    assert "scout" not in str(failed.value)
    assert (tmp_path / "out" / "other" / "mask.dcm").is_file()


def test_where_nothing_is_usable_the_damaged_ct_comes_first(tmp_path: Path, model: Path) -> None:
    files = ct(tmp_path / "data" / "z")
    for path in files[1:]:
        path.unlink()
    files[0].write_bytes(files[0].read_bytes()[:3000])
    (tmp_path / "data" / "a").mkdir()
    ours = ct(tmp_path / "more")
    neighbours(tmp_path / "data" / "a", ours)
    with pytest.raises(SeriesError) as failed:
        predict_series(model, tmp_path / "data", tmp_path / "out")
    assert f"no CT series there; z/{files[0].name}: " in str(failed.value)


def test_whatever_ends_one_series_the_next_has_its_masks(tmp_path: Path, model: Path) -> None:
    """One out folder is a file, in another a folder stands where the mask goes; and one is too large for the disk."""
    for name in "abcd":
        ct(tmp_path / "data" / name, ord(name), patient=name)
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("in the way")
    (out / "b" / "mask.nii.gz" / "x").mkdir(parents=True)
    with pytest.raises(SeriesError) as failed:
        predict_series(model, tmp_path / "data", out)
    assert str(failed.value).startswith("2 could not be used (2 series have masks")
    assert "a: " in str(failed.value)
    assert "b: " in str(failed.value)
    for name in "cd":
        check_seg(out / name / "mask.dcm", sorted((tmp_path / "data" / name).iterdir()))


def test_a_disk_too_small_for_one_series_is_not_for_the_next(tmp_path: Path, model: Path) -> None:
    ct(tmp_path / "data" / "large", 0, stacked([3.0 * index for index in range(40)]))
    ct(tmp_path / "data" / "small", 1, patient="P2")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, hard))
    try:
        with pytest.raises(SeriesError, match="large: "):
            predict_series(model, tmp_path / "data", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "out" / "small" / "mask.dcm").is_file()
    assert not list(tmp_path.rglob("*.partial*"))
    assert not (tmp_path / "out" / "large" / "mask.dcm").exists()
    again = predict_series(model, tmp_path / "data", tmp_path / "out")
    assert len(again) == 4


def test_the_same_pictures_under_two_patients_are_two_series(tmp_path: Path, model: Path) -> None:
    for patient, folder in (("P1", "a"), ("P2", "b"), ("P3", "c"), ("P4", "c")):
        for index, path in enumerate(ct(tmp_path / patient, 0, patient=patient)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            path.rename(tmp_path / "data" / folder / f"{patient}-{index}.dcm")
    written = predict_series(model, tmp_path / "data", tmp_path / "out")
    assert len({path.parent for path in written}) == 4
    assert written == predict_series(model, tmp_path / "data", tmp_path / "out")
    patients = [pydicom.dcmread(path).PatientID for path in written if path.suffix == ".dcm"]
    assert sorted(patients) == ["P1", "P2", "P3", "P4"]


def test_two_patients_predicted_one_after_the_other_into_one_output_keep_their_masks(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both keep their slices in a folder of the same name, and a script gives each patient to predict by itself."""
    files = {patient: ct(tmp_path / patient / "dicom", seed, patient=patient) for seed, patient in enumerate("ABC")}
    files["D"] = ct(tmp_path / "D" / "dicom", 0, patient="D")  # the same pictures as A's
    out = tmp_path / "out"
    written = {patient: predict_series(model, tmp_path / patient, out) for patient in files}
    assert written["A"][0].parent == out / "dicom"
    assert "holds masks of another series" in caplog.text
    for patient, paths in written.items():
        check_seg(paths[1], files[patient])
        assert predict_series(model, tmp_path / patient, out) == paths
    assert len({path.parent for paths in written.values() for path in paths}) == 4


def test_the_same_series_moved_or_mended_keeps_its_folder(tmp_path: Path, model: Path) -> None:
    files = ct(tmp_path / "one" / "dicom")
    first = predict_series(model, tmp_path / "one", tmp_path / "out")
    (tmp_path / "one").rename(tmp_path / "two")
    assert predict_series(model, tmp_path / "two", tmp_path / "out") == first
    (tmp_path / "two").rename(tmp_path / "one")
    (tmp_path / "one" / "dicom" / files[-1].name).unlink()
    assert predict_series(model, tmp_path / "one", tmp_path / "out") == first


def test_masks_that_nobody_marked_are_left_alone(tmp_path: Path, model: Path) -> None:
    ct(tmp_path / "data" / "dicom")
    (tmp_path / "out" / "dicom").mkdir(parents=True)
    (tmp_path / "out" / "dicom" / "mask.nii.gz").write_text("drawn by hand")
    written = predict_series(model, tmp_path / "data", tmp_path / "out")
    assert (tmp_path / "out" / "dicom" / "mask.nii.gz").read_text() == "drawn by hand"
    assert written[0].parent != tmp_path / "out" / "dicom"


def sheared(row: float = 0.0, slices: float = 0.0) -> NDArray[np.float64]:
    affine = np.array([[-2.0, 0, 0, 60], [0, -2, 0, 70], [0, 0, 3, 100], [0, 0, 0, 1]])
    affine[0, 1], affine[1, 2] = row, slices
    return affine


def nifti(path: Path, affine: NDArray[np.float64], codes: tuple[int, int] = (0, 2)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(body().transpose(2, 1, 0), None)
    image.set_sform(affine, codes[1])
    image.set_qform(affine, codes[0], strip_shears=True)
    nib.save(image, path)
    return path


def test_a_nifti_mask_lies_on_its_ct_to_the_bit(tmp_path: Path, model: Path) -> None:
    affine = sheared()
    affine[:3, :3] = affine[:3, :3] @ np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    path = nifti(tmp_path / "ct.nii.gz", affine + 1e-7, codes=(1, 3))
    mask, seg = predict_series(model, path, tmp_path / "out")
    theirs, ours = nib.load(path), nib.load(mask)
    assert np.array_equal(ours.affine, theirs.affine)
    assert ours.get_data_dtype() == np.uint8
    for field in ("qform_code", "sform_code", "quatern_d", "qoffset_x", "srow_x", "pixdim"):
        assert np.array_equal(np.ravel(ours.header[field])[:4], np.ravel(theirs.header[field])[:4])
    assert hd.seg.segread(seg).number_of_segments == 2


@pytest.mark.parametrize(("row", "slices", "files"), [(0.6, 0.0, 1), (0.0, 0.8, 2)])
def test_a_sheared_nifti_keeps_its_shear_and_has_a_dicom_mask_only_where_one_can_lie(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture, row: float, slices: float, files: int
) -> None:
    path = nifti(tmp_path / "ct.nii.gz", sheared())
    predict_series(model, path, tmp_path / "out")
    nifti(path, sheared(row, slices))
    written = predict_series(model, path, tmp_path / "out", PrepareSettings(max_tilt_degrees=30))
    assert len(written) == files
    assert np.array_equal(nib.load(written[0]).affine, nib.load(path).affine)
    assert (tmp_path / "out" / "ct" / "mask.dcm").exists() == (files == 2)
    assert ("no DICOM SEG: rows and columns" in caplog.text) == (files == 1)
    if files == 2:
        own = nib.load(path).affine
        frames = pydicom.dcmread(written[1]).PerFrameFunctionalGroupsSequence
        places = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames]
        expected = [np.diag([-1.0, -1, 1]) @ (own[:3, 3] + index * own[:3, 2]) for index in range(6) for _ in (1, 2)]
        np.testing.assert_allclose(sorted(np.array(places, float)[:, 2]), np.array(expected)[:, 2], atol=1e-3)
        np.testing.assert_allclose(sorted(-np.array(places, float)[:, 1]), -np.array(expected)[:, 1], atol=1e-3)


def test_what_an_interrupted_run_left_is_replaced(tmp_path: Path, model: Path) -> None:
    ct(tmp_path / "data")
    folder = tmp_path / "out" / "data"
    folder.mkdir(parents=True)
    for name in ("mask.dcm", "mask.nii.gz"):
        with atomic_write(folder / name, sole_writer=True) as partial:
            killed = partial  # its name, as a process has it that is killed now
            partial.touch()
        killed.write_bytes(b"half")
        (folder / name).unlink()
    written = predict_series(model, tmp_path / "data", tmp_path / "out")
    names = {".series", "mask.json", "mask.ctbl", *(path.name for path in written)}
    assert {path.name for path in folder.iterdir()} == names


def test_an_output_that_cannot_be_made_is_told_before_the_work(tmp_path: Path, model: Path) -> None:
    ct(tmp_path / "data")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="--out"):
        predict_series(model, tmp_path / "data", tmp_path / "out")


def test_names_and_numbers_of_patients_are_not_logged(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ct(tmp_path / "data", patient="SECRET" * 12):
        data = pydicom.dcmread(path)
        data.PatientName = "TOPSECRET^" * 8
        data.save_as(path)
    with caplog.at_level(logging.DEBUG):
        predict_series(model, tmp_path / "data", tmp_path / "out")
    assert "SECRET" not in caplog.text
    assert "PatientID" in caplog.text


def test_a_series_at_an_awkward_place_gets_its_own_folder_below_the_output(tmp_path: Path, model: Path) -> None:
    names = ["dot.", "percent%41%2F", "ภาษาไทย", "Case", "case", "e\u0301", "\u00e9", "mask.dcm", "a" * 250, " lead"]
    for number, name in enumerate(names):
        write_volume(folder_file(tmp_path / "data" / name), body(number, (2, 64, 64)), axial((2, 64, 64), (3, 2, 2)))
    written = predict_series(model, tmp_path / "data", tmp_path / "out")
    folders = {path.parent for path in written}
    assert len(folders) == len(names)
    assert all(folder.is_relative_to(tmp_path / "out") for folder in folders)
    assert len({str(folder).casefold() for folder in folders}) == len(names)


def folder_file(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder / "ct.nii.gz"
