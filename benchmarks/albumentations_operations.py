"""Operations of ``ct`` and ``paper`` against albumentations' own: ``python -m benchmarks.albumentations_operations``.

Both sides change the same crop of a phantom, in turn, each with parameters drawn anew from the same range; the ratio is
how many times as long albumentations takes (its ``Compose`` left out, so that only the operation counts). ``differ`` is
by how much of the range of HU its picture is off, where it should blur a little or add 2 % of noise: it takes floats
for parts of 1, and cuts what lies outside. ``docs/augmentation.md`` draws the conclusion.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as alb

from boneseg.augment import ct
from boneseg.augment import paper_geometry as geometry
from boneseg.augment import paper_photo as photo
from boneseg.hu import normalise
from boneseg.phantom.series import make_phantom

CROP, COUNT, ROUNDS = 256, 60, 7
PIXEL_MM = 0.9
Image = NDArray[np.float32]
Label = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One operation on both sides."""

    name: str
    ours: Callable[[int], Any]
    theirs: Callable[[], alb.BasicTransform]
    image: Image
    label: Label
    same: Callable[[], float] | None = None


class GaussianBlur:
    """The one of our blurs that theirs is."""

    @staticmethod
    def draw(rng: np.random.Generator) -> photo.Blur:
        """Choose the size."""
        return photo.Blur("gaussian", rng.uniform(0.1, 3))


def of_albumentations(transform: alb.BasicTransform, image: Image, label: Label) -> tuple[Image, Label]:
    changed = transform(image=image, mask=label)
    return changed["image"], changed["mask"]


def alternately(first: Callable[[int], Any], second: Callable[[int], Any]) -> tuple[float, float]:
    """Return the ms of a core of each, the median over rounds in which both take their turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for work in (first, second):
        work(0)
    for _ in range(ROUNDS):
        for work, spent in zip((first, second), times, strict=True):
            started = time.process_time()
            for number in range(COUNT):
                work(number)
            spent.append(1e3 * (time.process_time() - started) / COUNT)
    return median(times[0]), median(times[1])


def paper_case(name: str, kind: Any, theirs: Callable[[], alb.BasicTransform], image: Image, label: Label) -> Case:
    rng = np.random.default_rng(0)
    drawn = [kind.draw(rng) for _ in range(COUNT)]
    return Case(name, lambda n: drawn[n].apply(image, label), theirs, image, label)


def warp_case(picture: Image, label: Label) -> Case:
    rng = np.random.default_rng(0)
    drawn = [geometry.Affine.draw(rng).matrix(CROP, CROP) for _ in range(COUNT)]

    def theirs() -> alb.BasicTransform:
        return alb.Affine(scale=(0.8, 1.2), keep_ratio=False, rotate=(-45, 45), shear={"x": (-16, 16), "y": 0}, p=1)

    return Case("paper Affine", lambda n: geometry.warp(picture, label, drawn[n]), theirs, picture, label)


def differ(first: Image, second: Image) -> float:
    return float(np.abs(first - second).max() / np.ptp(first))


def ct_cases(hu: Image, label: Label) -> list[Case]:
    rng = np.random.default_rng(0)
    size = len(label)

    def move() -> alb.BasicTransform:
        return alb.Affine(scale=ct.ZOOM, rotate=(-15, 15), keep_ratio=True, fill=-1024.0, fill_mask=0, p=1)

    def blurred() -> float:
        theirs = alb.GaussianBlur(blur_limit=0, sigma_limit=(0.8, 0.8), p=1)(image=hu)["image"]
        return differ(np.asarray(cv2.GaussianBlur(hu, (0, 0), 0.8), np.float32), theirs)

    def noisy() -> float:
        theirs = alb.GaussNoise(std_range=(0.02, 0.02), p=1)(image=hu)["image"]
        return differ(hu, theirs)

    return [
        Case("ct move", lambda _: ct.move(hu[None], label, size, rng), move, hu, label),
        Case(
            "ct kernel",
            lambda _: ct.kernel(hu[None].copy(), label, PIXEL_MM, rng),
            lambda: alb.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.1), p=1),
            hu,
            label,
            blurred,
        ),
        Case(
            "ct noise",
            lambda _: ct.noise(hu[None].copy(), label, PIXEL_MM, rng),
            lambda: alb.GaussNoise(std_range=(0.004, 0.04), p=1),
            hu,
            label,
            noisy,
        ),
        Case(
            "ct resolution",
            lambda _: ct.resolution(hu[None].copy(), label, PIXEL_MM, rng),
            lambda: alb.Downscale(scale_range=(0.3, 0.99), p=1),
            hu,
            label,
        ),
    ]


def paper_cases(picture: Image, label: Label) -> list[Case]:
    two = (0.5, 1.5)
    kinds: list[tuple[str, Any, Callable[[], alb.BasicTransform]]] = [
        ("Perspective", geometry.Perspective, lambda: alb.Perspective(scale=(0.01, 0.1), p=1)),
        ("Elastic", geometry.Elastic, lambda: alb.ElasticTransform(alpha=3.5, sigma=1, approximate=False, p=1)),
        ("LocalAffine", geometry.LocalAffine, lambda: alb.ThinPlateSpline(scale_range=(0.01, 0.05), p=1)),
        ("Superpixels", photo.Superpixels, lambda: alb.Superpixels(p_replace=(0, 1), n_segments=(20, 200), p=1)),
        ("Blur (Gaussian)", GaussianBlur, lambda: alb.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 3), p=1)),
        ("Sharpen", photo.Sharpen, lambda: alb.Sharpen(alpha=(0, 1), lightness=(0.75, 1.5), p=1)),
        ("Emboss", photo.Emboss, lambda: alb.Emboss(alpha=(0, 1), strength=(0, 2), p=1)),
        ("Noise", photo.Noise, lambda: alb.GaussNoise(std_range=(0, 0.05), p=1)),
        ("Dropout", photo.Dropout, lambda: alb.PixelDropout(dropout_prob=0.05, p=1)),
        ("Inversion", photo.Inversion, lambda: alb.InvertImg(p=1)),
        ("Multiply", photo.Multiply, lambda: alb.MultiplicativeNoise(multiplier=two, p=1)),
        ("Contrast", photo.Contrast, lambda: alb.RandomBrightnessContrast((0, 0), (-0.5, 1), p=1)),
    ]
    return [paper_case(f"paper {name}", kind, theirs, picture, label) for name, kind, theirs in kinds]


def main() -> None:
    cv2.setNumThreads(0)
    phantom = make_phantom(1, 1, CROP, (5.0, PIXEL_MM * 2, PIXEL_MM * 2))
    hu, label = phantom.hu[0].astype(np.float32), phantom.label[0]
    picture = normalise(hu, (-500.0, 1300.0))
    cases = [*ct_cases(hu, label), warp_case(picture, label), *paper_cases(picture, label)]
    print(f"{'operation':32}{'ours ms':>10}{'theirs ms':>11}{'ratio':>8}{'differ':>10}")
    for case in cases:
        transform = case.theirs()
        transform.set_random_state(np.random.default_rng(0), random.Random(0))
        ours, theirs = alternately(
            case.ours,
            lambda _, transform=transform, case=case: of_albumentations(transform, case.image, case.label),  # type: ignore[misc]
        )
        same = f"{case.same():10.1%}" if case.same else ""
        print(f"{case.name:32}{ours:10.3f}{theirs:11.3f}{theirs / ours:8.2f}{same}")


if __name__ == "__main__":
    main()
