"""Augmentation ``paper``: the sequence of random changes that the paper's library took from imgaug's documentation.

Flips, crop and pad, and an affine change first; then 0 to 5, in random order, of fourteen operations. What is drawn is
a ``Plan``, made before any pixel is touched, so that it can be looked at and counted.

Where this differs from imgaug's:

- images are floats within 0..1, not bytes, and interpolated linearly throughout;
- what comes into the picture from outside is air of class background, so that labels stay true (imgaug: a random grey);
- crop, pad and affine change are one resampling, and the affine change moves nothing sideways;
- every channel gets the same change, because channels are neighbouring slices here, not colours;
- changes of colour are left out, and ``Multiply`` always takes the whole picture, not sometimes parts of it;
- patches are dropped up to 10 %, not 15 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from boneseg.augment.base import Augmentation
from boneseg.augment.paper_geometry import (
    Affine,
    CropAndPad,
    Elastic,
    Image,
    Label,
    LocalAffine,
    Matrix,
    Perspective,
    Random,
    flip,
    warp,
)
from boneseg.augment.paper_photo import (
    Blur,
    Brightness,
    Contrast,
    Dropout,
    Edges,
    Emboss,
    Inversion,
    Multiply,
    Noise,
    Sharpen,
    Superpixels,
)
from boneseg.hu import normalise
from boneseg.scheme import Labelling
from boneseg.scheme.labelling import Table, take
from boneseg.settings.schema import PreprocessSettings

FLIP_HORIZONTAL, FLIP_VERTICAL, CROP_AND_PAD, AFFINE = 0.5, 0.2, 0.5, 0.5
"""Chance of each of the first changes."""
MOST_OPERATIONS = 5


class Operation(Protocol):
    """One change with all its parameters; ``draw`` is the class's own way to choose them."""

    def apply(self, image: Image, label: Label) -> tuple[Image, Label]:
        """Return new arrays of the same shapes and types; those given are left alone."""


class OperationKind(Protocol):
    """A class of operations."""

    def draw(self, rng: Random) -> Operation:
        """Choose parameters."""


OPERATIONS: tuple[tuple[OperationKind, float], ...] = (
    (Superpixels, 0.5),
    (Blur, 1.0),
    (Sharpen, 1.0),
    (Emboss, 1.0),
    (Edges, 1.0),
    (Noise, 1.0),
    (Dropout, 1.0),
    (Inversion, 0.05),
    (Brightness, 1.0),
    (Multiply, 1.0),
    (Contrast, 1.0),
    (Elastic, 0.5),
    (LocalAffine, 0.5),
    (Perspective, 0.5),
)
"""The operations of which 0 to 5 are chosen, and the chance that one really happens when chosen."""


@dataclass(frozen=True)
class Plan:
    """What is done to one image.

    Attributes:
        flip_horizontal: left and right change places.
        flip_vertical: top and bottom change places.
        crop_and_pad: how much is cut off or added at each side; none = nothing.
        affine: scale, rotation and shear; none = nothing.
        operations: 0 to 5 chosen operations in their order; none = chosen, but its own chance said no.
    """

    flip_horizontal: bool
    flip_vertical: bool
    crop_and_pad: CropAndPad | None
    affine: Affine | None
    operations: tuple[Operation | None, ...]

    @classmethod
    def draw(cls, seed: int) -> Plan:
        """Choose a plan; the same seed gives the same one."""
        rng = np.random.default_rng(seed)
        horizontal, vertical, crop, affine = rng.random(4)
        number = rng.integers(0, MOST_OPERATIONS, endpoint=True)
        return cls(
            flip_horizontal=bool(horizontal < FLIP_HORIZONTAL),
            flip_vertical=bool(vertical < FLIP_VERTICAL),
            crop_and_pad=CropAndPad.draw(rng) if crop < CROP_AND_PAD else None,
            affine=Affine.draw(rng) if affine < AFFINE else None,
            operations=tuple(_draw_operation(int(index), rng) for index in rng.permutation(len(OPERATIONS))[:number]),
        )

    def apply(self, image: Image, label: Label, mirrored: Table | None = None) -> tuple[Image, Label]:
        """Do it.

        Args:
            image: (h, w) or (h, w, channels) within 0..1.
            label: (h, w) classes.
            mirrored: for every value the one in the mirrored image; none = the same.

        Returns:
            Both changed, same shapes and types, the image within 0..1; those given are left alone.
        """
        shape = image.shape
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        image, label = flip(image, label, self.flip_horizontal, self.flip_vertical)
        if mirrored is not None and self.flip_horizontal != self.flip_vertical:  # both together are half a turn
            label = take(mirrored, label)
        image, label = warp(image, label, self._matrix(label.shape))
        for operation in self.operations:
            if operation is not None:
                image, label = operation.apply(image, label)
        return image.reshape(shape), label

    def _matrix(self, size: tuple[int, ...]) -> Matrix:
        matrix = np.eye(3)
        if self.crop_and_pad is not None:
            matrix = self.crop_and_pad.matrix(size[0], size[1])
        if self.affine is not None:
            matrix = self.affine.matrix(size[0], size[1]) @ matrix
        return matrix


def _draw_operation(index: int, rng: Random) -> Operation | None:
    kind, chance = OPERATIONS[index]
    return kind.draw(rng) if rng.random() < chance else None


class PaperSequence:
    """The augmentation as a function of image, label and seed; it keeps nothing else, so threads may share it.

    Args:
        mirrored: for every label value the one in the mirrored image; none = the same.
    """

    def __init__(self, mirrored: Table | None = None) -> None:
        self._mirrored = mirrored

    def __call__(self, image: Image, label: Label, seed: int) -> tuple[Image, Label]:
        """Change an image and its label; the same seed makes the same change.

        Args:
            image: (h, w) or (h, w, channels) float32 within 0..1.
            label: (h, w) uint8 classes.
            seed: any number from 0.

        Returns:
            Both changed, same shapes and types, the image within 0..1.
        """
        return Plan.draw(seed).apply(image, label, self._mirrored)


class PaperAugmentation(Augmentation):
    """The paper's operations on crops of CT: pictures, after the window."""

    def __init__(self, crop: int, preprocess: PreprocessSettings, labelling: Labelling) -> None:
        super().__init__(crop, crop, preprocess, labelling)
        self._change = PaperSequence(labelling.mirrored)

    def __call__(self, hu: Image, label: Label, pixel_mm: float, seed: int) -> tuple[Image, Label]:
        """Normalise the window and change it as a picture."""
        picture = np.moveaxis(normalise(hu, self.preprocess.window), 0, -1)
        changed, moved = self._change(np.ascontiguousarray(picture), label, seed)
        return np.ascontiguousarray(np.moveaxis(changed, -1, 0)), moved
