"""A trained network and a CT volume in, a mask of the same shape out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boneseg.dataset.preprocess import from_network, images_of
from boneseg.geometry import Geometry
from boneseg.models.build import AnySize
from boneseg.models.precision import Precision, choose_precision
from boneseg.settings.schema import PreprocessSettings


@dataclass(frozen=True)
class Labels:
    """What a network says of some slices, on two grids."""

    mask: NDArray[np.uint8]
    """(slice, row, column), on the slices' own pixels."""
    output: NDArray[np.uint8] | None
    """(slice, h, w), on the grid on which the network answers, from the same scores; none = that is the slices' own."""


def predict_volume(
    network: nn.Module,
    preprocess: PreprocessSettings,
    hu: NDArray[np.int16],
    geometry: Geometry,
    batch_size: int = 4,
    device: str = "cpu",
    slices: Sequence[int] | None = None,
) -> NDArray[np.uint8]:
    """Label every voxel of a volume, a few slices at a time: floats of the whole volume never exist.

    Args:
        network: as ``models.checkpoint.load_model`` returns it.
        preprocess: from the model's card.
        hu: (slice, row, column) in axial order, HU. A memory-mapped array is read slice by slice.
        geometry: of ``hu``; its spacing matters where ``preprocess`` resamples or shows neighbouring slices.
        batch_size: slices at a time.
        device: ``cpu``, ``cuda`` or ``auto``.
        slices: which to label; none = all.

    Returns:
        Class of each voxel, the shape of ``hu``, or of those slices. The same input gives the same mask.
    """
    return predict_both(network, preprocess, hu, geometry, batch_size, device, slices).mask


def predict_both(
    network: nn.Module,
    preprocess: PreprocessSettings,
    hu: NDArray[np.int16],
    geometry: Geometry,
    batch_size: int = 4,
    device: str = "cpu",
    slices: Sequence[int] | None = None,
) -> Labels:
    """Do what ``predict_volume`` does, and label the network's own grid too, in the same pass."""
    precision = choose_precision(device)
    network = precision.place(network).eval()
    wanted = range(len(hu)) if slices is None else slices
    parts = []
    for first in range(0, len(wanted), batch_size):
        batch = wanted[first : first + batch_size]
        image = torch.from_numpy(images_of(hu, batch, geometry.spacing, preprocess))
        parts.append(_label(network, image, hu.shape[1:], precision))
    outputs = [part.output for part in parts if part.output is not None]
    return Labels(np.concatenate([part.mask for part in parts]), np.concatenate(outputs) if outputs else None)


@torch.inference_mode()
def predict_ensemble(
    members: Sequence[tuple[nn.Module, PreprocessSettings]],
    hu: NDArray[np.int16],
    geometry: Geometry,
    batch_size: int = 4,
    device: str = "cpu",
    slices: Sequence[int] | None = None,
) -> NDArray[np.uint8]:
    """Label every voxel of a volume by the mean of several networks' class probabilities.

    Every network sees the slices as its own card says; its scores are brought to the series' own grid, become
    probabilities there (softmax), and the class of the highest mean is taken. A few slices at a time, so that two
    arrays of (slices at a time, classes, rows, columns) are all that it needs beside the networks.

    Args:
        members: networks of the same classes, each with the preprocessing of its card.
        hu: (slice, row, column) in axial order, HU.
        geometry: of ``hu``.
        batch_size: slices at a time.
        device: ``cpu``, ``cuda`` or ``auto``.
        slices: which to label; none = all.

    Returns:
        Class of each voxel, the shape of ``hu``, or of those slices.
    """
    precision = choose_precision(device)
    placed = [(precision.place(network).eval(), preprocess) for network, preprocess in members]
    wanted = range(len(hu)) if slices is None else slices
    parts = []
    for first in range(0, len(wanted), batch_size):
        batch = wanted[first : first + batch_size]
        total: Tensor | None = None
        for network, preprocess in placed:
            image = torch.from_numpy(images_of(hu, batch, geometry.spacing, preprocess))
            found = _probabilities(network, image, hu.shape[1:], precision)
            total = found if total is None else total.add_(found)
        if total is None:
            raise ValueError("an ensemble needs a network")
        parts.append(_classes(total))
    return np.concatenate(parts)


def _probabilities(network: nn.Module, image: Tensor, size: tuple[int, ...], precision: Precision) -> Tensor:
    """Return class probabilities (N, classes, rows, columns) on the pixels of ``size``."""
    with precision.autocast():
        scores: Tensor = network(precision.image(image))
    # In double precision two scores that differ stay different: a network alone labels as it does by itself.
    return _at(scores, size).double().softmax(dim=1)


@torch.inference_mode()
def _label(network: nn.Module, image: Tensor, size: tuple[int, ...], precision: Precision) -> Labels:
    """Label images (N, channels, h, w) on the pixels of ``size``: scores are resized, never labels."""
    with precision.autocast():
        placed = precision.image(image)
        scores, own = network.both_sizes(placed) if isinstance(network, AnySize) else (network(placed),) * 2
    output = _classes(own) if tuple(own.shape[-2:]) != size else None
    return Labels(_classes(_at(scores, size)), output)


def _at(scores: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bring scores (N, classes, h, w) to the pixels of ``size``."""
    if tuple(scores.shape[-2:]) == size:
        return scores
    return torch.from_numpy(from_network(scores.float().cpu().numpy(), (size[0], size[1])))


def _classes(scores: Tensor) -> NDArray[np.uint8]:
    labels: NDArray[np.uint8] = scores.argmax(dim=1).to(torch.uint8).cpu().numpy()
    return labels
