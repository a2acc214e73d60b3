"""Class-wise figures from pixel counts, by the definitions of Krawczyk and Starzynski 2021 (paper protocol).

Counts are int64 arrays (..., 3, 3): rows are the reference's classes, columns the prediction's. Adding two of them
pools their pixels. A class of which neither reference nor prediction has a pixel has no IoU: it is NaN, never 1.0.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.scheme import CLASSES

Counts = NDArray[np.int64]
Values = NDArray[np.float64]

SIZE = len(CLASSES)


def confusion(reference: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> Counts:
    """Count pixels by reference class (row) and predicted class (column).

    Args:
        reference: class of each pixel, any shape.
        prediction: the same shape.

    Returns:
        int64 counts, (3, 3).

    Raises:
        ValueError: the shapes differ or a value is not a class.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"reference {reference.shape} and prediction {prediction.shape} differ in shape")
    for name, mask in (("reference", reference), ("prediction", prediction)):
        if mask.size and not 0 <= int(mask.min()) <= int(mask.max()) < SIZE:
            raise ValueError(f"the {name} has values outside 0..{SIZE - 1}")
    pairs = reference.astype(np.uint8) * np.uint8(SIZE) + prediction.astype(np.uint8)
    return np.bincount(pairs.ravel(), minlength=SIZE * SIZE).astype(np.int64).reshape(SIZE, SIZE)


def confusion_per_slice(reference: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> Counts:
    """Count each slice of two volumes (slice, row, column) by itself: (slices, 3, 3)."""
    if reference.shape != prediction.shape:
        raise ValueError(f"reference {reference.shape} and prediction {prediction.shape} differ in shape")
    slices = [confusion(*pair) for pair in zip(reference, prediction, strict=True)]
    return np.stack(slices) if slices else np.zeros((0, SIZE, SIZE), dtype=np.int64)


def iou(counts: Counts) -> Values:
    """Return TP / (TP + FN + FP) of each class, (..., 3); NaN for a class that occurs nowhere."""
    hits, missed, extra, _ = _parts(counts)
    return _ratio(hits, hits + missed + extra)


def dice(counts: Counts) -> Values:
    """Return 2 TP / (2 TP + FN + FP) of each class, (..., 3); NaN for a class that occurs nowhere."""
    hits, missed, extra, _ = _parts(counts)
    return _ratio(2 * hits, 2 * hits + missed + extra)


def accuracy(counts: Counts) -> Values:
    """Return (TP + TN) / all of each class against the rest, (..., 3); NaN where there are no pixels."""
    hits, missed, extra, rest = _parts(counts)
    return _ratio(hits + rest, hits + missed + extra + rest)


def precision(counts: Counts) -> Values:
    """Return TP / (TP + FP) of each class, (..., 3); NaN for a class never predicted."""
    hits, _, extra, _ = _parts(counts)
    return _ratio(hits, hits + extra)


def recall(counts: Counts) -> Values:
    """Return TP / (TP + FN) of each class, (..., 3); NaN for a class the reference does not have."""
    hits, missed, _, _ = _parts(counts)
    return _ratio(hits, hits + missed)


def mean_over_classes(values: Values) -> Values:
    """Average the classes that have a value, (..., 3) -> (...); NaN where none has."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def _parts(counts: Counts) -> tuple[Counts, Counts, Counts, Counts]:
    """Return TP, FN, FP and TN of each class, each (..., 3)."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    missed = counts.sum(axis=-1) - hits
    extra = counts.sum(axis=-2) - hits
    everything = counts.sum(axis=(-2, -1))[..., None]
    return hits, missed, extra, everything - hits - missed - extra


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> Values:
    ratio: Values = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return ratio
