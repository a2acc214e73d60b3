"""What every augmentation is: from a window cut out of a slice to a training crop."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from boneseg.scheme import Labelling
from boneseg.settings.schema import PreprocessSettings

Image = NDArray[np.float32]
Label = NDArray[np.uint8]


class Augmentation(ABC):
    """Random changes of a slice that keep its label true. One object must not be shared by threads.

    Attributes:
        window: side of the square to cut out, in pixels; larger than the crop where a turned or shrunken crop must
            still be filled with patient.
        crop: side of the crop it becomes.
        preprocess: how HU become the network's numbers.
        labelling: what the label's values are, and which change places in the mirrored image.
    """

    def __init__(self, window: int, crop: int, preprocess: PreprocessSettings, labelling: Labelling) -> None:
        self.window = window
        self.labelling = labelling
        self.crop = crop
        self.preprocess = preprocess

    def slab_mm(self, rng: np.random.Generator) -> float:
        """Draw the thickness over which neighbouring slices are averaged; 0 = the slice as it is."""
        return 0.0

    @abstractmethod
    def __call__(self, hu: Image, label: Label, pixel_mm: float, seed: int) -> tuple[Image, Label]:
        """Change a window; the same seed makes the same change.

        Args:
            hu: (slices, window, window) in HU.
            label: values (window, window), of the middle slice.
            pixel_mm: side of a pixel.
            seed: any number.

        Returns:
            Image (slices, crop, crop) within 0..1, and label (crop, crop).
        """
