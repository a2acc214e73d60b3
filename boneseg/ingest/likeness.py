"""On which of several passes of one series a label lies: measured, for nothing else tells where the file does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boneseg.dicom.series import read_series
from boneseg.errors import LabelError, SeriesError
from boneseg.geometry import to_axial
from boneseg.ingest.checks import MISPLACED
from boneseg.ingest.label_file import Fetch, Label, read_layers
from boneseg.ingest.object_facts import ObjectFacts
from boneseg.ingest.values_to_classes import covered_slices, to_classes
from boneseg.scheme.roles import BONE
from boneseg.storage.catalogue import LabelRow, SeriesRow
from boneseg.storage.faults import ObjectMissingError

_NO_AIR_HU = -200
_BRIGHTER_THAN_TISSUE = 100.0
_FEWEST_POINTS = 50
_LEAST_BRIGHT = 0.1
"""Of a label that lies on bone at least this share is bright."""

Compare = Callable[[ObjectFacts, Sequence[SeriesRow]], list[int]]
"""Gives those of some series on whose bones a label lies, none where that cannot be told."""


def lies_on(fetch: Fetch, fact: ObjectFacts, rows: Sequence[SeriesRow]) -> list[int]:
    """Compare a label with passes of one series.

    Args:
        fetch: gives raw objects as files.
        fact: of the label.
        rows: the passes, on whose grid it lies.

    Returns:
        Which of them it lies on equally well, in their order; none where it lies on none, or one cannot be read.
    """
    assert fact.file is not None
    try:
        label = LabelRow(kind=fact.file, object=fact.ref, data=fact.data, values=fact.values)
        found = [_bright_share(fetch, label, row) for row in rows]
    except (SeriesError, LabelError, ObjectMissingError):
        return []
    shares, count = [share for share, _ in found], found[0][1]
    best = max(shares)
    if count < _FEWEST_POINTS or best < _LEAST_BRIGHT:
        return []
    alike = MISPLACED + 2 / math.sqrt(count)
    return [index for index, share in enumerate(shares) if best - share <= alike]


def _bone(layers: Sequence[Label]) -> NDArray[np.bool_]:
    """Return the voxels that are bone by names or values of the label alone; all that is drawn where neither tells."""
    bone = np.zeros(layers[0].values.shape, dtype=bool)
    for label in layers:
        try:
            bone |= to_classes(label.values, "", label.names, None) == BONE
        except LabelError:
            if len(layers) == 1:
                bone |= label.values > 0
    return bone


def _bright_share(fetch: Fetch, label: LabelRow, row: SeriesRow) -> tuple[float, int]:
    """Return which share of the bone is bright in a pass, and how many voxels the bone has."""
    layers = read_layers(fetch, label, row.geometry.geometry())
    drawn = _bone(layers)
    paths: list[Path] = [fetch(item) for item in {item.sha256: item for item in row.objects}.values()]
    hu, own_geometry, _ = read_series(paths, max_gap=math.inf, max_tilt_degrees=90)
    geometry, reorientation = to_axial(own_geometry)
    numbers = covered_slices(layers[0].geometry, geometry)
    values = reorientation.apply(hu)
    some = values[numbers[0] : numbers[-1] + 1, ::2, ::2]
    body = some[some > _NO_AIR_HU]
    # Contrast makes soft tissue brighter too; most of a body is soft tissue, whatever its bones.
    limit = float(np.median(body)) + _BRIGHTER_THAN_TISSUE if body.size else 0.0
    bright = sum(int(np.count_nonzero(values[at][part] > limit)) for at, part in zip(numbers, drawn, strict=True))
    count = int(np.count_nonzero(drawn))
    return bright / max(count, 1), count
