"""Augmentation ``basic``: a few changes of pictures, by albumentations (the only place that imports it).

It carries no part of ``ct`` and ``paper``: see ``docs/augmentation.md`` for what was measured.
"""

from __future__ import annotations

import math
import os
import random
from typing import Any

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or importing it asks the internet for a newer version

import albumentations as alb

from boneseg.augment.base import Augmentation, Image, Label
from boneseg.hu import normalise
from boneseg.opencv import cv2
from boneseg.scheme import Labelling
from boneseg.scheme.labelling import take
from boneseg.settings.schema import PreprocessSettings

SCALE = (0.7, 1.4)
"""Zoom; pixels of CT series lie between 0.5 and 1.5 mm, and a network should not care."""
ROTATION_DEGREES = 12.0


class BasicAugmentation(Augmentation):
    """Zoom, turn, flip, and small changes of sharpness, brightness and noise."""

    def __init__(self, crop: int, preprocess: PreprocessSettings, labelling: Labelling) -> None:
        angle = math.radians(ROTATION_DEGREES)
        super().__init__(math.ceil(crop * (math.cos(angle) + math.sin(angle)) / SCALE[0]), crop, preprocess, labelling)
        self._transform = alb.Compose([*_geometry(crop, labelling), *_scanner()], is_check_shapes=False)

    def __call__(self, hu: Image, label: Label, pixel_mm: float, seed: int) -> tuple[Image, Label]:
        """Normalise the window and change it."""
        # Not set_random_seed: it gives every step the same stream, so that all chances of one half coincide.
        self._transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        picture = np.ascontiguousarray(np.moveaxis(normalise(hu, self.preprocess.window), 0, -1))
        changed = self._transform(image=picture, mask=label)
        return np.ascontiguousarray(np.moveaxis(changed["image"], -1, 0)), changed["mask"]


class _Mirror(alb.HorizontalFlip):  # type: ignore[misc]
    """Mirrors left and right; what is left in the image becomes right in the label."""

    def __init__(self, labelling: Labelling, p: float) -> None:
        super().__init__(p=p)
        self._mirrored = labelling.mirrored

    def apply_to_mask(self, mask: Label, *args: Any, **params: Any) -> Label:
        """Mirror a label."""
        return take(self._mirrored, super().apply_to_mask(mask, *args, **params))


def _geometry(crop: int, labelling: Labelling) -> list[alb.BasicTransform]:
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
        _Mirror(labelling, p=0.5),
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
