"""CT slices kept as PNG pictures, and masks of the same names: a folder each, as the paper's data lies.

A picture says neither where it lies nor which HU its greys are: the settings do (``pull.png``). Slices are in the order
of the numbers in their names, the lowest first; their first row is anterior, their first column the patient's right.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from boneseg.errors import LabelError, SeriesError
from boneseg.geometry import Geometry
from boneseg.hu import to_hu
from boneseg.ingest.object_facts import Kind, ObjectFacts
from boneseg.png import Grey, read_png
from boneseg.settings.schema import PngSettings
from boneseg.storage.catalogue import FileKind, GeometryRecord
from boneseg.storage.hashing import combine

FEWEST_GREYS = 64
"""A folder of pictures with more different values, or one of 16 bits, holds images; fewer are masks."""
_NUMBER = re.compile(r"^(.*?)(\d+)(\D*)$")
_SIXTEEN_BITS = (-1024.0, 64511.0)
"""HU of the least and the largest value of 16 bits where nothing else is said: one HU a step, as CT is stored."""

Window = tuple[float, float]


def gather(facts: Iterable[ObjectFacts], settings: PngSettings) -> list[ObjectFacts]:
    """Make one volume or label of the pictures of each folder.

    Args:
        facts: of all objects.
        settings: spacing and window; without a spacing pictures are not used.

    Returns:
        The facts, with volumes and labels in place of pictures, or the reason why a picture is not used.
    """
    listed = list(facts)
    if settings.spacing_mm is None:
        return listed
    pictures = [item for item in listed if item.grey_shape is not None]
    rest = [item for item in listed if item.grey_shape is None]
    stacks: dict[tuple[str, str, str], list[tuple[int, ObjectFacts]]] = defaultdict(list)
    for item in pictures:
        key = PurePosixPath(item.ref.key)
        match = _NUMBER.match(key.stem)
        if match is None:
            rest.append(_unused(item, "a PNG picture without a number in its name, so that its place is not known"))
        else:
            stacks[str(key.parent), match[1], match[3]].append((int(match[2]), item))
    several = {folder for folder, _, _ in stacks if sum(other == folder for other, _, _ in stacks) > 1}
    in_order = {key: sorted(found, key=lambda pair: (pair[0], pair[1].ref.key)) for key, found in stacks.items()}
    steps = [two[0] - one[0] for ordered in in_order.values() for one, two in pairwise(ordered)]
    step = min((step for step in steps if step > 0), default=1)
    for (folder, start, end), ordered in in_order.items():
        name = f"{folder}/{start}{end}".rstrip("-_. ") if folder in several else folder
        rest += _stack(name, ordered, settings, step)
    return rest


def _unused(item: ObjectFacts, reason: str) -> ObjectFacts:
    return item.model_copy(update={"reason": reason})


def _stack(
    name: str, ordered: Sequence[tuple[int, ObjectFacts]], settings: PngSettings, step: int
) -> list[ObjectFacts]:
    items = [item for _, item in ordered]
    numbers = [number for number, _ in ordered]
    if reason := _irregular(numbers, items):
        return [_unused(item, reason) for item in items]
    assert settings.spacing_mm is not None
    assert items[0].grey_shape is not None
    rows, columns = items[0].grey_shape[:2]
    distance, *in_plane = settings.spacing_mm
    geometry = _geometry((len(items), rows, columns), numbers, distance / step, in_plane)
    stacked = ObjectFacts(
        ref=items[0].ref.model_copy(update={"key": name}),
        kind=Kind.LABEL,
        file=FileKind.PNG,
        geometry=GeometryRecord.of(geometry),
        slices=tuple(item.ref for item in items),
    )
    deep = any(item.grey_shape is not None and item.grey_shape[2] > 8 for item in items)
    values = sorted({value for item in items for value in item.values})
    if len(values) < FEWEST_GREYS and max(item.shades for item in items) < FEWEST_GREYS:
        drawn = tuple(value for value in values if value > 0)
        return [stacked.model_copy(update={"values": drawn, "pixels": combine(item.pixels for item in items)})]
    window = settings.window or (_SIXTEEN_BITS if deep else None)
    if window is None:
        reason = "a PNG picture of 8 bits: say which HU its darkest and its brightest grey are, in pull.png.window"
        return [_unused(item, reason) for item in items]
    greys = np.array([[item.values[0], item.values[-1]] for item in items])
    hu = to_hu(*_scaling(window, 16 if deep else 8, np.array([greys.min(), greys.max()])))
    pixels = combine([*(item.pixels for item in items), f"{window}"])
    return [
        stacked.model_copy(
            update={
                "kind": Kind.VOLUME,
                "hu_range": (int(hu[0]), int(hu[1])),
                "pixels": pixels,
                "window": window,
            }
        )
    ]


def _irregular(numbers: Sequence[int], items: Sequence[ObjectFacts]) -> str:
    """Say why pictures are not the slices of one volume; empty where they are."""
    if len(items) < 2:
        return "a single PNG picture; a volume needs two slices or more"
    if len({item.grey_shape for item in items}) > 1:
        return "PNG pictures of different sizes or depths; put each series into a folder of its own"
    steps = {second - first for first, second in pairwise(numbers)}
    if len(steps) > 1:
        return "PNG pictures whose numbers have gaps or are there twice; complete the series, one number a slice"
    return ""


def _geometry(
    shape: tuple[int, int, int], numbers: Sequence[int], distance: float, in_plane: Sequence[float]
) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = 0
    step = numbers[1] - numbers[0]
    affine[2, 0], affine[1, 1], affine[0, 2] = step * distance, in_plane[0], in_plane[1]
    affine[2, 3] = numbers[0] * distance
    return Geometry(shape, affine)


def _scaling(window: Window, bits: int, grey: NDArray[np.generic]) -> tuple[NDArray[np.generic], float, float]:
    low, high = window
    return grey, (high - low) / (2**bits - 1), low


def read_hu_pictures(paths: Sequence[Path], window: Window) -> NDArray[np.int16]:
    """Read the slices of a series as HU.

    Args:
        paths: of the slices, the lowest first.
        window: HU of the value 0, and of the largest that the file can hold.

    Returns:
        HU (slice, row, column).

    Raises:
        SeriesError: one is damaged.
    """
    greys = _read(paths)
    return np.stack([to_hu(*_scaling(window, 8 * grey.dtype.itemsize, grey)) for grey in greys])


def read_label_pictures(paths: Sequence[Path]) -> Grey:
    """Read the masks of a series, the lowest first, as label values (slice, row, column).

    Raises:
        LabelError: one is damaged.
    """
    try:
        found = _read(paths)
    except SeriesError as error:
        raise LabelError(str(error)) from error
    volume: Grey = np.empty((len(found), *found[0].shape), dtype=found[0].dtype)
    for number, plane in enumerate(found):
        volume[number] = plane
    return volume


def _read(paths: Sequence[Path]) -> list[Grey]:
    found = [read_png(path) for path in paths]
    if len({(grey.shape, grey.dtype) for grey in found}) > 1:
        raise SeriesError(f"{paths[0].name} and others were changed since the last pull; run 'boneseg pull' again")
    return found
