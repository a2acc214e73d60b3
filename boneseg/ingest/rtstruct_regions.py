"""The regions of an RTSTRUCT as layers of values on the grid of a series."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneseg.dicom.contour_slices import Planes, beyond, drawn_slices, planes_of, usual_distance
from boneseg.dicom.contours import Region, read_structures
from boneseg.dicom.polygons import Patch
from boneseg.errors import LabelError, SeriesError
from boneseg.geometry import Geometry
from boneseg.ingest.anatomy import Meaning, best_name, meaning, shown, words
from boneseg.memory_budget import check_volume

_OF_PLANS = frozenset(["ring", "opt", "avoid", "boost", "dose", "eval", "margin", "mm", "cm", "gy", "cgy", "z"])
_TARGET = re.compile("(?<![a-z])z?[pcgi]tv|prv", re.IGNORECASE)
_PARTLY = "~"
_SIDES = {"lt": "left", "rt": "right"}

Wanted = Callable[[str], bool]
"""Says by the name of a structure whether it is of use."""


def is_bone_or_outline(name: str) -> bool:
    """Say whether a name is that of a bone or of the patient's outline."""
    return meaning(words(name)) in (Meaning.BONE, Meaning.OUTLINE)


@dataclass(frozen=True, eq=False)
class Layers:
    """Regions on the grid of a series.

    Attributes:
        values: one array a layer, (slice, row, column) in the series' own order, uint8 or uint16.
        names: value -> name, of all layers.
        warnings: what is odd or not used, one sentence each.
    """

    values: list[NDArray[Any]]
    names: dict[int, str]
    warnings: list[str]


def region_names(regions: Mapping[int, Region]) -> dict[int, str]:
    """Return the name of each region, or the meaning of its code or type where the name says nothing.

    Names of radiotherapy are read as its users mean them: ``Femur Lt`` is the left one. What is no structure but a
    volume of a plan that is named after one (``PTV sacrum``, ``Femur L+5mm``, ``zFemur``), and what is marked as drawn
    in part only (``~Femur_L``, by the nomenclature of AAPM's Task Group 263), has no name: it is not that bone.
    """
    return {number: _name(region) for number, region in regions.items()}


def _name(region: Region) -> str:
    name = best_name(region.name, region.code)
    found = words(name)
    of_plan = not _OF_PLANS.isdisjoint(found) or _TARGET.search(name) is not None
    if region.is_target or of_plan or _PARTLY in region.name:
        return ""
    return " ".join(_SIDES.get(word, word) for word in found)


def read_regions(path: Path, series: Geometry, wanted: Wanted | None) -> Layers:
    """Draw the regions of an RTSTRUCT on a series.

    The layers cover the whole series; a slice without contours is background. Regions that overlap are in different
    layers: of two, the one with fewer voxels is in the earlier layer, as in a DICOM SEG the smaller segment is kept; of
    the same size, the one with the lower number.

    Args:
        path: the file.
        series: geometry of the series as read.
        wanted: which regions are drawn, by name; the others are left out with a sentence. None = all.

    Raises:
        LabelError: damaged, no region is wanted, or a bone or outline cannot be drawn on these slices.
    """
    found = read_structures(path)
    regions, numbers, warnings = found.regions, found.drawn, list(found.warnings)
    names = region_names(regions)
    used = [number for number in numbers if wanted is None or wanted(names[number])]
    if not used:
        raise _nothing_wanted(path, numbers, names)
    if left := [number for number in numbers if number not in used]:
        warnings.append(_left_out(left, names))
    try:
        check_volume(path.name, math.prod(series.shape))
        patches, planes = {}, _planes(path, [regions[number] for number in used], series, names, warnings)
        if not planes:
            raise LabelError(f"{path.name}: none of its regions can be drawn on the series: {warnings[-1]}")
        among = usual_distance(item.positions for item in planes.values())
        for number, item in planes.items():
            patches[number] = drawn_slices(item, series, among)
            if outside := beyond(item, series):
                warnings.append(
                    f"{outside} of {len(item.positions)} contour planes of region {number} lie beyond the series"
                )
        values = _layers(path, patches, series.shape)
    except SeriesError as error:
        raise LabelError(str(error)) from error
    return Layers(values, {number: names[number] for number in planes}, warnings)


def _planes(
    path: Path, regions: Sequence[Region], series: Geometry, names: Mapping[int, str], warnings: list[str]
) -> dict[int, Planes]:
    """Return the planes of regions; what is neither bone nor outline may lie across the slices, and is left out."""
    planes = {}
    for region in regions:
        try:
            planes[region.number] = planes_of(region, series)
        except LabelError as error:
            if is_bone_or_outline(names[region.number]):
                raise LabelError(f"{path.name}: {error}") from error
            warnings.append(f"{error}; it is left out")
    return planes


def _layers(path: Path, patches: Mapping[int, Mapping[int, Patch]], shape: tuple[int, int, int]) -> list[NDArray[Any]]:
    kind = np.dtype(np.uint8 if max(patches, default=0) <= np.iinfo(np.uint8).max else np.uint16)
    sizes = {number: sum(int(patch.mask.sum()) for patch in slices.values()) for number, slices in patches.items()}
    layers: list[NDArray[Any]] = []
    for number in sorted(patches, key=lambda number: (sizes[number], number)):
        drawn = patches[number]
        # Behind the last layer with which it overlaps, so that every smaller region that it covers comes before it.
        overlaps = [index for index, layer in enumerate(layers) if _overlap(layer, drawn)]
        place = overlaps[-1] + 1 if overlaps else 0
        if place == len(layers):
            check_volume(path.name, (place + 1) * math.prod(shape) * kind.itemsize)
            layers.append(np.zeros(shape, dtype=kind))
        for index, patch in drawn.items():
            layers[place][index][patch.place][patch.mask] = number
    return layers


def _overlap(layer: NDArray[Any], drawn: Mapping[int, Patch]) -> bool:
    return any(layer[index][patch.place][patch.mask].any() for index, patch in drawn.items())


def _nothing_wanted(path: Path, numbers: Sequence[int], names: Mapping[int, str]) -> LabelError:
    if not numbers:
        return LabelError(f"{path.name}: no region has closed contours; draw the bones, or remove the file")
    return LabelError(
        f"{path.name}: by its name none of {len(numbers)} regions is a bone{_known(numbers, names)}; call the bones by "
        "their names, or say which region number is which class in prepare.label_map"
    )


def _left_out(numbers: Sequence[int], names: Mapping[int, str]) -> str:
    listed = ", ".join(str(number) for number in numbers[:8]) + (" and more" if len(numbers) > 8 else "")
    count = "1 region is" if len(numbers) == 1 else f"{len(numbers)} regions are"
    return f"{count} left out, whose names say neither bone nor outline: {listed}{_known(numbers, names)}"


def _known(numbers: Sequence[int], names: Mapping[int, str]) -> str:
    # Names are free text, which may hold a patient's: only words of anatomy are shown.
    known = shown(words(names[number]) for number in numbers)
    return f" ({known})" if known else ""
