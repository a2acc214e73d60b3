"""Random changes of a slice that keep its label true (the only place that imports albumentations)."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or importing it asks the internet for a newer version

import albumentations as alb
import cv2

from boneseg.dataset.augment_ct import CtRecipe
from boneseg.dataset.augment_paper import PaperAugmentation
from boneseg.dataset.augment_recipe import Image, Label, Recipe
from boneseg.dataset.preprocess import normalise
from boneseg.settings.schema import PreprocessSettings

SCALE = (0.7, 1.4)
"""Zoom; pixels of CT series lie between 0.5 and 1.5 mm, and a network should not care."""
ROTATION_DEGREES = 12.0


class PlainRecipe(Recipe):
    """Changes nothing."""

    def __init__(self, crop: int, preprocess: PreprocessSettings) -> None:
        super().__init__(crop, crop, preprocess)

    def __call__(self, hu: Image, label: Label, pixel_mm: float, seed: int) -> tuple[Image, Label]:
        """Normalise the window."""
        return normalise(hu, self.preprocess), label


class PaperRecipe(Recipe):
    """The paper's operations on pictures."""

    def __init__(self, crop: int, preprocess: PreprocessSettings) -> None:
        super().__init__(crop, crop, preprocess)
        self._change = PaperAugmentation()

    def __call__(self, hu: Image, label: Label, pixel_mm: float, seed: int) -> tuple[Image, Label]:
        """Normalise the window and change it as a picture."""
        picture = np.moveaxis(normalise(hu, self.preprocess), 0, -1)
        changed, moved = self._change(np.ascontiguousarray(picture), label, seed)
        return np.ascontiguousarray(np.moveaxis(changed, -1, 0)), moved


class BasicRecipe(Recipe):
    """Zoom, turn, flip, and small changes of sharpness, brightness and noise."""

    def __init__(self, crop: int, preprocess: PreprocessSettings) -> None:
        angle = math.radians(ROTATION_DEGREES)
        super().__init__(math.ceil(crop * (math.cos(angle) + math.sin(angle)) / SCALE[0]), crop, preprocess)
        self._transform = alb.Compose([*_geometry(crop), *_scanner()], is_check_shapes=False)

    def __call__(self, hu: Image, label: Label, pixel_mm: float, seed: int) -> tuple[Image, Label]:
        """Normalise the window and change it."""
        # Not set_random_seed: it gives every step the same stream, so that all chances of one half coincide.
        self._transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        picture = np.ascontiguousarray(np.moveaxis(normalise(hu, self.preprocess), 0, -1))
        changed = self._transform(image=picture, mask=label)
        return np.ascontiguousarray(np.moveaxis(changed["image"], -1, 0)), changed["mask"]


RECIPES: dict[str, Callable[[int, PreprocessSettings], Recipe]] = {
    "none": PlainRecipe,
    "basic": BasicRecipe,
    "ct": CtRecipe,
    "paper": PaperRecipe,
}


def build_recipe(name: str, crop: int, preprocess: PreprocessSettings) -> Recipe:
    """Return a recipe by its name; one object must not be shared by threads.

    Args:
        name: as ``train.augmentation`` has it.
        crop: side of the training crop in pixels.
        preprocess: how HU become the network's numbers.
    """
    return RECIPES[name](crop, preprocess)


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
            # OpenCV averages areas of at most four channels.
            interpolation_pair={"downscale": cv2.INTER_LINEAR, "upscale": cv2.INTER_LINEAR},
            p=0.1,
        ),
        alb.RandomBrightnessContrast(brightness_limit=0.03, contrast_limit=0.1, p=0.5),
        alb.GaussNoise(std_range=(0.004, 0.04), p=0.4),
    ]
