"""Which slices the figures show, and the masks of these slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boneseg.evaluate.measure import Method, Subject, Volume
from boneseg.evaluate.plots import SlicePicture
from boneseg.evaluate.records import SeriesResult
from boneseg.evaluate.tables import image_bone_iou
from boneseg.scheme import BONE


@dataclass(frozen=True)
class Choice:
    """A slice to show."""

    title: str
    row: SeriesResult
    index: int
    """Slice, counted from 0 at the feet."""


def choose(series: Sequence[SeriesResult]) -> list[Choice]:
    """Choose the best, the typical (median) and the worst slice by the network's bone IoU.

    Only slices whose reference holds bone are candidates; there may be fewer than three, or none.
    """
    candidates: list[tuple[float, SeriesResult, int]] = []
    for row in series:
        values = image_bone_iou(row.network)
        with_bone = np.flatnonzero(row.network.slice_counts()[:, BONE].sum(axis=1))
        candidates += [(float(values[index]), row, int(index)) for index in with_bone]
    candidates.sort(key=lambda item: (item[0], item[1].series, item[2]))
    places = {"best": len(candidates) - 1, "typical": len(candidates) // 2, "worst": 0}
    different = {place: title for title, place in reversed(places.items())} if candidates else {}
    return [Choice(title, *candidates[place][1:]) for place, title in reversed(different.items())]


def draw(
    choices: Sequence[Choice], subjects: Sequence[Subject], network: Method, threshold: Method
) -> list[SlicePicture]:
    """Segment the chosen slices again, series by series, and return their pictures in the order of the choices."""
    by_series = {subject.series: subject for subject in subjects}
    pictures: dict[str, SlicePicture] = {}
    for series in {choice.row.series for choice in choices}:
        volume = by_series[series].load()
        here = [choice for choice in choices if choice.row.series == series]
        wanted = [choice.index for choice in here]
        masks, classical = (method.segment(volume.hu, volume.geometry, wanted).mask for method in (network, threshold))
        for choice, mask, other in zip(here, masks, classical, strict=True):
            pictures[choice.title] = _picture(choice, volume, mask, other)
    return [pictures[choice.title] for choice in choices]


def _picture(choice: Choice, volume: Volume, network: NDArray[np.uint8], threshold: NDArray[np.uint8]) -> SlicePicture:
    return SlicePicture(
        title=choice.title,
        place=f"series {choice.row.name}, slice {choice.index + 1} of {choice.row.images}",
        hu=np.asarray(volume.hu[choice.index]),
        reference=np.asarray(volume.label[choice.index]),
        network=network,
        threshold=threshold,
        network_iou=float(image_bone_iou(choice.row.network)[choice.index]),
        threshold_iou=float(image_bone_iou(choice.row.threshold)[choice.index]),
        spacing=volume.geometry.spacing[1:],
    )
