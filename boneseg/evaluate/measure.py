"""One method, one series, one measurement: the only part of an evaluation that looks at voxels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boneseg.evaluate.methods import Method
from boneseg.evaluate.records import EVALUATE_VERSION, ClassCounts, CountRow, Measurement, known
from boneseg.evaluate.regions import region_measure, shared_regions, told
from boneseg.geometry import Geometry
from boneseg.identity import stable_hash
from boneseg.metrics.counts import COMMON, Counts, Regions, confusion
from boneseg.metrics.surface import SurfaceMetrics, surfaces
from boneseg.opencv import cv2
from boneseg.scheme import Labelling, LabelScheme
from boneseg.scheme.labelling import MIXED, THREE_CLASSES
from boneseg.scheme.roles import BONE
from boneseg.settings.schema import EvaluateSettings
from boneseg.storage import layout


@dataclass(frozen=True)
class Volume:
    """A labelled series in axial order."""

    hu: NDArray[np.int16]
    label: NDArray[np.uint8]
    geometry: Geometry
    labelling: Labelling = THREE_CLASSES
    """What the label's values are."""
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


def measure(method: Method, content: str, volume: Volume, settings: EvaluateSettings) -> Measurement:
    """Segment a series and count; the mask is gone afterwards.

    The three common classes are counted for every method; beyond them the classes and groups that its scheme and the
    label's share. Voxels of which the label does not tell are left out.
    """
    labels, label = method.segment(volume.hu, volume.geometry), np.asarray(volume.label)
    scheme, labelling, spacing = method.scheme, volume.labelling, volume.geometry.spacing
    common, total = _counted(zip(label, labels.mask, strict=True), scheme, labelling)
    output = None
    if labels.output is not None:
        output = _counted(zip(planes_on_output(label, labels.output), labels.output, strict=True), scheme, labelling)
    names, regions = shared_regions(scheme, labelling)
    complete = told(regions, total)
    bone = Regions(*(np.array([table]) for table in _bone(scheme, labelling)))
    wanted = bone.joined(regions.only(complete))
    first, *others = surfaces(label, labels.mask, wanted, spacing, settings.surface_tolerance_mm)
    measured = iter(others)
    if labelling.roles.max() == MIXED:
        first = SurfaceMetrics(np.nan, np.nan, np.nan)
    return Measurement(
        method=method.identity,
        content=content,
        spacing_mm=spacing,
        tolerance_mm=settings.surface_tolerance_mm,
        slices=_rows(common),
        output_slices=None if output is None else _rows(output[0]),
        hd95_mm=known(first.hd95_mm),
        average_surface_mm=known(first.average_mm),
        normalised_surface=known(first.normalised),
        regions=tuple(
            region_measure(name, region, total, next(measured) if whole else None)
            for name, region, whole in zip(
                names, zip(regions.picked, regions.inside, regions.outside, strict=True), complete, strict=True
            )
        ),
        classes=_class_counts(scheme, labelling, total, None if output is None else output[1]),
    )


def _counted(
    planes: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]], scheme: LabelScheme, labelling: Labelling
) -> tuple[Counts, Counts]:
    """Count slices, each a plane of the label and one of the mask.

    Returns:
        (slices, 3, 3) by role, what is of several roles left out; and (values, classes) of all slices together.
    """
    by_value = labelling.roles[:, None] == np.arange(COMMON)
    by_class = scheme.role_table[:, None] == np.arange(COMMON)
    total = np.zeros((labelling.size, scheme.size), dtype=np.int64)
    slices = []
    for reference, prediction in planes:
        table = confusion(reference, prediction, scheme.size, labelling.size)
        total += table
        slices.append(by_value.T.astype(np.int64) @ table @ by_class.astype(np.int64))
    return np.stack(slices), total


def planes_on_output(label: NDArray[np.uint8], output: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Bring a reference to the grid of a network's own output, as the library of the paper does (``paper`` protocol).

    Its ``evaluate`` brings the reference to the size of the network's output by OpenCV's plain nearest neighbour.

    Args:
        label: (slice, row, column).
        output: (slice, h, w).

    Yields:
        (h, w), slice by slice.
    """
    for plane in label:
        yield cv2.resize(plane, (output.shape[2], output.shape[1]), interpolation=cv2.INTER_NEAREST)


def _bone(scheme: LabelScheme, labelling: Labelling) -> tuple[NDArray[np.bool_], ...]:
    """Return which classes are bone, which values surely are, and which surely are not."""
    return scheme.role_table == BONE, labelling.roles == BONE, labelling.roles < BONE


def _class_counts(
    scheme: LabelScheme, labelling: Labelling, total: Counts, output: Counts | None
) -> ClassCounts | None:
    """Keep the voxels of every class where the three common ones do not say it all; none across schemes."""
    if scheme.by_role == (0, 1, 2) or scheme.identity != labelling.scheme.identity:
        return None
    return ClassCounts.of(labelling.sets, total, output)


def _rows(tables: Counts) -> tuple[CountRow, ...]:
    return tuple(tuple(int(count) for count in table.ravel()) for table in tables)


def measurement_key(method: Method, content: str, settings: EvaluateSettings) -> str:
    """Return where a measurement is kept in the bucket: the same for every evaluation that would make it."""
    name = stable_hash([method.identity, content, settings.surface_tolerance_mm, EVALUATE_VERSION])
    return layout.evaluation(name, "measurement.json")
