"""Several labels of one series: copies, an older one in another folder, or one mask a bone that are joined."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from boneseg.ingest.anatomy import (
    SIDES,
    Meaning,
    is_ignored,
    is_known,
    is_part,
    meaning,
    names_bone,
    says_no_bone,
    shown,
    structure,
    words,
    words_of,
)
from boneseg.ingest.label_names import NO_TABLE, NameTable
from boneseg.ingest.object_facts import ObjectFacts
from boneseg.ingest.places import Place, Rank, carries_name_of, rank, stem
from boneseg.scheme import BONE_SCHEME, LabelScheme, Role
from boneseg.storage.catalogue import FileKind, LabelPart, LabelRow, Problem
from boneseg.storage.hashing import combine

_RIBS = frozenset(("rib", "ribs", "costa", "costae"))
_NAMED = 3
"""Labels that a message names one by one; more are counted by folder."""
_TO_JOIN = (
    "keep one label a series, or call each mask by its bone, such as femur_left.nii.gz, and remove what is none of them"
)


@dataclass(frozen=True)
class Claim:
    """A label that fits a series.

    Attributes:
        label: where it lies.
        fact: what is known of the file.
        rank: how near it is to the series.
        in_order: as in ``LabelRow``.
        table: says what its values are called, where the file itself does not.
        whole: whether the file names all images of the series: slices that it leaves out are background.
    """

    label: Place
    fact: ObjectFacts
    rank: Rank
    in_order: bool = False
    table: NameTable = NO_TABLE
    whole: bool = False


@dataclass(frozen=True)
class _Vocabulary:
    """What names mean where a scheme calls its bones by words of its own."""

    scheme: LabelScheme
    more: frozenset[str]

    @staticmethod
    def of(scheme: LabelScheme) -> _Vocabulary:
        bones = [item for item in scheme.classes if item.role == Role.BONE]
        calls = [call for item in bones for call in (item.name, *item.calls)]
        return _Vocabulary(scheme, words_of([*calls, *(item.group for item in bones if item.group)]))

    def says(self, found: Sequence[str]) -> Meaning:
        exact = self.scheme.value_of("".join(found))
        if exact is not None:
            return (Meaning.OTHER, Meaning.OUTLINE, Meaning.BONE)[self.scheme.by_role[exact]]
        if is_ignored(found):
            return Meaning.OTHER
        says = meaning(found, self.more)
        # "femur_reader2" is a version of a bone, and another may stand beside it
        return Meaning.UNKNOWN if says == Meaning.BONE and not is_known(found, self.more) else says

    def kept(self, found: Iterable[str]) -> str:
        """Return those of some words that may leave the raw data."""
        return " ".join(word for word in found if is_known([word], self.more))


@dataclass(frozen=True)
class _Mask:
    """One value of one claimant, with the words of its name, what they say, and whether they are the value's own."""

    claim: Claim
    value: int
    found: list[str]
    says: Meaning
    is_named: bool


def settle(
    series: Place, claims: Sequence[Claim], scheme: LabelScheme = BONE_SCHEME
) -> tuple[LabelRow | None, list[Problem]]:
    """Decide what the label of a series is where one or several labels claim it.

    Copies count once, and an RTSTRUCT that names no bone is not used beside another label: it is that of a plan.
    Labels in a nearer folder stand before others, and so does one that is called as the series is.
    What is left is joined where names of files or segments say which are bones, and refused otherwise.

    Args:
        series: that they claim.
        claims: one at least.
        scheme: says by which words beside those of anatomy files call bones.

    Returns:
        The label, none where it cannot be told, and what is to be said about it.
    """
    vocabulary = _Vocabulary.of(scheme)
    claims, unused = _without_plans(series, claims, vocabulary)
    ordered = sorted(claims, key=lambda claim: claim.label.path.split("/"))
    ordered.sort(key=lambda claim: (claim.rank, rank(claim.label, series)), reverse=True)
    distinct, problems = _without_copies(ordered)
    problems = unused + problems
    nearest = max(claim.rank[0] for claim in distinct)
    near = [claim for claim in distinct if claim.rank[0] == nearest]
    called_alike = [claim for claim in near if carries_name_of(claim.label, series)]
    if len(called_alike) == 1:
        near = called_alike
    used = near[0].label.path if len(near) == 1 else f"{len(near)} labels"
    for claim in distinct:
        if claim not in near:
            reason = f"{series.path} has a nearer label, {used}; keep one"
            problems.append(Problem(source=claim.label.path, reason=reason))
    if len(near) > 1:
        label, said = _join(series, near, vocabulary)
        return label, problems + said
    (claim,) = near
    masks = _masks(series, [claim], vocabulary)
    if (no_bone := _no_bone(series, masks)) is not None:
        return None, [*problems, Problem(source=claim.label.path, reason=no_bone)]
    assert claim.fact.file is not None
    fact, in_order = claim.fact, claim.in_order
    label = LabelRow(
        kind=claim.fact.file,
        object=fact.ref,
        data=fact.data,
        slices=fact.slices,
        geometry=fact.geometry if fact.slices else None,
        values=fact.values,
        names=_names(claim, masks, vocabulary) if len(masks) == 1 or any(mask.is_named for mask in masks) else {},
        drawn=_drawn(claim),
        in_order=in_order,
        whole=claim.whole,
        table=_table(claim, masks),
    )
    return label, problems


def _without_plans(
    series: Place, claims: Sequence[Claim], vocabulary: _Vocabulary
) -> tuple[Sequence[Claim], list[Problem]]:
    plans = [
        claim
        for claim in claims
        if claim.fact.file == FileKind.RTSTRUCT
        and all(mask.says != Meaning.BONE for mask in _masks(series, [claim], vocabulary))
    ]
    if len(plans) == len(claims):
        return claims, []
    reason = f"by its name none of its regions is a bone, and {series.path} has another label, which is used"
    problems = [Problem(source=claim.label.path, reason=reason) for claim in plans]
    return [claim for claim in claims if claim not in plans], problems


def _names(claim: Claim, masks: Sequence[_Mask], vocabulary: _Vocabulary) -> dict[int, str]:
    """Return what may be told of the name of each value, of those too that the file could hold and does not."""
    told = claim.fact.segments or claim.table.names
    declared = {value: vocabulary.kept(words(name)) for value, name in told.items()}
    found = {mask.value: vocabulary.kept(mask.found) for mask in masks}
    return {**declared, **found} if any(mask.is_named for mask in masks) else found


def _table(claim: Claim, masks: Sequence[_Mask]) -> str:
    return claim.table.sha256 if not claim.fact.segments and any(mask.is_named for mask in masks) else ""


def _drawn(claim: Claim) -> str:
    """Return a name of what a label holds and where, equal for two files with the same."""
    fact = claim.fact
    if not fact.pixels or (fact.geometry is None and not fact.outermost):
        return combine(item.sha256 for item in fact.objects) if fact.data else fact.ref.sha256
    places = ",".join(f"{value + 0.0:.2f}" for row in (fact.geometry.affine if fact.geometry else ()) for value in row)
    segments = ",".join(f"{value}:{name}" for value, name in sorted(fact.segments.items()))
    # Formats of volumes hold the same voxels; segmentations say more than those.
    form = fact.file if fact.file is None or fact.is_segmentation or not fact.file.is_volume else FileKind.NIFTI
    shape = str(fact.geometry.shape) if fact.geometry else ""
    return combine([str(form), fact.pixels, shape, places, segments])


def _without_copies(claims: Sequence[Claim]) -> tuple[list[Claim], list[Problem]]:
    kept: dict[str, Claim] = {}
    problems = []
    for claim in claims:
        # Empty masks of two structures are no copies of each other, nor is one mask under two names that disagree.
        name: str = meaning(words(stem(claim.label.path))) if claim.fact.values else claim.label.path
        first = kept.setdefault(f"{_drawn(claim)} {name}", claim)
        if first is not claim:
            problems.append(Problem(source=claim.label.path, reason=f"a copy of {first.label.path}", fatal=False))
    return list(kept.values()), problems


def _no_bone(series: Place, masks: Sequence[_Mask]) -> str | None:
    """Return why the only label of a series is none, where its name says that it is something else."""
    if not masks or not all(mask.says != Meaning.BONE and says_no_bone(mask.found) for mask in masks):
        return None
    if len(masks) > 1 and not masks[0].is_named and names_bone(masks[0].found):
        return None  # muscles and bones, say: prepare.label_map tells which value is what
    return (
        f"by its name it is {shown(mask.found for mask in masks)}, not bone, and there is no other label for "
        f"{series.path}; add the bones, or rename it if it is bone"
    )


def _join(series: Place, claims: Sequence[Claim], vocabulary: _Vocabulary) -> tuple[LabelRow | None, list[Problem]]:
    masks = _masks(series, claims, vocabulary)
    several = [mask for mask in masks if not mask.is_named and len(mask.claim.fact.values) > 1]
    if several:
        one = several[0].claim.label.path
        return None, _refused(series, claims, f"{one} holds several values and is no mask of one bone; {_TO_JOIN}")
    unknown = [mask for mask in masks if mask.says == Meaning.UNKNOWN and not _may_be_left_out(mask)]
    if unknown:
        names = _listed(mask.claim.label.path for mask in unknown)
        return None, _refused(series, claims, f"the names of {names} do not tell which bone they are; {_TO_JOIN}")
    bones = [mask for mask in masks if mask.says == Meaning.BONE]
    twice = [
        name for name, count in Counter(structure(mask.found, vocabulary.more) for mask in bones).items() if count > 1
    ]
    if twice:
        return None, _refused(series, claims, f"{shown(twice)} is there more than once; {_TO_JOIN}")
    if not bones:
        others = shown(mask.found for mask in masks)
        return None, _refused(series, claims, f"by their names they are {others or 'empty'}, not bone; add the bones")
    told = Problem(source=series.path, reason=_what_was_joined(masks, vocabulary), fatal=False)
    return _joined(series, claims, masks, vocabulary), [told]


def _may_be_left_out(mask: _Mask) -> bool:
    """Say whether it is a region of an RTSTRUCT that names no bone: most hold targets of a plan beside the organs."""
    return mask.claim.fact.file == FileKind.RTSTRUCT and meaning(mask.found) == Meaning.UNKNOWN


def _masks(series: Place, claims: Sequence[Claim], vocabulary: _Vocabulary) -> list[_Mask]:
    """Return each value of each label with the words that are its own, not those of the series or of all labels."""
    masks = []
    for claim, own in zip(claims, _own_words(series, claims, vocabulary.more), strict=True):
        says_bone = len(claim.fact.values) == 1 and vocabulary.says(own) == Meaning.BONE
        names = claim.fact.segments or ({} if says_bone else claim.table.names)
        for value in claim.fact.values:
            found = words(names.get(value, "")) if names else own
            masks.append(_Mask(claim, value, found, vocabulary.says(found), bool(names)))
    return masks


def _own_words(series: Place, claims: Sequence[Claim], more: Collection[str]) -> list[list[str]]:
    """Return the words of the name of each file that neither the series nor all files share.

    Sides are never left out, and of a side or part also the bone that all of them name is kept. A file that is called
    as its series, as a case ``S1`` or ``hip_004`` is, has no words of its own.
    """
    names = [words(stem(claim.label.path)) for claim in claims]
    in_all = set.intersection(*map(set, names)) if len(claims) > 1 else set()
    found: list[list[str]] = []
    for claim, name in zip(claims, names, strict=True):
        shared = _shared(name, series)
        case = len(claims) == 1 and carries_name_of(claim.label, series) and not says_no_bone(name)
        if case and shared.issuperset(name):
            found.append([])
            continue
        common = (in_all | shared) - SIDES
        own = [word for word in name if word not in common]
        numbered = not _RIBS.isdisjoint(name)
        if own and all(is_part(word) or (numbered and word.isdigit()) for word in own):
            own = [word for word in name if word not in common or names_bone([word], more)]
        found.append(own or name)
    return found


def _shared(name: Sequence[str], series: Place) -> set[str]:
    """Return the words with which a name starts or ends as a folder or the file of the series does."""
    shared: set[str] = set()
    for part in series.parts:
        theirs = words(part)
        shared.update(word for word, _ in takewhile(_equal, zip(name, theirs, strict=False)))
        end = [word for word, _ in takewhile(_equal, zip(reversed(name), reversed(theirs), strict=False))]
        # A number alone, at the end, may be that of a rib as well as that of a patient.
        shared.update(end if any(word.isalpha() and word not in SIDES for word in end) else ())
    return shared


def _equal(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def _joined(series: Place, claims: Sequence[Claim], masks: Sequence[_Mask], vocabulary: _Vocabulary) -> LabelRow:
    parts, absent = [], []
    words_of_files = dict(zip(map(id, claims), _own_words(series, claims, vocabulary.more), strict=True))
    for claim in sorted(claims, key=lambda claim: claim.label.path):
        own = [mask for mask in masks if mask.claim is claim]
        bone = tuple(mask.value for mask in own if mask.says == Meaning.BONE)
        outline = tuple(mask.value for mask in own if mask.says == Meaning.OUTLINE)
        if not own and vocabulary.says(words_of_files[id(claim)]) == Meaning.BONE:
            absent.append(vocabulary.kept(words_of_files[id(claim)]))
        if bone or outline or any(is_ignored(mask.found) for mask in own):
            assert claim.fact.file is not None
            fact, in_order = claim.fact, claim.in_order
            parts.append(
                LabelPart(
                    kind=claim.fact.file,
                    object=fact.ref,
                    data=fact.data,
                    slices=fact.slices,
                    geometry=fact.geometry if fact.slices else None,
                    bone=bone,
                    outline=outline,
                    names=_names(claim, own, vocabulary),
                    in_order=in_order,
                    whole=claim.whole,
                    table=_table(claim, own),
                )
            )
    values = sorted({value for part in parts for value in (*part.bone, *part.outline)})
    drawn = combine(sorted(_drawn(claim) for claim in claims))
    return LabelRow(
        kind=parts[0].kind,
        object=parts[0].object,
        values=tuple(values),
        parts=tuple(parts),
        drawn=drawn,
        absent=tuple(sorted(absent)),
    )


def _what_was_joined(masks: Sequence[_Mask], vocabulary: _Vocabulary) -> str:
    def of(says: Meaning) -> list[list[str]]:
        return [mask.found for mask in masks if mask.says == says]

    bones, others = of(Meaning.BONE), of(Meaning.OTHER)
    reason = f"{len(bones)} masks are joined as its bone ({shown(bones, vocabulary.more)})"
    return f"{reason}; {len(others)} are taken as no bone ({shown(others)})" if others else reason


def _refused(series: Place, claims: Sequence[Claim], why: str) -> list[Problem]:
    reason = f"{len(claims)} labels fit {series.path}: {why}"
    if len(claims) <= _NAMED:
        return [Problem(source=claim.label.path, reason=reason) for claim in claims]
    folders: dict[str, int] = defaultdict(int)
    for claim in claims:
        folders[str(claim.label.folder)] += 1
    return [
        Problem(source=folder, reason=f"{count} files not used: {reason}") for folder, count in sorted(folders.items())
    ]


def _listed(paths: Iterable[str]) -> str:
    names = sorted(set(paths))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
