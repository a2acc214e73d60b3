"""One method, one series, one measurement: the only part of an evaluation that looks at voxels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from boneseg.config import BONE, EvaluateSettings, stable_hash
from boneseg.evaluate.classical import CLASSICAL_VERSION, threshold_segmentation
from boneseg.evaluate.records import Measurement, known
from boneseg.geometry import Geometry
from boneseg.inference import predict_volume
from boneseg.metrics.counts import confusion_per_slice
from boneseg.metrics.surface import surface_metrics
from boneseg.models.card import ModelCard
from boneseg.storage import layout

EVALUATE_VERSION = 1
"""Raise it with every change of a number or of the report: evaluations that are kept are made again."""


@dataclass(frozen=True)
class Volume:
    """A labelled series in axial order."""

    hu: NDArray[np.int16]
    label: NDArray[np.uint8]
    geometry: Geometry
    warnings: tuple[str, ...] = ()
    """What is odd about it but does not keep it from being used."""

    def one_slice(self, index: int) -> Volume:
        """Return one slice as a volume."""
        rows, columns = self.geometry.shape[1:]
        part = slice(index, index + 1)
        return Volume(self.hu[part], self.label[part], Geometry((1, rows, columns), self.geometry.affine))


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

    def segment(self, hu: NDArray[np.int16], geometry: Geometry) -> NDArray[np.uint8]:
        """Label every voxel of a volume in axial order."""


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

    def segment(self, hu: NDArray[np.int16], geometry: Geometry) -> NDArray[np.uint8]:
        """Label every voxel of a volume in axial order; slice by slice, so that any part of a volume will do."""
        return predict_volume(self.network, self.card.model.preprocess, hu, geometry, self.batch_size, device="auto")


@dataclass(frozen=True)
class ThresholdMethod:
    """The classical method."""

    threshold_hu: float

    @property
    def identity(self) -> str:
        """Hash of the threshold and of the version of the morphology."""
        return stable_hash(["threshold", self.threshold_hu, CLASSICAL_VERSION])

    def segment(self, hu: NDArray[np.int16], geometry: Geometry) -> NDArray[np.uint8]:
        """Label every voxel of a whole volume in axial order."""
        return threshold_segmentation(hu, geometry, self.threshold_hu)


def measure(method: Method, content: str, volume: Volume, settings: EvaluateSettings) -> Measurement:
    """Segment a series and count; the mask is gone afterwards."""
    mask = method.segment(volume.hu, volume.geometry)
    label = np.asarray(volume.label)
    surface = surface_metrics(label == BONE, mask == BONE, volume.geometry.spacing, settings.surface_tolerance_mm)
    return Measurement(
        method=method.identity,
        content=content,
        spacing_mm=volume.geometry.spacing,
        tolerance_mm=settings.surface_tolerance_mm,
        slices=tuple(tuple(int(count) for count in table.ravel()) for table in confusion_per_slice(label, mask)),
        hd95_mm=known(surface.hd95_mm),
        average_surface_mm=known(surface.average_mm),
        normalised_surface=known(surface.normalised),
    )


def measurement_key(method: Method, content: str, settings: EvaluateSettings) -> str:
    """Return where a measurement is kept in the bucket: the same for every evaluation that would make it."""
    name = stable_hash([method.identity, content, settings.surface_tolerance_mm, EVALUATE_VERSION])
    return layout.evaluation(name, "measurement.json")
