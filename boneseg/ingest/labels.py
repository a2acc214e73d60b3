"""Which label belongs to which series: by what its file references, by geometry, then by folder and name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from boneseg.ingest.anatomy import Meaning, meaning, words
from boneseg.ingest.candidates import Candidate, LabelAtPlace, Recognised
from boneseg.ingest.contradictions import Refuse, another_space, contradiction, drawn_elsewhere, is_same_frame
from boneseg.ingest.joining import Claim, settle
from boneseg.ingest.label_names import NameTable, NameTables
from boneseg.ingest.likeness import Compare
from boneseg.ingest.object_facts import Kind, ObjectFacts
from boneseg.ingest.places import (
    Fit,
    Place,
    carries_name_of,
    fit,
    leaves_out_an_end,
    numbers_differ,
    rank,
    stem,
    why_no_fit,
)
from boneseg.scheme import BONE_SCHEME, LabelScheme
from boneseg.storage.catalogue import FileKind, Problem, SeriesRow

_GREY_VALUES = 200
"""A volume of at least as many values from 0 to 255 is a picture with grey values: nobody labels so many structures."""


@dataclass(frozen=True)
class _Known:
    """All that a label may belong to.

    Attributes:
        candidates: the series.
        unread: what may be an image and cannot be read.
        below: folder -> indices of the series in it and its subfolders, for each folder that holds images.
        broken_series: series UIDs, as keyed hashes, of slices that cannot be read.
        compare: tells on which of several passes a label lies.
    """

    candidates: list[Candidate]
    unread: list[Place]
    below: dict[PurePosixPath, list[int]]
    broken_series: frozenset[str]
    compare: Compare


@dataclass(frozen=True)
class _Choice:
    index: int
    note: str = ""


def assign_labels(
    found: Sequence[Recognised],
    facts: Sequence[ObjectFacts],
    images: Iterable[str],
    prefix: str,
    compare: Compare,
    scheme: LabelScheme = BONE_SCHEME,
) -> tuple[list[SeriesRow], list[Problem]]:
    """Give each series the label that is its own.

    What a DICOM SEG or RTSTRUCT references decides. For others the nearest folder above that holds images decides among
    which series it may choose: a label never goes to another patient's folder because its own series is damaged. Of
    the series there on whose grid it lies, with all or some of their slices, the one with most folders in common is
    taken, then the one whose name is most alike (``labelsTr/a_1`` and ``imagesTr/a_1_0000``), and of several passes of
    one series that on whose bones it lies. Where a label cannot be told to be of one series, it is not used.

    Args:
        found: series without labels.
        facts: of all objects.
        images: keys of all objects that are images, readable or not.
        prefix: start of all keys that people do not need to see.
        compare: tells on which of several passes of one series a label lies.
        scheme: says by which words beside those of anatomy files call bones.

    Returns:
        The rows with labels, and a problem for each label that is not used.
    """
    known = _known([Candidate(item) for item in found], facts, images, prefix, compare)
    claims: dict[int, list[Claim]] = defaultdict(list)
    problems = []
    named = [item for item in facts if item.kind == Kind.NAMES]
    tables = NameTables.of((_below(item, prefix), NameTable(item.segments, item.ref.sha256)) for item in named)
    stems = {item.ref.key: stem(item.ref.key) for item in facts if item.kind == Kind.LABEL}
    for item in facts:
        if item.kind != Kind.LABEL:
            continue
        label = LabelAtPlace(item, _place(item, prefix))
        choice = _is_picture(label) or _choose(label, known)
        if isinstance(choice, str):
            problems.append(Problem(source=label.place.path, reason=choice))
            continue
        series = known.candidates[choice.index]
        in_order = series.fit(label.place) == Fit.IN_ORDER
        others = {name for key, name in stems.items() if key != item.ref.key}
        table = tables.of_label(label.place.path, item.values, others)
        claim = Claim(label.place, item, series.rank(label.place), in_order, table, _is_whole(label, series))
        claims[choice.index].append(claim)
        notes = [choice.note, _taken_in_order(label.place, series.place) if in_order else ""]
        problems += [Problem(source=label.place.path, reason=note, fatal=False) for note in notes if note]
    problems += _without_strangers(claims, known)
    rows = [item.row for item in found]
    for index, claimants in sorted(item for item in claims.items() if item[1]):
        chosen, said = settle(known.candidates[index].place, claimants, scheme)
        rows[index] = rows[index].model_copy(update={"label": chosen})
        problems += said
    return rows, problems


def _without_strangers(claims: dict[int, list[Claim]], known: _Known) -> list[Problem]:
    """Take away labels that are called as no image where others of their folder are: their own image is not here.

    Of a label that says itself what it was drawn on, names say nothing.
    """
    called = {
        id(claim): any(carries_name_of(claim.label, place) for place in known.candidates[index].places)
        for index, claimants in claims.items()
        for claim in claimants
    }
    everyone = [claim for claimants in claims.values() for claim in claimants]
    by_name = {claim.label.folder for claim in everyone if called[id(claim)]}
    problems = []
    for index, claimants in claims.items():
        series = known.candidates[index]
        for claim in list(claimants):
            apart = all(claim.label.folder != place.folder for place in series.places)
            refers = claim.fact.referenced_series or claim.fact.referenced_images
            if apart and not refers and not called[id(claim)] and claim.label.folder in by_name:
                claimants.remove(claim)
                reason = (
                    f"lies on the grid of {series.path}, but is not called as it is, while others of its folder are "
                    "called as their images; add its own series, or give both the same name"
                )
                problems.append(Problem(source=claim.label.path, reason=reason))
    return problems


def _is_whole(label: LabelAtPlace, series: Candidate) -> bool:
    """Say whether a label without frames at an end of its series names the images there all the same."""
    named = {*label.fact.listed_images, *label.fact.referenced_images}
    drawn_on_all = bool(series.images) and series.images <= named
    return label.is_seg and drawn_on_all and leaves_out_an_end(label.place, series.place)


def _known(
    candidates: list[Candidate], facts: Sequence[ObjectFacts], images: Iterable[str], prefix: str, compare: Compare
) -> _Known:
    below: dict[PurePosixPath, list[int]] = {folder: [] for folder in _with_parents(images, prefix)}
    for index, candidate in enumerate(candidates):
        for place in candidate.places:
            for folder in (place.folder, *place.folder.parents):
                if index not in below.setdefault(folder, []):
                    below[folder].append(index)
    damaged = [item for item in facts if item.kind == Kind.BROKEN]
    unread = [item for item in facts if item.kind == Kind.IGNORED and item.is_picture and may_be_image(item)]
    unread += [item for item in damaged if item.geometry is not None or may_be_image(item)]
    places = {(place.path, place.folder): place for place in (_place(item, prefix) for item in unread)}
    broken = frozenset(item.series for item in damaged if item.series and item.file == FileKind.DICOM)
    return _Known(candidates, list(places.values()), below, broken, compare)


def may_be_image(item: ObjectFacts) -> bool:
    """Say whether a file that is not read may be the image of a label, not a label itself."""
    path = PurePosixPath(item.ref.key)
    found = words(" ".join((*path.parent.parts[-1:], path.name.split(".")[0])))
    called_label = not _LABEL_WORDS.isdisjoint(found) or meaning(found) != Meaning.UNKNOWN
    return not item.is_segmentation and not called_label


_LABEL_WORDS = frozenset(["label", "labels", "seg", "segs", "segmentation", "segmentations", "mask", "masks", "gt"])


def _choose(label: LabelAtPlace, known: _Known) -> _Choice | str:
    """Return the series that a label belongs to, or why there is none."""
    referenced = _referenced(label, known)
    if isinstance(referenced, str):
        return referenced
    if referenced:
        return _of_referenced(label, referenced, known)
    home = next((f for f in (label.place.folder, *label.place.folder.parents) if f in known.below), PurePosixPath())
    near = known.below.get(home, [])
    if not label.is_contours:
        return _of_near(label, near, home, known)
    in_frame = _in_its_frame(label, near, known)
    if near and not in_frame:
        return (
            "no series beside it is the one that it says it was drawn on, or has the frame of reference of its "
            "contours; add that series, or export the regions again on one that is here"
        )
    choice = _of_near(label, in_frame, home, known)
    if isinstance(choice, str) or choice.note:
        return choice
    series = known.candidates[choice.index]
    return _Choice(choice.index, drawn_elsewhere(label.fact, series.first, series.path))


def _of_near(label: LabelAtPlace, near: list[int], home: PurePosixPath, known: _Known) -> _Choice | str:
    """Return that of some series near a label whose it is."""
    fitting = label.fitting(near, known.candidates)
    if not fitting:
        return _no_fit(label, home, [known.candidates[index] for index in near], known)
    allowed = _without_refused(label, fitting, known, contradiction)
    if isinstance(allowed, str):
        return allowed
    choice = _nearest(label, allowed, known)
    if isinstance(choice, str) or is_same_frame(label.fact, known.candidates[choice.index].first):
        return choice
    return _other_owner(label, choice, home, known) or choice


def _without_refused(label: LabelAtPlace, fitting: list[int], known: _Known, refuse: Refuse) -> list[int] | str:
    """Return those of some series to which a label is not refused; the reason where there are none."""
    found = [known.candidates[index] for index in fitting]
    refusals = [refuse(label.fact, series.first, series.path) for series in found]
    allowed = [index for index, refusal in zip(fitting, refusals, strict=True) if not refusal]
    return allowed or refusals[0]


def _in_its_frame(label: LabelAtPlace, near: list[int], known: _Known) -> list[int]:
    """Return those of some series in whose space contours lie, by what both files say.

    Contours say where they lie in a frame of reference. A series without one, as in NIfTI, is theirs only where they
    lie on its very slices.
    """

    def is_theirs(index: int) -> bool:
        frame = known.candidates[index].first.frame_of_reference
        if frame:
            return frame == label.fact.frame_of_reference
        return known.candidates[index].fit(label.place) >= Fit.SOME_SLICES

    return [index for index in near if is_theirs(index)]


def _referenced(label: LabelAtPlace, known: _Known) -> list[int] | str:
    """Return the series that a label says it was drawn on, none where it does not say or they are not here."""
    fact, images = label.fact, set(label.fact.referenced_images)
    there = [(index, len(images & item.images)) for index, item in enumerate(known.candidates)]
    hits = [(index, count) for index, count in there if count]
    if hits:
        everything = len(images & set().union(*(known.candidates[index].images for index, _ in hits)))
        whole = [index for index, count in hits if count == everything]
        if whole:
            return whole
        names = " and ".join(known.candidates[index].path for index, _ in hits[:2])
        return f"it says that it was drawn on images of several series, {names}; write one segmentation for each"
    if not fact.referenced_series:
        return []
    by_series = [index for index, item in enumerate(known.candidates) if fact.referenced_series in item.series]
    if not by_series and fact.referenced_series in known.broken_series:
        return "the series that it says it was drawn on cannot be read; copy that series again"
    return by_series


def _of_referenced(label: LabelAtPlace, indices: list[int], known: _Known) -> _Choice | str:
    fitting = label.fitting(indices, known.candidates)
    if not fitting:
        series = known.candidates[indices[0]].place
        return (
            f"it says that it was drawn on {series.path}, but it has {label.place.describe()} and that series "
            f"{series.describe()}{_because(label, series)}: complete the series, or export the label again on it"
        )
    allowed = _without_refused(label, fitting, known, another_space)
    return allowed if isinstance(allowed, str) else _nearest(label, allowed, known)


def _nearest(label: LabelAtPlace, indices: list[int], known: _Known) -> _Choice | str:
    """Return the one series that is nearest by folder and name."""
    ranks = {index: known.candidates[index].rank(label.place) for index in indices}
    best = max(ranks.values())
    choices = [index for index in indices if ranks[index] == best]
    if len(choices) == 1:
        return _Choice(choices[0])
    found = [known.candidates[index].found for index in choices]
    parents = {item.parent for item in found}
    order = sorted(choices, key=lambda index: known.candidates[index].found.first)
    if len(parents) == 1 and None not in parents and len({item.first for item in found}) == len(found):
        return _of_passes(label, order, known)
    names = " and ".join(known.candidates[index].path for index in choices[:2])
    return f"fits {names} equally well; put the label beside its series"


def _of_passes(label: LabelAtPlace, order: list[int], known: _Known) -> _Choice | str:
    """Return the pass on whose bones a label lies, the first where it lies as well on several."""
    fits_them = f"fits {len(order)} passes of one series, {known.candidates[order[0]].path}"
    a_way_out = "a DICOM SEG that references its images, or a folder for each pass, says which it is"
    lies_on = known.compare(label.fact, [known.candidates[index].found.row for index in order])
    if not lies_on:
        return f"{fits_them}, and it cannot be told on which of them it was drawn; {a_way_out}"
    number = lies_on[0] + 1
    if len(lies_on) == 1:
        return _Choice(
            order[lies_on[0]], f"{fits_them}, and lies on the bones of number {number} alone, which it is of"
        )
    among = "all of them" if len(lies_on) == len(order) else f"{len(lies_on)} of them"
    used = "the first of them" if number == 1 else f"the first of these, number {number}"
    return _Choice(
        order[lies_on[0]], f"{fits_them}, lies on the bones of {among} alike, and is used for {used}; {a_way_out}"
    )


def _other_owner(label: LabelAtPlace, choice: _Choice, home: PurePosixPath, known: _Known) -> str | None:
    """Return why a label is not of the series that it fits best: its own cannot be read, or is not there."""
    series = known.candidates[choice.index]
    best = series.rank(label.place)
    near = [place for place in known.unread if place.folder.is_relative_to(home) and place.path != label.place.path]
    for place in near:
        elsewhere = place.own_geometry is not None and not fit(label.place, place)
        if not elsewhere and rank(label.place, place) > best:
            return f"seems to belong to {place.path}, which cannot be read; repair or remove that file"
    several = len(known.below.get(home, [])) + len(near) > 1
    if several and all(numbers_differ(label.place, place) for place in series.places):
        return (
            f"its name has another number than {series.path}, the only series that it could belong to; add its own "
            "series, or give both the same name"
        )
    return None


def _no_fit(label: LabelAtPlace, home: PurePosixPath, near: list[Candidate], known: _Known) -> str:
    beside = [place for place in known.unread if place.folder.is_relative_to(home)]
    if not near and beside:
        return f"its images are not read (see {beside[0].path}), and it is not given to another series"
    if not near and home in known.below and known.candidates:
        return "the images beside it form no series that can be used (see their rows); it is given to no other series"
    if not (near or known.candidates):
        return "there is no series that it could belong to; put the label beside its CT series"
    nearest = max(near or known.candidates, key=lambda item: (item.rank(label.place), item.path))
    series = nearest.place
    missing = f"; files of {beside[0].path} could not be read" if near and beside else ""
    return (
        f"the label has {label.place.describe()} and fits no series; the nearest, {series.path}, has "
        f"{series.describe()}{_because(label, series)}{missing}: export the label again on its series"
    )


def _because(label: LabelAtPlace, series: Place) -> str:
    reason = why_no_fit(label.place, series)
    return f", and {reason}" if reason else ""


def _taken_in_order(label: Place, series: Place) -> str:
    unknown = series.path if label.placed else label.path
    return (
        f"the header of {unknown} does not say where its voxels lie; as both files have as many of the same size, "
        f"they are taken to be those of {series.path} in the order in which they are stored"
    )


def _is_picture(label: LabelAtPlace) -> str:
    values = label.fact.values
    if label.is_seg or label.is_contours or len(values) < _GREY_VALUES or values[-1] > 255:
        return ""
    return (
        f"{len(values)} values from 0 to {values[-1]} are grey values of a picture (a CT windowed to 8 bits?), neither "
        "HU nor labels; convert the series again without a window"
    )


def _with_parents(images: Iterable[str], prefix: str) -> set[PurePosixPath]:
    folders: set[PurePosixPath] = set()
    for folder in {PurePosixPath(key.removeprefix(prefix)).parent for key in images}:
        folders.update((folder, *folder.parents))
    return folders


def _below(item: ObjectFacts, prefix: str) -> str:
    return item.ref.key.removeprefix(prefix)


def _place(item: ObjectFacts, prefix: str) -> Place:
    path = PurePosixPath(_below(item, prefix))
    geometry = item.geometry.geometry() if item.geometry else None
    if item.file == FileKind.DICOM and item.kind != Kind.VOLUME:  # a file of many: the series goes by its folder
        path = path.parent
        return Place(str(path), path, geometry)
    in_order = item.file is not None and item.file.is_volume
    return Place(str(path), path.parent, geometry, item.placed, in_order, item.is_crop, item.outermost)
