"""Random changes of a slice that keep its label true (the only place that imports albumentations)."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or importing it asks the internet for a newer version

import albumentations as alb
import cv2

Image = NDArray[np.float32]
Label = NDArray[np.uint8]

SCALE = (0.7, 1.4)
"""Zoom; pixels of CT series lie between 0.5 and 1.5 mm, and a network should not care."""
ROTATION_DEGREES = 12.0


@dataclass(frozen=True)
class Recipe:
    """How a training crop is made from a window cut out of a slice.

    Attributes:
        window: side of the square to cut out, in pixels; larger than the crop, so that a turned or shrunken crop is
            still filled with patient.
        transform: what is done to it, crop included; none = nothing.
    """

    window: int
    transform: alb.Compose | None

    def __call__(self, image: Image, label: Label, seed: int) -> tuple[Image, Label]:
        """Change a window; the same seed makes the same change.

        Args:
            image: (window, window) within 0..1.
            label: classes, same shape.
            seed: any number.

        Returns:
            Crop of image and label.
        """
        if self.transform is None:
            return image, label
        # Not set_random_seed: it gives every step the same stream, so that all chances of one half coincide.
        self.transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        changed = self.transform(image=image, mask=label)
        return changed["image"], changed["mask"]


def build_recipe(name: str, crop: int) -> Recipe:
    """Return a recipe by its name; one object must not be shared by threads.

    Args:
        name: ``none`` or ``basic``.
        crop: side of the training crop in pixels.
    """
    if name == "none":
        return Recipe(crop, None)
    angle = math.radians(ROTATION_DEGREES)
    window = math.ceil(crop * (math.cos(angle) + math.sin(angle)) / SCALE[0])
    return Recipe(window, alb.Compose([*_geometry(crop), *_scanner()], is_check_shapes=False))


def _geometry(crop: int) -> list[alb.BasicTransform]:
    return [
        alb.Affine(
            scale=SCALE,
            keep_ratio=True,
            balanced_scale=True,
            rotate=(-ROTATION_DEGREES, ROTATION_DEGREES),
            interpolation=cv2.INTER_LINEAR,
            mask_interpolation=cv2.INTER_NEAREST,
            fill=0.0,
            fill_mask=0,
            p=0.7,
        ),
        alb.CenterCrop(crop, crop),
        alb.HorizontalFlip(p=0.5),
    ]


def _scanner() -> list[alb.BasicTransform]:
    """Differences of scanners, kernels and doses; limits are parts of the window, 1800 HU wide by default."""
    return [
        alb.GaussianBlur(blur_limit=0, sigma_limit=(0.4, 1.2), p=0.15),
        alb.Downscale(
            scale_range=(0.5, 0.9),
            interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR},
            p=0.1,
        ),
        alb.RandomBrightnessContrast(brightness_limit=0.03, contrast_limit=0.1, p=0.5),
        alb.GaussNoise(std_range=(0.004, 0.04), p=0.4),
    ]
