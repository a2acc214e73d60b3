"""Pictures of validation slices during a training run: each slice, its label, and what the network says."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from boneseg.atomic_write import atomic_write
from boneseg.dataset.slices import SliceDataset
from boneseg.errors import BonesegError
from boneseg.models.precision import Precision
from boneseg.png import write_png
from boneseg.scheme import Labelling
from boneseg.scheme.roles import BONE
from boneseg.settings.schema import TrainSettings
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace
from boneseg.train.task import Task

log = logging.getLogger(__name__)

MOST_SLICES = 4
LONGEST_SIDE = 256
"""Pixels of a panel; larger slices are shown in every second or third pixel."""
UNTOLD = (255, 255, 255)
"""Colour of label values that stand for several classes."""
_OPACITY = 0.6

Picture = NDArray[np.uint8]
"""(row, column, 3): red, green and blue."""


def is_due(epoch: int, settings: TrainSettings) -> bool:
    """Say whether an epoch ends with a picture."""
    every = settings.pictures_every
    return every > 0 and (epoch % every == 0 or epoch == settings.epochs)


def picture_file(epoch: int) -> str:
    """Return the name of an epoch's picture in the folder of a run."""
    return f"pictures/epoch-{epoch:04d}.png"


def keep_picture(task: Task, epoch: int, network: nn.Module, slices: SliceDataset, precision: Precision) -> None:
    """Draw an epoch's picture, where one is due, into the run's folder here and in the bucket.

    Where that cannot be done, training goes on without it.

    Args:
        task: whose run.
        epoch: that just ended.
        network: as it was validated; it is left in evaluation mode.
        slices: of the validation series.
        precision: where and in what format the network is.
    """
    if not is_due(epoch, task.settings):
        return
    path = task.workspace.run_folder(task.run) / picture_file(epoch)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = draw(network, slices, precision)
        with atomic_write(path, private=True) as file:
            write_png(file, picture)
    except (OSError, BonesegError) as error:
        log.warning("epoch %d has no picture (%s)", epoch, error)
        return
    # The store may be away for a while; that is no reason for a GPU to wait.
    key = layout.run(task.run, picture_file(epoch))
    threading.Thread(target=_upload, args=(task.workspace, path, key), name="picture", daemon=True).start()


def _upload(workspace: Workspace, path: Path, key: str) -> None:
    try:
        workspace.store.upload(path, key)
    except BonesegError as error:
        log.debug("%s stays on this machine: %s", path.name, error)


@torch.inference_mode()
def draw(network: nn.Module, slices: SliceDataset, precision: Precision) -> Picture:
    """Return a row for each of some slices: the slice, its label and the network's mask over it. No words, no names.

    Args:
        network: any of one slice or several in, (N, classes, H, W) out.
        slices: from each of some series, spread over all, the slice with most bone is shown.
        precision: where and in what format the network is.
    """
    network.eval()
    rows = []
    for index in _chosen(slices):
        image, label = slices[index]
        with precision.autocast():
            scores = network(precision.image(torch.from_numpy(image)[None]))
        found = scores[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
        step = -(-max(label.shape) // LONGEST_SIDE)
        grey = np.repeat(np.round(255 * image[len(image) // 2, ::step, ::step])[..., None], 3, axis=2)
        colours = _colours(slices.labelling)
        panels = [grey, *(_over(grey, mask[::step, ::step], colours) for mask in (label, found))]
        rows.append(np.concatenate(panels, axis=1).astype(np.uint8))
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def _chosen(slices: SliceDataset) -> list[int]:
    count = len(slices.records)
    series = np.unique(np.linspace(0, count - 1, min(MOST_SLICES, count)).round().astype(int))
    return [int(np.argmax(np.where(slices.shard_of == number, slices.bone_pixels, -1))) for number in series]


def _colours(labelling: Labelling) -> NDArray[np.float32]:
    """Return the colour of every label value and, in the last column, how much of it covers the slice."""
    table = np.zeros((labelling.size, 4), dtype=np.float32)
    for value in range(1, labelling.size):
        known = value < labelling.scheme.size
        table[value, :3] = labelling.scheme.classes[value].colour if known else UNTOLD
        table[value, 3] = _OPACITY if labelling.roles[value] >= BONE else 0
    return table


def _over(grey: NDArray[np.float32], mask: NDArray[np.uint8], colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay the bones of a mask over a slice; the patient's outline stays as it is, for it is seen there anyway."""
    covering = colours[mask][..., 3:]
    mixed: NDArray[np.float32] = grey * (1 - covering) + colours[mask][..., :3] * covering
    return mixed
