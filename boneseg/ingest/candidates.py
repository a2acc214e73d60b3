"""Series that may get a label, and labels that look for a series."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from boneseg.ingest.object_facts import Kind, ObjectFacts
from boneseg.ingest.places import Fit, Place, Rank, fit, rank
from boneseg.storage.catalogue import FileKind, SeriesRow


@dataclass(frozen=True)
class Recognised:
    """A series, and what is known of it beside its row.

    Attributes:
        row: without a label.
        slices: facts of its objects, copies included.
        folders: all folders below the raw prefix that hold the whole series.
        parent: what the files call one series; passes of one have the same.
        first: by what one pass comes before another.
    """

    row: SeriesRow
    slices: tuple[ObjectFacts, ...]
    folders: tuple[str, ...] = ()
    parent: object = None
    first: tuple[float, ...] = ()


class Candidate:
    """A series to which a label may go."""

    def __init__(self, found: Recognised) -> None:
        row = found.row
        self.found = found
        self.path = row.source
        geometry = row.geometry.geometry()
        first = found.slices[0]
        if first.kind == Kind.VOLUME:
            in_order = first.file is not None and first.file.is_volume
            self.places = [Place(row.source, PurePosixPath(row.source).parent, geometry, first.placed, in_order)]
        else:
            folders = dict.fromkeys((row.source, *found.folders))
            self.places = [Place(folder, PurePosixPath(folder), geometry) for folder in folders]
        self.images = {item.image for item in found.slices if item.image}
        self.series = {item.series for item in found.slices if item.series}

    @property
    def place(self) -> Place:
        """Where the series lies; copies of it in other folders are in ``places``."""
        return self.places[0]

    @property
    def first(self) -> ObjectFacts:
        """Facts of its first slice or of its file."""
        return self.found.slices[0]

    def rank(self, label: Place) -> Rank:
        """Return how near the series is to a label, in the nearest of its folders."""
        return max(rank(label, place) for place in self.places)

    def fit(self, label: Place) -> Fit:
        """Return how well a label lies on the series' grid."""
        return fit(label, self.place)


@dataclass(frozen=True)
class LabelAtPlace:
    """A label, and where it lies."""

    fact: ObjectFacts
    place: Place

    @property
    def is_seg(self) -> bool:
        """Whether it is a segmentation on a grid, which names its structures and may leave out empty slices."""
        return self.fact.is_segmentation and not self.is_contours

    @property
    def is_contours(self) -> bool:
        """Whether it is an RTSTRUCT, which has no grid."""
        return self.fact.file == FileKind.RTSTRUCT

    def fitting(self, indices: Iterable[int], candidates: Sequence[Candidate]) -> list[int]:
        """Return those of some series on whose grid the label lies.

        A segmentation leaves out empty slices, but another volume is rarely a part: where it fits a whole series, that
        is its own.
        """
        how = {index: candidates[index].fit(self.place) for index in indices}
        best = max(how.values(), default=Fit.NONE)
        return [index for index, well in how.items() if well > Fit.NONE and (self.is_seg or well == best)]
