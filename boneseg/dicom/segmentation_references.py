"""What a DICOM SEG says it was drawn on: the series and images that it references."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence


@dataclass(frozen=True)
class References:
    """What a SEG references, by the UIDs that stand in the file; empty where it does not say.

    Attributes:
        series: SeriesInstanceUID of the series that it was drawn on; empty where it names several and its images do
            not tell which.
        images: SOPInstanceUIDs of the source images, each once, in the order of the file.
        listed: SOPInstanceUIDs of all images of that series that the file names, drawn on or not.
        frame_of_reference: FrameOfReferenceUID that the frames lie in.
        study: StudyInstanceUID that the SEG is part of.
    """

    series: str = ""
    images: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    frame_of_reference: str = ""
    study: str = ""


def references_of(data: Dataset) -> References:
    """Return what a SEG references, from its header; a part that is missing or malformed counts as not said."""
    named = dict(_series(data))
    sources = dict.fromkeys(_source_images(data))
    listed = dict.fromkeys(image for images in named.values() for image in images)
    # Several series stand there where a file was made from a PET and a CT; the frames say which it was drawn on.
    drawn_on = [uid for uid, images in named.items() if sources and not sources.keys().isdisjoint(images)]
    candidates = list(named) if len(named) == 1 else drawn_on
    series = candidates[0] if len(candidates) == 1 else ""
    return References(
        series=series,
        images=tuple(sources or listed),
        listed=tuple(dict.fromkeys(named.get(series, ()))),
        frame_of_reference=_uid(data, "FrameOfReferenceUID"),
        study=_uid(data, "StudyInstanceUID"),
    )


def _series(data: Dataset) -> Iterator[tuple[str, list[str]]]:
    """Yield each series that the header names, with its images."""
    images: dict[str, list[str]] = {}
    for place in (data, *_items(data, "StudiesContainingOtherReferencedInstancesSequence")):
        for item in _items(place, "ReferencedSeriesSequence"):
            uid = _uid(item, "SeriesInstanceUID")
            if uid:
                images.setdefault(uid, []).extend(_instances(item, "ReferencedInstanceSequence"))
    yield from images.items()


def _source_images(data: Dataset) -> Iterator[str]:
    """Yield the images that the frames, or the file as a whole, are derived from."""
    groups = (
        *_items(data, "SharedFunctionalGroupsSequence"),
        *_items(data, "PerFrameFunctionalGroupsSequence"),
        data,
    )
    for group in groups:
        for derivation in _items(group, "DerivationImageSequence"):
            yield from _instances(derivation, "SourceImageSequence")
    yield from _instances(data, "SourceImageSequence")


def _instances(item: Dataset, keyword: str) -> Iterator[str]:
    uids = (_uid(image, "ReferencedSOPInstanceUID") for image in _items(item, keyword))
    return (uid for uid in uids if uid)


def _items(data: Dataset, keyword: str) -> tuple[Dataset, ...]:
    try:
        value: Any = data.get(keyword)
    except Exception:  # pydicom parses an element when it is asked for, and passes on what a damaged byte makes of it
        return ()
    return tuple(value) if isinstance(value, Sequence) else ()


def _uid(data: Dataset, keyword: str) -> str:
    try:
        return str(data.get(keyword) or "").strip("\0 ")
    except Exception:  # as above
        return ""
