"""Stored values become HU as the file says, and where the file contradicts itself, it is refused with the cause."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from boneseg.dicom.series import read_slice
from boneseg.ingest.local import local_series
from tests.dicom.pixel_files import SHAPE, Change, body, raw, refusal, slices, store


@pytest.mark.parametrize("value", [1064, 1024, 1030, 24, 2524])
def test_padding_that_is_tissue_stays_tissue(tmp_path: Path, value: int) -> None:
    path = slices(tmp_path, lambda data: data.add_new("PixelPaddingValue", "US", value))[0]
    assert np.array_equal(read_slice(path), body()[0])


def test_markers_on_the_skin_and_metal_stay_what_they_are(tmp_path: Path) -> None:
    """Next to air the brightest value of 12 bits looks like -1 without its sign; but such pixels are few."""
    hu = body()
    hu[:, 2:5, 2:5] = 3071
    hu[:, 30:33, 30:33] = 3071
    hu[:, 20, :] = np.where(np.arange(SHAPE[2]) % 3 == 0, 3071, hu[:, 20, :])
    path = slices(tmp_path, hu=hu)[0]
    assert pydicom.dcmread(path).BitsStored == 12
    assert np.array_equal(read_slice(path), hu[0])


def test_even_tissue_without_noise_stays_tissue(tmp_path: Path) -> None:
    flat = np.where(body() > -500, 40, -1000).astype(np.int16)
    path = slices(tmp_path, lambda data: data.add_new("PixelPaddingValue", "US", 1064), flat)[0]
    assert np.array_equal(read_slice(path), flat[0])


@pytest.mark.parametrize("block", [0, 40, 1500, -100])
@pytest.mark.parametrize("declared", [None, 24, 4000])
def test_a_flat_block_in_a_corner_is_padding_only_where_its_value_is_declared(
    tmp_path: Path, block: int, declared: int | None
) -> None:
    hu = body()
    hu[:, :16, :20] = block

    def pad(data: pydicom.Dataset) -> None:
        if declared is not None:
            data.add_new("PixelPaddingValue", "US", declared)

    read = read_slice(slices(tmp_path, pad, hu)[0])
    inside = hu[0] > -500
    assert np.array_equal(read[inside], hu[0][inside])
    assert (read[~inside] < -500).all()


def test_a_range_of_padding_that_holds_tissue_is_not_believed(tmp_path: Path) -> None:
    def pad(data: pydicom.Dataset) -> None:
        values = raw(data)
        values[:5] = 0
        store(data, values)
        data.add_new("PixelPaddingValue", "US", 0)
        data.add_new("PixelPaddingRangeLimit", "US", 1200)

    read = read_slice(slices(tmp_path, pad)[0])
    assert (read[:5] == -1024).all()
    assert np.array_equal(read[5:], body()[0, 5:])


@pytest.mark.parametrize("value", [0, 3, 1024, 1064, 4000, 63536])
def test_what_surrounds_the_field_of_view_becomes_air_whatever_its_value(tmp_path: Path, value: int) -> None:
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    outside = (y - 32) ** 2 + (x - 32) ** 2 >= 31**2

    def pad(data: pydicom.Dataset) -> None:
        store(data, np.where(outside, value, raw(data)))
        data.add_new("PixelPaddingValue", "US", value)

    path = slices(tmp_path, pad)[0]
    assert np.array_equal(read_slice(path), np.where(outside, -1024, body()[0]))


def test_a_padding_value_written_without_its_sign_is_the_same_bits(tmp_path: Path) -> None:
    def pad(data: pydicom.Dataset) -> None:
        values = raw(data) - 1024
        values[:5] = 200 - 1024
        store(data, values, signed=True)
        data.RescaleIntercept = 0
        data.add_new("PixelPaddingValue", "US", (200 - 1024) & 0xFFFF)

    path = slices(tmp_path, pad)[0]
    assert (read_slice(path)[:5] == -1024).all()
    assert np.array_equal(read_slice(path)[5:], body()[0, 5:])


def metal(data: pydicom.Dataset) -> None:
    """Values that need 13 bits, in a file that says 12."""
    values = raw(data)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    values += np.maximum(0, 6000 - 300 * np.hypot(y - 20, x - 20)).astype(np.int64)
    store(data, values, stored=12)


def signed_called_unsigned(data: pydicom.Dataset) -> None:
    data.RescaleIntercept = 0
    store(data, raw(data) - 1024, signed=False)


def signed_12_called_unsigned(data: pydicom.Dataset) -> None:
    data.RescaleIntercept = 0
    store(data, (raw(data) - 1024) & 0xFFF, stored=12, signed=False)


def unsigned_called_signed(data: pydicom.Dataset) -> None:
    store(data, raw(data), stored=12, signed=True)


def signed_padding_called_unsigned(data: pydicom.Dataset) -> None:
    values = raw(data)
    values[:, :8] = -2000
    store(data, values, signed=False)


def unsigned_16_called_signed(data: pydicom.Dataset) -> None:
    data.RescaleIntercept = -32768
    store(data, raw(data) - 1024 + 32768, signed=True)


def high_bit_too_high(data: pydicom.Dataset) -> None:
    data.BitsStored, data.HighBit = 12, 14


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (metal, "BitsStored does not fit"),
        (signed_called_unsigned, "PixelRepresentation does not fit"),
        (signed_12_called_unsigned, "PixelRepresentation does not fit"),
        (signed_padding_called_unsigned, "PixelRepresentation does not fit"),
        (unsigned_called_signed, "PixelRepresentation does not fit"),
        (unsigned_16_called_signed, "PixelRepresentation does not fit"),
        (high_bit_too_high, "HighBit does not fit"),
    ],
)
def test_bits_that_do_not_hold_the_values_are_refused_rather_than_wrapped(
    tmp_path: Path, change: Change, cause: str
) -> None:
    assert cause in refusal(slices(tmp_path, change)[0])


def blocks(value: int, size: int, around: int = -1000) -> NDArray[np.int16]:
    """Many hard-edged blocks of one material in air or in another one: implants, cement, dry bone, test bodies."""
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    block = (y // size + x // size) % 2 == 0
    noise = np.random.default_rng(1).integers(-15, 16, SHAPE)
    return (np.where(block, value, around) + noise).clip(-1024, 32767).astype(np.int16)


@pytest.mark.parametrize(
    ("hu", "stored", "signed", "slope", "intercept"),
    [
        (blocks(1800, 4), 12, False, 1, -1024),
        (blocks(3071, 2), 12, False, 1, -1024),
        (blocks(2500, 8, around=40), 12, False, 1, -1024),
        (blocks(3000, 8, around=1500), 12, False, 1, 0),
        (blocks(20000, 4), 12, False, 10, -10240),
        (blocks(30000, 4), 16, False, 1, -1024),
        (blocks(2500, 4), 16, False, 1, -32768),
        (blocks(30000, 4), 16, False, 1, -32768),
        (blocks(30000, 4), 16, True, 1, 0),
        (blocks(1900, 4), 12, True, 1, 0),
        (blocks(3000, 4), 12, True, 1, 1024),
        (blocks(12000, 4), 15, False, 0.5, -1024),
    ],
)
def test_much_of_something_dense_is_read_as_the_header_says(
    tmp_path: Path, hu: NDArray[np.int16], stored: int, signed: bool, slope: float, intercept: int
) -> None:
    def dense(data: pydicom.Dataset) -> None:
        plane = hu[int(data.InstanceNumber) - 1].astype(np.int64)
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
        low, high = (-(1 << (stored - 1)), (1 << (stored - 1)) - 1) if signed else (0, (1 << stored) - 1)
        store(data, np.rint((plane - intercept) / slope).clip(low, high), stored=stored, signed=signed)

    path = slices(tmp_path, dense)[0]
    data = pydicom.dcmread(path)
    expected = np.rint(data.pixel_array * float(slope) + intercept).clip(-1024, 32767)
    assert np.array_equal(read_slice(path), expected)


def test_a_field_of_view_cut_through_the_patient_may_be_padded_undeclared(tmp_path: Path) -> None:
    """Beside tissue -2048 of 12 bits looks like 2048 without its sign; a scanner writes it all the same."""
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    outside = (y - 32) ** 2 + (x - 32) ** 2 >= 31**2
    tissue = blocks(1400, 4, around=300)[0]

    def pad(data: pydicom.Dataset) -> None:
        data.RescaleIntercept = 0
        store(data, np.where(outside, -2048, tissue), stored=12, signed=True)

    assert np.array_equal(read_slice(slices(tmp_path, pad)[0]), np.where(outside, -1024, tissue))


@pytest.mark.parametrize("bits", [0x1000, 0x8000, 0xA000, 0xF000])
@pytest.mark.parametrize("where", ["everywhere", "an overlay", "here and there"])
def test_what_lies_above_the_stored_bits_is_dropped(tmp_path: Path, bits: int, where: str) -> None:
    marked = np.ones(SHAPE[1:], dtype=bool)
    if where == "an overlay":
        marked[:] = False
        marked[20:40, 30:32] = True
    if where == "here and there":
        marked = np.random.default_rng(0).random(SHAPE[1:]) < 0.5
    path = slices(tmp_path, lambda data: store(data, raw(data) | np.where(marked, bits, 0), stored=12))[0]
    assert np.array_equal(read_slice(path), body()[0])


def test_values_kept_in_the_upper_bits_are_shifted_down(tmp_path: Path) -> None:
    def shift(data: pydicom.Dataset) -> None:
        store(data, raw(data) << 4)
        data.BitsStored, data.HighBit = 12, 15

    assert np.array_equal(read_slice(slices(tmp_path, shift)[0]), body()[0])


def test_signed_values_of_fewer_bits_come_back_with_or_without_their_sign_carried_up(tmp_path: Path) -> None:
    for name, mask in (("carried", 0xFFFF), ("not", 0x0FFF)):

        def signed(data: pydicom.Dataset, mask: int = mask) -> None:
            data.RescaleIntercept = 0
            store(data, (raw(data) - 1024) & mask, stored=12, signed=True)

        assert np.array_equal(read_slice(slices(tmp_path / name, signed)[0]), body()[0])


@pytest.mark.parametrize("bits", [8, 32])
def test_pixels_of_other_widths_are_read_where_they_are_hu(tmp_path: Path, bits: int) -> None:
    def wide(data: pydicom.Dataset) -> None:
        data.BitsAllocated = data.BitsStored = bits
        data.HighBit = bits - 1
        data.RescaleSlope, data.RescaleIntercept = (20, -1000) if bits == 8 else (1, -1024)
        values = np.clip(raw(data) // 20, 0, 255) if bits == 8 else raw(data)
        data.PixelData = values.astype(f"<u{bits // 8}").tobytes()

    expected = np.clip((body()[0].astype(int) + 1024) // 20, 0, 255) * 20 - 1000 if bits == 8 else body()[0]
    assert np.array_equal(read_slice(slices(tmp_path, wide)[0]), expected)


def windowed(data: pydicom.Dataset) -> None:
    values = np.clip(raw(data) - 900, 0, 255)
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.PixelData = values.astype("u1").tobytes()
    del data.RescaleSlope, data.RescaleIntercept


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"])
def test_a_windowed_picture_is_called_what_it_is(tmp_path: Path, sop_class: str) -> None:
    def screenshot(data: pydicom.Dataset) -> None:
        windowed(data)
        data.SOPClassUID = sop_class

    slices(tmp_path, screenshot)
    rows, problems = local_series(tmp_path)
    assert rows == ()
    assert "window applied" in problems[0].reason
    assert "export the original CT" in problems[0].reason


def test_the_display_of_a_ct_does_not_change_its_hu(tmp_path: Path) -> None:
    path = slices(tmp_path, lambda data: setattr(data, "PhotometricInterpretation", "MONOCHROME1"))[0]
    assert np.array_equal(read_slice(path), body()[0])


@pytest.mark.parametrize("kind", ["PALETTE COLOR", "RGB", "YBR_FULL"])
def test_colours_are_not_ct(tmp_path: Path, kind: str) -> None:
    assert "colour" in refusal(slices(tmp_path, lambda data: setattr(data, "PhotometricInterpretation", kind))[0])


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("Rows", 63),
        ("Rows", 65),
        ("Columns", 63),
        ("Columns", 1),
        ("Rows", 65535),
        ("BitsAllocated", 8),
        ("BitsAllocated", 32),
        ("BitsAllocated", 12),
        ("BitsStored", 0),
        ("BitsStored", 17),
        ("HighBit", 3),
        ("SamplesPerPixel", 3),
        ("PixelRepresentation", 2),
    ],
)
def test_numbers_that_disagree_with_the_pixels_are_refused(tmp_path: Path, keyword: str, value: int) -> None:
    refusal(slices(tmp_path, lambda data: setattr(data, keyword, value))[0])
