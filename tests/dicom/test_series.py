import math
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.header import read_header
from boneseg.dicom.series import read_series, read_slice, sort_slices
from boneseg.errors import SeriesError
from boneseg.geometry import Geometry, axial

SHAPE = (6, 40, 48)


def volume(seed: int = 0) -> NDArray[np.int16]:
    """Noise over a ramp, from air to metal, as int16 HU."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(-1000, 2500, SHAPE[2])
    return np.maximum(ramp + rng.normal(0, 20, SHAPE), -1024).astype(np.int16)


def turned(degrees: tuple[float, float, float], spacing: tuple[float, float, float] = (3.0, 0.8, 0.9)) -> Geometry:
    """Turn an axial volume about the three patient axes, away from the origin."""
    rotation = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
        rotation = turn @ rotation
    geometry = axial(SHAPE, spacing)
    geometry.affine[:3, :3] = rotation @ geometry.affine[:3, :3]
    geometry.affine[:3, 3] = (-31.0, 12.5, 404.25)
    return geometry


def series(folder: Path, geometry: Geometry | None = None, seed: int = 0) -> tuple[list[Path], NDArray[np.int16]]:
    hu = volume(seed)
    return write_ct_series(folder, hu, geometry or axial(SHAPE, (3.0, 0.8, 0.9)), identity=str(folder)), hu


def change(path: Path, **tags: object) -> None:
    data = pydicom.dcmread(path)
    for keyword, value in tags.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    data.save_as(path)


def transcode(path: Path, syntax: int) -> None:
    """Compress a file with GDCM, an encoder that is not ours."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    changer = gdcm.ImageChangeTransferSyntax()
    changer.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    changer.SetInput(reader.GetImage())
    assert changer.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(changer.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize("degrees", [(0, 0, 0), (0, 0, 90), (90, 0, 0), (0, 90, 0), (180, 0, 0), (12, -25, 40)])
def test_voxels_and_geometry_agree_with_simpleitk_in_any_orientation(
    tmp_path: Path, degrees: tuple[float, float, float]
) -> None:
    files, _ = series(tmp_path, turned(degrees))
    hu, geometry, warnings = read_series(files[::-1])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    assert np.array_equal(hu, sitk.GetArrayFromImage(image))
    for index in [(0, 0, 0), (5, 39, 47), (2, 7, 31)]:
        place = image.TransformContinuousIndexToPhysicalPoint([float(value) for value in index[::-1]])
        np.testing.assert_allclose(geometry.to_patient(np.array([index], dtype=float))[0], place, atol=1e-3)
    assert warnings == []


@pytest.mark.parametrize(
    "syntax",
    [
        gdcm.TransferSyntax.JPEG2000Lossless,
        gdcm.TransferSyntax.JPEGLSLossless,
        gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        gdcm.TransferSyntax.RLELossless,
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_compressed_slices_decode_to_the_very_same_values(tmp_path: Path, syntax: int, signed: bool) -> None:
    files, hu = series(tmp_path)
    if signed:
        pixels = hu[2].astype("<i2").tobytes()
        change(files[2], PixelRepresentation=1, BitsStored=16, HighBit=15, RescaleIntercept="0", PixelData=pixels)
    transcode(files[2], syntax)
    header = read_header(files[2])
    assert header is not None
    assert header.pixels is not None
    assert header.pixels.offset is None
    assert np.array_equal(read_slice(files[2]), hu[2])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_a_written_series_reads_back_in_every_transfer_syntax(tmp_path: Path, syntax: str) -> None:
    hu, geometry = volume(), axial(SHAPE, (3.0, 0.8, 0.9))
    files = write_ct_series(tmp_path, hu, geometry, identity="a", transfer_syntax=syntax)
    back, place, _ = read_series(files)
    assert np.array_equal(back, hu)
    assert place == geometry
    assert {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in files} == {syntax}


def test_big_endian_pixels_are_read_by_their_own_byte_order(tmp_path: Path) -> None:
    files, hu = series(tmp_path)
    data = pydicom.dcmread(files[0])
    data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(files[0], data, little_endian=False, implicit_vr=False)
    assert np.array_equal(read_slice(files[0]), hu[0])


@settings(max_examples=40, deadline=None)
@given(
    signed=st.booleans(),
    stored=st.sampled_from([10, 12, 16]),
    slope=st.sampled_from([1.0, 0.5, 1.7, 20.0]),
    intercept=st.sampled_from([-1024.0, 0.0, -1000.5, 300.0]),
    seed=st.integers(0, 99),
)
def test_hu_follow_the_formula_for_any_pixel_format(
    tmp_path_factory: pytest.TempPathFactory, signed: bool, stored: int, slope: float, intercept: float, seed: int
) -> None:
    path = write_ct_series(tmp_path_factory.mktemp("s"), volume()[:1], axial((1, 40, 48), (1, 1, 1)), identity="a")[0]
    low, high = (-(1 << stored - 1), (1 << stored - 1) - 1) if signed else (0, (1 << stored) - 1)
    raw = np.random.default_rng(seed).integers(low, high, (40, 48), endpoint=True)
    pixels = (raw & 0xFFFF).astype("<u2").tobytes()
    change(
        path,
        PixelRepresentation=int(signed),
        BitsStored=stored,
        HighBit=stored - 1,
        RescaleSlope=str(slope),
        RescaleIntercept=str(intercept),
        PixelData=pixels,
    )
    expected = np.clip(np.rint(raw * slope + intercept), -1024, 32767)
    assert np.array_equal(read_slice(path), expected)


def test_bits_above_the_stored_ones_do_not_reach_hu(tmp_path: Path) -> None:
    files, hu = series(tmp_path)
    data = pydicom.dcmread(files[0])
    with_overlay = np.frombuffer(data.PixelData, "<u2") | 0x8000
    change(files[0], BitsStored=12, HighBit=11, PixelData=with_overlay.tobytes())
    assert np.array_equal(read_slice(files[0]), hu[0])


def test_padding_becomes_air_even_where_it_would_be_bright(tmp_path: Path) -> None:
    files, hu = series(tmp_path)
    stored = np.array(hu[0] + 1024, dtype="<u2")
    stored[:5] = 4095
    change(files[0], PixelData=stored.tobytes())
    data = pydicom.dcmread(files[0])
    data.add_new("PixelPaddingValue", "US", 4095)
    data.save_as(files[0])
    read = read_slice(files[0])
    assert (read[:5] == -1024).all()
    assert np.array_equal(read[5:], hu[0, 5:])


def test_a_modality_lookup_table_takes_the_place_of_the_slope(tmp_path: Path) -> None:
    path = write_ct_series(tmp_path, volume()[:1], axial((1, 40, 48), (1, 1, 1)), identity="a")[0]
    data = pydicom.dcmread(path)
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, 16])
    table.add_new("ModalityLUTType", "LO", "HU")
    table.add_new("LUTData", "US", [min(3 * value, 1000) for value in range(256)])
    raw = np.random.default_rng(0).integers(0, 255, (40, 48))
    data.ModalityLUTSequence = [table]
    data.PixelData = raw.astype("<u2").tobytes()
    del data.RescaleSlope, data.RescaleIntercept, data.RescaleType
    data.save_as(path)
    assert np.array_equal(read_slice(path), np.minimum(3 * raw, 1000))


def test_missing_rescale_tags_are_taken_as_hu_with_a_warning(tmp_path: Path) -> None:
    files, hu = series(tmp_path)
    for path, plane in zip(files, hu, strict=True):
        pixels = np.maximum(plane, 0).astype("<u2").tobytes()
        change(path, RescaleSlope=None, RescaleIntercept=None, PixelData=pixels)
    read, _, warnings = read_series(files)
    assert np.array_equal(read, np.maximum(hu, 0))
    assert any("taken as HU" in warning for warning in warnings)


def test_order_comes_from_positions_not_from_names_or_instance_numbers(tmp_path: Path) -> None:
    files, hu = series(tmp_path)
    shuffled = [3, 0, 5, 1, 4, 2]
    renamed = []
    for number, index in enumerate(shuffled):
        change(files[index], InstanceNumber=100 - index if index % 2 else index)
        renamed.append(files[index].rename(tmp_path / f"file{number}.dcm"))
    read, geometry, _ = read_series(renamed)
    assert np.array_equal(read, hu)
    assert geometry == axial(SHAPE, (3.0, 0.8, 0.9))


def refusal(files: list[Path], **limits: float) -> str:
    with pytest.raises(SeriesError) as caught:
        read_series(files, **limits)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_one_slice_is_refused(tmp_path: Path) -> None:
    assert "only one slice" in refusal(series(tmp_path)[0][:1])


def test_a_missing_slice_is_refused_by_name_unless_allowed(tmp_path: Path) -> None:
    files, _ = series(tmp_path)
    del files[3]
    message = refusal(files)
    assert "slice-0003.dcm" in message
    assert "slice-0005.dcm" in message
    assert read_series(files, max_gap=2.5)[2]


def test_two_slices_at_one_position_are_refused_by_name(tmp_path: Path) -> None:
    files, _ = series(tmp_path)
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(files[2].read_bytes())
    message = refusal([*files, copy])
    assert "same position" in message
    assert "copy.dcm" in message


def test_mixed_sizes_orientations_and_spacings_are_refused(tmp_path: Path) -> None:
    files, _ = series(tmp_path)
    whole = files[1].read_bytes()
    change(files[1], Rows=20, PixelData=b"\0\0" * 20 * 48)
    assert "mixed sizes" in refusal(files)
    files[1].write_bytes(whole)
    change(files[1], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    assert "mixed orientation" in refusal(files)
    files[1].write_bytes(whole)
    change(files[1], PixelSpacing=[0.7, 0.9])
    assert "pixel spacing" in refusal(files)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_slice_of_unknown_place_is_refused_by_name(tmp_path: Path, keyword: str) -> None:
    files, _ = series(tmp_path)
    change(files[4], **{keyword: None})
    assert "slice-0005.dcm" in refusal(files)


def tilted(folder: Path, degrees: float) -> list[Path]:
    geometry = axial(SHAPE, (3.0, 0.8, 0.9))
    geometry.affine[1, 0] = 3.0 * math.tan(math.radians(degrees))
    return series(folder, geometry)[0]


def test_a_tilted_gantry_is_refused_and_a_slight_tilt_kept_in_the_geometry(tmp_path: Path) -> None:
    assert "tilted by 12.0 degrees" in refusal(tilted(tmp_path / "a", 12))
    _, geometry, warnings = read_series(tilted(tmp_path / "b", 0.6))
    assert geometry.affine[1, 0] == pytest.approx(3 * math.tan(math.radians(0.6)), abs=1e-4)
    assert "tilted" in warnings[0]
    assert read_series(tilted(tmp_path / "c", 12), max_tilt_degrees=15)[1].affine[1, 0] > 0.6


def test_slices_shifted_against_each_other_are_refused(tmp_path: Path) -> None:
    files, _ = series(tmp_path)
    change(files[3], ImagePositionPatient=[40.0, 0.0, 9.0])
    assert "shifted" in refusal(files)


@pytest.mark.parametrize("share", [0.03, 0.2, 0.5, 0.99])
def test_a_cut_file_is_named_wherever_it_was_cut(tmp_path: Path, share: float) -> None:
    files, _ = series(tmp_path)
    whole = files[2].read_bytes()
    files[2].write_bytes(whole[: 132 + int((len(whole) - 132) * share)])
    message = refusal(files)
    assert "slice-0003.dcm" in message
    assert "cut short" in message


@pytest.mark.parametrize("missing", [12, 100, 600])
def test_a_cut_compressed_file_is_named(tmp_path: Path, missing: int) -> None:
    files, _ = series(tmp_path)
    transcode(files[2], gdcm.TransferSyntax.JPEG2000Lossless)
    whole = files[2].read_bytes()
    files[2].write_bytes(whole[:-missing])
    assert "slice-0003.dcm" in refusal(files)


def test_other_files_are_not_dicom(tmp_path: Path) -> None:
    text = tmp_path / "readme.txt"
    text.write_text("nothing " * 100)
    assert read_header(text) is None
    (tmp_path / "empty").touch()
    assert read_header(tmp_path / "empty") is None
    with pytest.raises(SeriesError, match=r"readme\.txt"):
        read_slice(text)


def test_a_file_without_preamble_is_still_read(tmp_path: Path) -> None:
    files, hu = series(tmp_path)
    data = pydicom.dcmread(files[0])
    del data.file_meta
    data.preamble = None
    old = tmp_path / "old.dcm"
    data.save_as(old, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert old.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(read_slice(old), hu[0])


def test_multi_frame_images_are_refused_with_a_way_out(tmp_path: Path) -> None:
    files, _ = series(tmp_path)
    change(files[0], NumberOfFrames=2, PixelData=b"\0\0" * 2 * 40 * 48)
    with pytest.raises(SeriesError, match=r"2 frames .*; convert"):
        read_slice(files[0])


def test_real_compressed_slices_with_empty_uids_agree_with_simpleitk(shared_series: Path) -> None:
    files = sorted((shared_series / "totalsegmentator-thorax-20" / "dicom").iterdir())
    hu, geometry, _ = read_series(files)
    first, last = read_header(files[0]), read_header(files[-1])
    assert first is not None
    assert last is not None
    assert first.series_uid == ""
    middle = sitk.GetArrayFromImage(sitk.ReadImage(str(files[7])))[0]
    header = read_header(files[7])
    assert header is not None
    assert header.position is not None
    place = round((header.position[2] - geometry.affine[2, 3]) / geometry.spacing[0])
    assert np.array_equal(hu[place], np.maximum(middle, -1024))


def test_real_series_agree_with_simpleitk(shared_series: Path) -> None:
    folder = shared_series / "acrin-flt-breast-001-thorax" / "dicom"
    hu, geometry, _ = read_series(list(folder.iterdir()))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    assert np.array_equal(hu, np.maximum(sitk.GetArrayFromImage(image), -1024))
    np.testing.assert_allclose(geometry.affine[:3, 3], image.GetOrigin())


def test_sorting_needs_headers_only(tmp_path: Path) -> None:
    headers = [header for path in series(tmp_path)[0] if (header := read_header(path))]
    result = sort_slices(headers[::-1], 1.5, 1.0)
    assert result.order == [5, 4, 3, 2, 1, 0]
    assert result.geometry.shape == SHAPE
