"""Class-wise figures from pixel counts, by the definitions of Krawczyk and Starzynski 2021 (paper protocol).

Counts are int64 arrays (..., values, classes): rows are the reference's label values, columns the prediction's classes;
square where every value is a class. Adding two of them pools their pixels. A class of which neither reference nor
prediction has a pixel has no IoU: it is NaN, never 1.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Values = NDArray[np.float64]

COMMON = 3
"""Background, patient outline and bone: what the paper counts, and in what any two schemes are comparable."""


@dataclass(frozen=True)
class Regions:
    """What is measured, each a set of classes: single ones and groups.

    Attributes:
        picked: (regions, classes): of which classes a region is.
        inside: (regions, values): the values that are surely in it.
        outside: (regions, values): the values that are surely not; where a value is neither, its pixels do not count.
    """

    picked: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    outside: NDArray[np.bool_]

    @classmethod
    def of(cls, members: NDArray[np.bool_], regions: Sequence[Sequence[int]]) -> Regions:
        """Define regions by their classes; ``members`` (values, classes) says which classes a value may be."""
        picked = np.zeros((len(regions), members.shape[1]), dtype=bool)
        for number, classes in enumerate(regions):
            picked[number, list(classes)] = True
        inside = np.asarray((picked[:, None] | ~members[None]).all(axis=2))
        outside = np.asarray(~(picked[:, None] & members[None]).any(axis=2))
        return cls(picked, inside, outside)

    def joined(self, other: Regions) -> Regions:
        """Return these regions and those of another definition over the same values and classes behind them."""
        pairs = zip((self.picked, self.inside, self.outside), (other.picked, other.inside, other.outside), strict=True)
        return Regions(*(np.concatenate(pair) for pair in pairs))

    def only(self, chosen: NDArray[np.bool_]) -> Regions:
        """Return some of the regions, in their order."""
        return Regions(self.picked[chosen], self.inside[chosen], self.outside[chosen])


def confusion(
    reference: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int = COMMON, values: int | None = None
) -> Counts:
    """Count pixels by reference value (row) and predicted class (column).

    Args:
        reference: value of each pixel, any shape.
        prediction: the same shape.
        classes: how many classes there are.
        values: how many values the reference may have; none = as many as classes.

    Returns:
        int64 counts, (values, classes).

    Raises:
        ValueError: the shapes differ or a value is out of range.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"reference {reference.shape} and prediction {prediction.shape} differ in shape")
    values = classes if values is None else values
    for name, mask, size in (("reference", reference, values), ("prediction", prediction, classes)):
        if mask.size and not 0 <= int(mask.min()) <= int(mask.max()) < size:
            raise ValueError(f"the {name} has values outside 0..{size - 1}")
    pairs: NDArray[Any] = reference.astype(np.uint8 if values * classes <= 256 else np.uint16)
    pairs *= classes
    pairs += prediction
    return np.bincount(pairs.ravel(), minlength=values * classes).astype(np.int64).reshape(values, classes)


def confusion_per_slice(
    reference: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int = COMMON, values: int | None = None
) -> Counts:
    """Count each slice of two volumes (slice, row, column) by itself: (slices, values, classes)."""
    if reference.shape != prediction.shape:
        raise ValueError(f"reference {reference.shape} and prediction {prediction.shape} differ in shape")
    slices = [confusion(*pair, classes, values) for pair in zip(reference, prediction, strict=True)]
    return np.stack(slices) if slices else np.zeros((0, values or classes, classes), dtype=np.int64)


def iou(counts: Counts, regions: Regions | None = None) -> Values:
    """Return TP / (TP + FN + FP) of each class, (..., classes); NaN for a class that occurs nowhere."""
    hits, missed, extra, _ = _parts(counts, regions)
    return _ratio(hits, hits + missed + extra)


def dice(counts: Counts, regions: Regions | None = None) -> Values:
    """Return 2 TP / (2 TP + FN + FP) of each class, (..., classes); NaN for a class that occurs nowhere."""
    hits, missed, extra, _ = _parts(counts, regions)
    return _ratio(2 * hits, 2 * hits + missed + extra)


def accuracy(counts: Counts, regions: Regions | None = None) -> Values:
    """Return (TP + TN) / all of each class against the rest, (..., classes); NaN where there are no pixels."""
    hits, missed, extra, rest = _parts(counts, regions)
    return _ratio(hits + rest, hits + missed + extra + rest)


def precision(counts: Counts, regions: Regions | None = None) -> Values:
    """Return TP / (TP + FP) of each class, (..., classes); NaN for a class never predicted."""
    hits, _, extra, _ = _parts(counts, regions)
    return _ratio(hits, hits + extra)


def recall(counts: Counts, regions: Regions | None = None) -> Values:
    """Return TP / (TP + FN) of each class, (..., classes); NaN for a class the reference does not have."""
    hits, missed, _, _ = _parts(counts, regions)
    return _ratio(hits, hits + missed)


def mean_over_classes(values: Values) -> Values:
    """Average the classes that have a value, (..., classes) -> (...); NaN where none has."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def _parts(counts: Counts, regions: Regions | None) -> tuple[Counts, Counts, Counts, Counts]:
    """Return TP, FN, FP and TN of each class, or of each region, each (..., classes or regions)."""
    if regions is None:
        hits = np.diagonal(counts, axis1=-2, axis2=-1)
        missed = counts.sum(axis=-1) - hits
        extra = counts.sum(axis=-2) - hits
        everything = counts.sum(axis=(-2, -1))[..., None]
        return hits, missed, extra, everything - hits - missed - extra
    rows = [np.einsum("fv,...vc->...fc", kind.astype(np.int64), counts) for kind in (regions.inside, regions.outside)]
    (hits, missed), (extra, rest) = (
        (np.where(regions.picked, row, 0).sum(axis=-1), np.where(regions.picked, 0, row).sum(axis=-1)) for row in rows
    )
    return hits, missed, extra, rest


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> Values:
    ratio: Values = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return ratio
