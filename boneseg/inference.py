"""A trained network and a CT volume in, a mask of the same shape out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boneseg.config import PreprocessSettings
from boneseg.dataset.preprocess import from_network, images_of
from boneseg.geometry import Geometry
from boneseg.models.precision import Precision, choose_precision


def predict_volume(
    network: nn.Module,
    preprocess: PreprocessSettings,
    hu: NDArray[np.int16],
    geometry: Geometry,
    batch_size: int = 4,
    device: str = "cpu",
    slices: Sequence[int] | None = None,
) -> NDArray[np.uint8]:
    """Label a volume, a few slices at a time: floats of the whole volume never exist.

    Args:
        network: as ``models.checkpoint.load_model`` returns it.
        preprocess: from the model's card.
        hu: (slice, row, column) in axial order, HU. A memory-mapped array is read slice by slice.
        geometry: of ``hu``; its in-plane spacing matters where ``preprocess.spacing_mm`` is set.
        batch_size: slices at a time.
        device: ``cpu``, ``cuda`` or ``auto``.
        slices: which to label; none = all.

    Returns:
        Class of each voxel (slices, row, column). The same input gives the same mask.
    """
    precision = choose_precision(device)
    network = precision.place(network).eval()
    wanted = range(len(hu)) if slices is None else slices
    mask = np.empty((len(wanted), *hu.shape[1:]), dtype=np.uint8)
    for first in range(0, len(wanted), batch_size):
        part = wanted[first : first + batch_size]
        image = torch.from_numpy(images_of(hu, part, geometry.spacing, preprocess))
        mask[first : first + batch_size] = _label(network, image, hu.shape[1:], precision)
    return mask


@torch.inference_mode()
def _label(network: nn.Module, image: Tensor, size: tuple[int, ...], precision: Precision) -> NDArray[np.uint8]:
    """Label images (N, channels, h, w) on the pixels of ``size``: scores are resized, never labels."""
    with precision.autocast():
        scores: Tensor = network(precision.image(image))
    if tuple(scores.shape[-2:]) != size:
        resized = from_network(scores.float().cpu().numpy(), (size[0], size[1]))
        scores = torch.from_numpy(resized)
    labels: NDArray[np.uint8] = scores.argmax(dim=1).to(torch.uint8).cpu().numpy()
    return labels
