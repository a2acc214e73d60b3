"""Which slices the figures show, and the masks of these slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boneseg.evaluate.measure import Subject, Volume
from boneseg.evaluate.methods import Method
from boneseg.evaluate.plots_slices import Masked, SlicePicture
from boneseg.evaluate.records import SeriesResult
from boneseg.evaluate.tables import image_bone_iou
from boneseg.scheme import Labelling, LabelScheme
from boneseg.scheme.labelling import take
from boneseg.scheme.roles import BONE


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


def draw(choices: Sequence[Choice], subjects: Sequence[Subject], methods: Mapping[str, Method]) -> list[SlicePicture]:
    """Segment the chosen slices again, series by series, and return their pictures in the order of the choices.

    Args:
        choices: what to show.
        subjects: the series, among them those of the choices.
        methods: by name; the classes of the first one are the pictures'.
    """
    by_series = {subject.series: subject for subject in subjects}
    pictures: dict[str, SlicePicture] = {}
    for series in {choice.row.series for choice in choices}:
        volume = by_series[series].load()
        here = [choice for choice in choices if choice.row.series == series]
        wanted = [choice.index for choice in here]
        scheme = next(iter(methods.values())).scheme
        masks = {
            name: take(
                shown_as(scheme, Labelling(method.scheme)), method.segment(volume.hu, volume.geometry, wanted).mask
            )
            for name, method in methods.items()
        }
        for place, choice in enumerate(here):
            pictures[choice.title] = _picture(
                choice, volume, scheme, {name: mask[place] for name, mask in masks.items()}
            )
    return [pictures[choice.title] for choice in choices]


def shown_as(scheme: LabelScheme, labelling: Labelling) -> NDArray[np.uint8]:
    """Return, for every value of a labelling, the value that a picture of a scheme's classes has for it.

    A class goes by its name. Other bones, and sets of bones, are bone of which nobody says which one; the rest is body
    where the scheme has one.
    """
    bone = scheme.bones[0] if len(scheme.bones) == 1 else scheme.size
    by_role = (0, scheme.body or 0, bone, scheme.body or 0)
    values = [by_role[role] for role in labelling.roles]
    for value, name in enumerate(labelling.scheme.names):
        if name in scheme.names and scheme.by_role[scheme.names.index(name)] == labelling.scheme.by_role[value]:
            values[value] = scheme.names.index(name)
    return np.array(values, dtype=np.uint8)


def _picture(
    choice: Choice, volume: Volume, scheme: LabelScheme, masks: Mapping[str, NDArray[np.uint8]]
) -> SlicePicture:
    return SlicePicture(
        title=choice.title,
        place=f"series {choice.row.name}, slice {choice.index + 1} of {choice.row.images}",
        hu=np.asarray(volume.hu[choice.index]),
        reference=take(shown_as(scheme, volume.labelling), np.asarray(volume.label[choice.index])),
        methods={
            name: Masked(mask, float(image_bone_iou(choice.row.methods[name])[choice.index]))
            for name, mask in masks.items()
        },
        spacing=volume.geometry.spacing[1:],
        scheme=scheme,
    )
