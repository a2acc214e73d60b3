"""Stored pixels of CT files, and what they are in HU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_modality_lut
from scipy import ndimage

from boneseg.dicom.decode import decoded
from boneseg.dicom.file import broken, inflated
from boneseg.dicom.header import SliceHeader, StoredPixels
from boneseg.errors import SeriesError
from boneseg.hu import AIR_HU, to_hu
from boneseg.memory_budget import claim

WINDOWED = "8-bit grey values, as of a picture with a window applied, are not HU; export the original CT series"
_BYTES_A_PIXEL = 24
"""What a pixel takes at most on its way: stored, as 64-bit numbers, and as HU, some of them twice."""
_GREY = ("", "MONOCHROME1", "MONOCHROME2")
_LEAST_PADDING = 1e-3
"""Share of a picture that padding takes at least, where its value might be tissue."""
_FEW_JUMPS = 0.1
_OTHER_SIGN = 0.8
_MUCH = 0.1
_HIGHEST_SCANNED_HU = 30710
"""Highest HU of the extended CT scale; nothing else comes near."""
_DARKER_THAN_AIR_HU = -1100
_SURELY_AIR_HU = (-1100, -900)
_TISSUE_HU = (-100, 0)
_NO_AIR_HU = -200
"""Above this there is neither air nor lung nor gas."""
_ROWS = 2
"""Every so many rows of a picture are enough to see jumps between neighbours."""


def check_picture(header: SliceHeader) -> StoredPixels:
    """Return how a file keeps its pixels.

    Raises:
        SeriesError: its values cannot be read as HU; says why.
    """
    pixels = header.pixels
    if header.problem:
        fix = "" if ";" in header.problem else "; export it again"
        raise SeriesError(f"{header.name}: {header.problem}{fix}")
    if pixels is None:
        raise SeriesError(f"{header.name}: holds no image; remove it from the series")
    if pixels.samples != 1 or header.photometric not in _GREY:
        raise SeriesError(f"{header.name}: is a colour image, not CT; remove it from the series")
    if pixels.bits_allocated == 1 or (pixels.bits_allocated == 8 and pixels.big_endian):
        raise SeriesError(f"{header.name}: pixels of {pixels.bits_allocated} bits are not read; export the original CT")
    if is_windowed(header):
        raise SeriesError(f"{header.name}: {WINDOWED}")
    return pixels


def is_windowed(header: SliceHeader) -> bool:
    """Say whether a picture holds grey values of a screen, to which a window was applied, and not HU."""
    pixels = header.pixels
    rescaled = (header.slope, header.intercept) != (1.0, 0.0)
    return pixels is not None and pixels.bits_stored <= 8 and not pixels.lookup and not rescaled


def read_planes(path: Path, headers: Sequence[SliceHeader]) -> Iterator[NDArray[np.int16]]:
    """Read the pictures of one file.

    Args:
        path: the file.
        headers: all of its frames, in the order of the file.

    Yields:
        HU, (rows, columns): rescaled, rounded, and not below -1024 (padding becomes air).

    Raises:
        SeriesError: a picture is not greyscale CT, cut short, or compressed in an unknown way; says why.
    """
    first = headers[0]
    pixels = check_picture(first)
    values = first.rows * first.columns
    with claim(path.name, values * _BYTES_A_PIXEL + 3 * pixels.size):
        for header, raw in zip(headers, _raw(path, headers, pixels), strict=True):
            yield _to_hu(path, header, pixels, _as_the_header_says(header, pixels, raw))


def _raw(path: Path, headers: Sequence[SliceHeader], pixels: StoredPixels) -> Iterator[NDArray[np.integer]]:
    """Give stored values, (rows, columns); plain pixels come straight from their place in the file."""
    shape = (headers[0].rows, headers[0].columns)
    if pixels.offset is None:
        memory = shape[0] * shape[1] * _BYTES_A_PIXEL + 3 * pixels.size
        yield from decoded(path, headers[0].transfer_syntax, (len(headers), *shape), memory)
        return
    kind = np.dtype(f"{'i' if pixels.signed else 'u'}{pixels.bits_allocated // 8}")
    kind = kind.newbyteorder(">" if pixels.big_endian else "<")
    places = [header.pixels.offset for header in headers if header.pixels is not None]
    if pixels.deflated:
        content = inflated(path, pixels.size)
        for place in places:
            yield _values(path, np.frombuffer(content, kind, shape[0] * shape[1], place or 0), shape)
        return
    with path.open("rb") as file:
        for place in places:
            file.seek(place or 0)
            yield _values(path, np.fromfile(file, kind, shape[0] * shape[1]), shape)


def _values(path: Path, values: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.integer]:
    if values.size != shape[0] * shape[1]:
        raise broken(path)
    return values.astype(values.dtype.newbyteorder("="), copy=False).reshape(shape)


def _as_the_header_says(header: SliceHeader, pixels: StoredPixels, raw: NDArray[np.integer]) -> NDArray[np.integer]:
    """Drop bits outside the stored ones and carry the sign down, unless the picture shows that the header is wrong.

    Raises:
        SeriesError: BitsStored, HighBit or PixelRepresentation do not fit the values.
    """
    bits, stored = raw.dtype.itemsize * 8, min(pixels.bits_stored, raw.dtype.itemsize * 8)
    shift = pixels.high_bit - pixels.bits_stored + 1
    if shift:
        if (raw & ((1 << shift) - 1)).any():
            raise _unfit(header, "HighBit")
        raw = raw >> shift
    plain = raw if stored == bits else (raw << (bits - stored)) >> (bits - stored)
    if pixels.signed:  # what wraps around lies more than half of all values below its neighbour
        carries_sign = int(plain.max()) - int(plain.min()) > 1 << (stored - 1)
    else:
        carries_sign = int(np.count_nonzero(plain >= 1 << (stored - 1))) >= _MUCH / 2 * plain.size
    if carries_sign or (plain is not raw and not np.array_equal(plain, raw)):
        _check_bits(header, pixels, raw.astype(np.int64), plain.astype(np.int64))
    return plain


def _check_bits(header: SliceHeader, pixels: StoredPixels, raw: NDArray[np.int64], plain: NDArray[np.int64]) -> None:
    """Compare a picture as the header has it read with other readings: the right one has no jumps of its own."""
    measured, mask = ~_padding(header, pixels, plain), (1 << pixels.bits_stored) - 1
    if not np.array_equal(plain, raw) and not np.array_equal(plain & mask, raw):
        # Overlays and rubbish above the stored bits make jumps that are not in the picture without them; values that
        # need more bits than the header says make jumps where the upper bits are dropped.
        with_them, without = _jumps(raw, plain, measured)
        if without > _FEW_JUMPS * with_them:
            raise _unfit(header, "BitsStored")
    sign = (mask + 1) // 2
    high, all_of_it = int(np.count_nonzero(plain[measured] >= sign)), int(np.count_nonzero(measured))
    if pixels.lookup or (not pixels.signed and high < _MUCH * all_of_it):
        return  # bone, metal and markers on the skin are few; what is below 0 HU, read without its sign, is much
    other = plain & mask if pixels.signed else ((plain + sign) & mask) - sign
    as_said, otherwise = _jumps(plain, other, measured)
    if otherwise < _OTHER_SIGN * as_said:
        # Metal, cement and dry bone beside air jump as far as a wrong sign does: only HU that cannot be prove it.
        hu, other_hu = (values * header.slope + header.intercept for values in (plain, other))
        wrong = _wraps_below(hu, measured) if pixels.signed else _lies_too_high(hu[measured], other_hu[measured])
        if wrong:
            raise _unfit(header, "PixelRepresentation")


def _lies_too_high(hu: NDArray[Any], other: NDArray[Any]) -> bool:
    """Say whether HU of unsigned values are impossible: more than any scanner gives, or bright where air must be."""
    if np.count_nonzero(hu > _HIGHEST_SCANNED_HU) >= _MUCH * hu.size:
        return True
    air = np.count_nonzero((other >= _SURELY_AIR_HU[0]) & (other <= _SURELY_AIR_HU[1]))
    return bool(hu.min() > _NO_AIR_HU and air >= _MUCH * hu.size)


def _wraps_below(hu: NDArray[Any], measured: NDArray[np.bool_]) -> bool:
    """Say whether values darker than air lie within the picture; at its border one value all over is padding."""
    parts, count = ndimage.label((hu < _DARKER_THAN_AIR_HU) & measured)
    if count == 0:
        return False
    numbers = np.arange(1, count + 1)
    flat = ndimage.minimum(hu, parts, numbers) == ndimage.maximum(hu, parts, numbers)
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return not bool((flat & np.isin(numbers, border)).all())


def _unfit(header: SliceHeader, keyword: str) -> SeriesError:
    return SeriesError(f"{header.name}: {keyword} does not fit its values, which would be wrong; export it again")


def _padding(header: SliceHeader, pixels: StoredPixels, values: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which values are padding by the header; a range that holds all of fat and water cannot be meant."""
    if pixels.padding is None:
        return np.zeros(values.shape, dtype=bool)
    low, high = pixels.padding
    fat, water = ((hu - header.intercept) / header.slope for hu in _TISSUE_HU)
    if low < fat and high > water and not pixels.lookup:
        high = low
    return (values >= low) & (values <= high)


def _jumps(one: NDArray[np.integer], other: NDArray[np.integer], measured: NDArray[np.bool_]) -> tuple[float, float]:
    """Return how far neighbours are apart by two readings of the same picture, where the readings differ in it."""
    first, second = (np.diff(picture[::_ROWS], axis=1) for picture in (one, other))
    differ = (first != second) & measured[::_ROWS, 1:] & measured[::_ROWS, :-1]
    return float(np.abs(first[differ]).sum()), float(np.abs(second[differ]).sum())


def _to_hu(path: Path, header: SliceHeader, pixels: StoredPixels, raw: NDArray[np.integer]) -> NDArray[np.int16]:
    hu = to_hu(_looked_up(path, raw)) if pixels.lookup else to_hu(raw, header.slope, header.intercept)
    if pixels.padding is not None:
        padding = _padding(header, pixels, raw)
        hu[padding if (hu[padding] == AIR_HU).all() else _outside(padding)] = AIR_HU
    return hu


def _outside(padding: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the part of the padding that surrounds the scanner's field of view: it covers corners of the picture.

    Exporters write padding values that tissue has too; what is surrounded by other values was measured.
    """
    parts, _ = ndimage.label(padding)
    corners = {int(parts[row, column]) for row in (0, -1) for column in (0, -1)} - {0}
    sizes = np.bincount(parts.ravel())
    return np.isin(parts, [part for part in corners if sizes[part] >= _LEAST_PADDING * padding.size])


def _looked_up(path: Path, raw: NDArray[np.integer]) -> NDArray[Any]:
    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        table = data.ModalityLUTSequence[0]
        if len(table.LUTDescriptor) != 3 or not 1 <= table.LUTDescriptor[2] <= 16:
            raise ValueError
        return np.asarray(apply_modality_lut(raw.astype(np.int64), data)).astype(np.int64)
    except Exception as error:  # pydicom has no error of its own for an unfit table
        raise SeriesError(f"{path.name}: its Modality LUT is incomplete or damaged; export it again") from error
