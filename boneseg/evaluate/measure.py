"""One method, one series, one measurement: the only part of an evaluation that looks at voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from boneseg.evaluate.classical import CLASSICAL_VERSION, threshold_segmentation
from boneseg.evaluate.records import CountRow, Measurement, known
from boneseg.geometry import Geometry
from boneseg.identity import stable_hash
from boneseg.inference import Labels, predict_both
from boneseg.metrics.counts import Counts, confusion, confusion_per_slice
from boneseg.metrics.surface import surface_metrics
from boneseg.models.card import ModelCard
from boneseg.scheme import BONE
from boneseg.settings.schema import EvaluateSettings
from boneseg.storage import layout

EVALUATE_VERSION = 4
"""Raise it with every change of a number or of the report: evaluations that are kept are made again."""


@dataclass(frozen=True)
class Volume:
    """A labelled series in axial order."""

    hu: NDArray[np.int16]
    label: NDArray[np.uint8]
    geometry: Geometry
    warnings: tuple[str, ...] = ()
    """What is odd about it but does not keep it from being used."""


@dataclass(frozen=True)
class Subject:
    """A test series, read when it is its turn."""

    series: str
    content: str
    """Hash of the series and its label."""
    source: str
    """Where a person finds it again."""
    patient: str
    load: Callable[[], Volume]


class Method(Protocol):
    """Anything that labels the voxels of a CT series."""

    @property
    def identity(self) -> str:
        """Hash of all that decides the mask."""

    def segment(self, hu: NDArray[np.int16], geometry: Geometry, slices: Sequence[int] | None = None) -> Labels:
        """Label every voxel of a volume in axial order, or of some slices."""


@dataclass(frozen=True)
class NetworkMethod:
    """A trained network."""

    network: nn.Module
    card: ModelCard
    batch_size: int

    @property
    def identity(self) -> str:
        """Hash of the model."""
        return self.card.model_hash

    def segment(self, hu: NDArray[np.int16], geometry: Geometry, slices: Sequence[int] | None = None) -> Labels:
        """Label every voxel of a volume in axial order, or of some slices, on both grids."""
        preprocess = self.card.model.preprocess
        return predict_both(self.network, preprocess, hu, geometry, self.batch_size, "auto", slices)


@dataclass(frozen=True)
class ThresholdMethod:
    """The classical method."""

    threshold_hu: float

    @property
    def identity(self) -> str:
        """Hash of the threshold and of the version of the morphology."""
        return stable_hash(["threshold", self.threshold_hu, CLASSICAL_VERSION])

    def segment(self, hu: NDArray[np.int16], geometry: Geometry, slices: Sequence[int] | None = None) -> Labels:
        """Label a whole volume in axial order: couch and small parts are told by their size in 3D."""
        mask = threshold_segmentation(hu, geometry, self.threshold_hu)
        return Labels(mask if slices is None else mask[list(slices)], None)


def measure(method: Method, content: str, volume: Volume, settings: EvaluateSettings) -> Measurement:
    """Segment a series and count; the mask is gone afterwards."""
    labels = method.segment(volume.hu, volume.geometry)
    label, mask = np.asarray(volume.label), labels.mask
    surface = surface_metrics(label == BONE, mask == BONE, volume.geometry.spacing, settings.surface_tolerance_mm)
    output = None if labels.output is None else _rows(confusion_on_output(label, labels.output))
    return Measurement(
        method=method.identity,
        content=content,
        spacing_mm=volume.geometry.spacing,
        tolerance_mm=settings.surface_tolerance_mm,
        slices=_rows(confusion_per_slice(label, mask)),
        output_slices=output,
        hd95_mm=known(surface.hd95_mm),
        average_surface_mm=known(surface.average_mm),
        normalised_surface=known(surface.normalised),
    )


def confusion_on_output(label: NDArray[np.uint8], output: NDArray[np.uint8]) -> Counts:
    """Count the pixels of a network's own output, as the library of the paper does (``paper`` protocol).

    Its ``evaluate`` brings the reference to the size of the network's output by OpenCV's plain nearest neighbour.

    Args:
        label: reference, (slice, row, column).
        output: prediction, (slice, h, w).

    Returns:
        (slices, 3, 3): reference by prediction.
    """
    size = (output.shape[2], output.shape[1])
    pairs = zip(label, output, strict=True)
    return np.stack([confusion(cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST), own) for plane, own in pairs])


def _rows(tables: Counts) -> tuple[CountRow, ...]:
    return tuple(tuple(int(count) for count in table.ravel()) for table in tables)


def measurement_key(method: Method, content: str, settings: EvaluateSettings) -> str:
    """Return where a measurement is kept in the bucket: the same for every evaluation that would make it."""
    name = stable_hash([method.identity, content, settings.surface_tolerance_mm, EVALUATE_VERSION])
    return layout.evaluation(name, "measurement.json")
