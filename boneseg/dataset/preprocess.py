"""From HU to what a network sees, and back: the same function for training and for prediction."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from boneseg.hu import normalise
from boneseg.opencv import cv2
from boneseg.settings.schema import PreprocessSettings


def network_size(size: tuple[int, int], spacing: tuple[float, float], settings: PreprocessSettings) -> tuple[int, int]:
    """Return the rows and columns a slice has for the network.

    Args:
        size: rows and columns of the slice.
        spacing: mm between rows and between columns.
        settings: the spacing or size to which slices are resampled, if any.
    """
    if settings.size is not None:
        return settings.size, settings.size
    if settings.spacing_mm is None:
        return size
    return (
        max(1, round(size[0] * spacing[0] / settings.spacing_mm)),
        max(1, round(size[1] * spacing[1] / settings.spacing_mm)),
    )


def context(index: int, slices: int, distance_mm: float, settings: PreprocessSettings) -> list[int]:
    """Return the slices the network sees to label one, the first below it, the last above.

    Args:
        index: the slice to label.
        slices: of the series; beyond its ends the first or last slice is repeated.
        distance_mm: of two slices.
        settings: how many slices, and how far from each other.
    """
    steps = range(-(settings.slices // 2), settings.slices // 2 + 1)
    wanted = settings.slice_distance_mm or distance_mm
    # A neighbour is never the slice itself, however thick the slices are.
    apart = (int(np.sign(step)) * max(abs(step), round(abs(step) * wanted / distance_mm)) for step in steps)
    return [min(max(index + offset, 0), slices - 1) for offset in apart]


def resample(
    hu: NDArray[np.int16] | NDArray[np.float32], spacing: tuple[float, float], settings: PreprocessSettings
) -> NDArray[np.float32]:
    """Resample slices in plane: (slices, rows, columns) become (slices, h, w), as ``network_size`` says."""
    size = network_size((hu.shape[1], hu.shape[2]), spacing, settings)
    return resize(hu.astype(np.float32), size)


def to_network(
    hu: NDArray[np.int16], spacing: tuple[float, float], settings: PreprocessSettings
) -> NDArray[np.float32]:
    """Resample slices in plane and normalise them.

    Args:
        hu: (slices, rows, columns) in HU.
        spacing: mm between rows and between columns.
        settings: window, and spacing or size.

    Returns:
        (slices, h, w) float32 within 0..1; h and w as ``network_size`` says.
    """
    return normalise(resample(hu, spacing, settings), settings.window)


def images_of(
    hu: NDArray[np.int16], indices: Sequence[int], spacing: tuple[float, float, float], settings: PreprocessSettings
) -> NDArray[np.float32]:
    """Make the network's images of some slices of a volume, each with its neighbours as channels.

    Args:
        hu: (slices, rows, columns) in HU; a memory-mapped array is read slice by slice.
        indices: the slices to label.
        spacing: mm between slices, rows and columns.
        settings: window, spacing or size, and slices.

    Returns:
        (indices, settings.slices, h, w) float32 within 0..1.
    """
    stacks = [context(index, len(hu), spacing[0], settings) for index in indices]
    used = sorted({index for stack in stacks for index in stack})
    planes = to_network(np.asarray(hu[used]), spacing[1:], settings)
    place = {index: number for number, index in enumerate(used)}
    return planes[[[place[index] for index in stack] for stack in stacks]]


def from_network(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bring what the network says back onto the slice's own pixels, by linear interpolation.

    Args:
        values: logits or probabilities (..., h, w).
        size: rows and columns of the slice.

    Returns:
        (..., rows, columns).
    """
    flat = values.reshape(-1, *values.shape[-2:])
    return resize(flat, size).reshape(*values.shape[:-2], *size)


def labels_to_network(
    label: NDArray[np.uint8], spacing: tuple[float, float], settings: PreprocessSettings
) -> NDArray[np.uint8]:
    """Resample label slices (slices, rows, columns) like ``to_network``; the nearest label wins."""
    height, width = network_size((label.shape[1], label.shape[2]), spacing, settings)
    if (height, width) == label.shape[1:]:
        return label
    out = np.empty((len(label), height, width), dtype=np.uint8)
    for index, plane in enumerate(label):
        cv2.resize(plane, (width, height), dst=out[index], interpolation=cv2.INTER_NEAREST_EXACT)
    return out


def resize(planes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resample float planes (planes, rows, columns) to another size; area averages when shrinking, else linear."""
    if planes.shape[1:] == size:
        return planes
    shrinks = size[0] < planes.shape[1] and size[1] < planes.shape[2]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    out = np.empty((len(planes), *size), dtype=np.float32)
    for index, plane in enumerate(planes):
        cv2.resize(plane, (size[1], size[0]), dst=out[index], interpolation=method)
    return out
