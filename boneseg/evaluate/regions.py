"""Classes and groups of a scheme, each measured by itself: what bone-by-bone models have beyond the common classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boneseg.evaluate.records import RegionMeasure, known
from boneseg.metrics.counts import Counts, Regions
from boneseg.metrics.surface import SurfaceMetrics
from boneseg.scheme import Labelling, LabelScheme


def regions_of(scheme: LabelScheme) -> dict[str, tuple[int, ...]]:
    """Return every class of a scheme but the background, and every group, by name.

    The background is what is left over; a group that has the name of a class is that class.
    """
    single = {name: (value,) for value, name in enumerate(scheme.names) if value}
    return {**single, **{name: members for name, members in scheme.groups.items() if name not in single}}


def shared_regions(scheme: LabelScheme, labelling: Labelling) -> tuple[tuple[str, ...], Regions]:
    """Return names and voxels of the classes and groups that a method and a label both know, by name.

    Args:
        scheme: of the method.
        labelling: of the reference.

    Returns:
        Names, and for each which of the method's classes and which of the label's values it has.
    """
    ours, theirs = regions_of(scheme), regions_of(labelling.scheme)
    names = tuple(name for name in ours if name in theirs)
    told = Regions.of(labelling.members, [theirs[name] for name in names])
    picked = np.zeros((len(names), scheme.size), dtype=bool)
    for number, name in enumerate(names):
        picked[number, list(ours[name])] = True
    return names, Regions(picked, told.inside, told.outside)


def told(regions: Regions, total: Counts) -> NDArray[np.bool_]:
    """Say of each region whether the label tells of every voxel whether it belongs to it; ``total``: voxel counts."""
    present = total.sum(axis=1) > 0
    return np.asarray((regions.inside | regions.outside)[:, present].all(axis=1))


def region_measure(
    name: str,
    region: tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]],
    total: Counts,
    surface: SurfaceMetrics | None,
) -> RegionMeasure:
    """Count one region.

    Args:
        name: of the class or group.
        region: which classes it has, which values are surely in it and which are surely not.
        total: voxels, (values, classes): reference by prediction.
        surface: of the region; none where a part of it is not told.
    """
    picked, inside, outside = region
    return RegionMeasure(
        name=name,
        hits=int(total[np.ix_(inside, picked)].sum()),
        missed=int(total[np.ix_(inside, ~picked)].sum()),
        extra=int(total[np.ix_(outside, picked)].sum()),
        untold=int(total[~(inside | outside)].sum()),
        hd95_mm=None if surface is None else known(surface.hd95_mm),
        average_surface_mm=None if surface is None else known(surface.average_mm),
        normalised_surface=None if surface is None else known(surface.normalised),
    )
