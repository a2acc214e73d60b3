"""Several labels of one series: copies, an older one in another folder, or one mask a bone that are joined."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from boneseg.ingest.anatomy import (
    Meaning,
    is_known,
    is_part,
    meaning,
    names_bone,
    says_no_bone,
    shown,
    structure,
    words,
)
from boneseg.ingest.facts import ObjectFacts
from boneseg.ingest.places import Place, Rank, carries_name_of, rank, stem
from boneseg.storage.catalogue import FileKind, LabelPart, LabelRow, Problem
from boneseg.storage.hashing import combine

_NAMED = 3
"""Labels that a message names one by one; more are counted by folder."""
_TO_JOIN = (
    "keep one label a series, or call each mask by its bone, such as femur_left.nii.gz, and remove what is none of them"
)


@dataclass(frozen=True)
class Claim:
    """A label that fits a series; ``in_order`` as in ``LabelRow``."""

    label: Place
    fact: ObjectFacts
    rank: Rank
    in_order: bool = False


@dataclass
class _Mask:
    """One value of one claimant, with the words of its name."""

    claim: Claim
    value: int
    found: list[str]
    says: Meaning = field(init=False)

    def __post_init__(self) -> None:
        self.says = meaning(self.found)
        if self.says == Meaning.BONE and not is_known(self.found):
            self.says = Meaning.UNKNOWN  # "femur_reader2" is a version of a bone, and another may stand beside it


def settle(series: Place, claims: Sequence[Claim]) -> tuple[LabelRow | None, list[Problem]]:
    """Decide what the label of a series is where one or several labels claim it.

    Copies count once. Labels in a nearer folder stand before others, and so does one that is called as the series is.
    What is left is joined where names of files or segments say which are bones, and refused otherwise.

    Returns:
        The label, none where it cannot be told, and what is to be said about it.
    """
    ordered = sorted(claims, key=lambda claim: claim.label.path.split("/"))
    ordered.sort(key=lambda claim: (claim.rank, rank(claim.label, series)), reverse=True)
    distinct, problems = _without_copies(ordered)
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
        label, said = _join(series, near)
        return label, problems + said
    (claim,) = near
    if (no_bone := _no_bone(series, claim)) is not None:
        return None, [*problems, Problem(source=claim.label.path, reason=no_bone)]
    assert claim.fact.file is not None
    fact, in_order = claim.fact, claim.in_order
    return LabelRow(
        kind=claim.fact.file, object=fact.ref, values=fact.values, drawn=_drawn(claim), in_order=in_order
    ), problems


def _drawn(claim: Claim) -> str:
    """Return a name of what a label holds and where, equal for two files with the same."""
    fact = claim.fact
    if not fact.pixels or fact.geometry is None:
        return fact.ref.sha256
    places = ",".join(f"{value + 0.0:.2f}" for row in fact.geometry.affine for value in row)
    segments = ",".join(f"{value}:{name}" for value, name in sorted(fact.segments.items()))
    return combine([str(fact.file), fact.pixels, str(fact.geometry.shape), places, segments])


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


def _no_bone(series: Place, claim: Claim) -> str | None:
    """Return why the only label of a series is none, where its name says that it is something else."""
    masks = _masks(series, [claim])
    if not masks or not all(says_no_bone(mask.found) for mask in masks):
        return None
    if len(masks) > 1 and claim.fact.file == FileKind.NIFTI and names_bone(masks[0].found):
        return None  # muscles and bones, say: prepare.label_map tells which value is what
    return (
        f"by its name it is {shown(mask.found for mask in masks)}, not bone, and there is no other label for "
        f"{series.path}; add the bones, or rename it if it is bone"
    )


def _join(series: Place, claims: Sequence[Claim]) -> tuple[LabelRow | None, list[Problem]]:
    masks = _masks(series, claims)
    several = [claim for claim in claims if claim.fact.file == FileKind.NIFTI and len(claim.fact.values) > 1]
    if several:
        one = several[0].label.path
        return None, _refused(series, claims, f"{one} holds several values and is no mask of one bone; {_TO_JOIN}")
    unknown = [mask for mask in masks if mask.says == Meaning.UNKNOWN]
    if unknown:
        names = _listed(mask.claim.label.path for mask in unknown)
        return None, _refused(series, claims, f"the names of {names} do not tell which bone they are; {_TO_JOIN}")
    bones = [mask for mask in masks if mask.says == Meaning.BONE]
    twice = [name for name, count in Counter(structure(mask.found) for mask in bones).items() if count > 1]
    if twice:
        return None, _refused(series, claims, f"{shown(twice)} is there more than once; {_TO_JOIN}")
    if not bones:
        others = shown(mask.found for mask in masks)
        return None, _refused(series, claims, f"by their names they are {others or 'empty'}, not bone; add the bones")
    return _joined(claims, masks), [Problem(source=series.path, reason=_what_was_joined(masks), fatal=False)]


def _masks(series: Place, claims: Sequence[Claim]) -> list[_Mask]:
    """Return each value of each label with the words that are its own, not those of the series or of all labels."""
    names = {claim.label.path: words(stem(claim.label.path)) for claim in claims}
    common = set(words(" ".join(series.parts)))
    if len(claims) > 1:
        common |= set.intersection(*map(set, names.values()))
    masks = []
    for claim in claims:
        own = _own_words(names[claim.label.path], common)
        for value in claim.fact.values:
            of_segment = claim.fact.segments.get(value, "")
            masks.append(_Mask(claim, value, words(of_segment) if claim.fact.file == FileKind.DICOM_SEG else own))
    return masks


def _own_words(name: Sequence[str], common: Collection[str]) -> list[str]:
    """Return the words of a name that others do not share; of a side or part also the bone that all of them name."""
    own = [word for word in name if word not in common]
    if own and all(is_part(word) for word in own):
        return [word for word in name if word not in common or names_bone([word])]
    return own or list(name)


def _joined(claims: Sequence[Claim], masks: Sequence[_Mask]) -> LabelRow:
    parts = []
    for claim in sorted(claims, key=lambda claim: claim.label.path):
        own = [mask for mask in masks if mask.claim is claim]
        bone = tuple(mask.value for mask in own if mask.says == Meaning.BONE)
        outline = tuple(mask.value for mask in own if mask.says == Meaning.OUTLINE)
        if bone or outline:
            assert claim.fact.file is not None
            fact, in_order = claim.fact, claim.in_order
            parts.append(
                LabelPart(kind=claim.fact.file, object=fact.ref, bone=bone, outline=outline, in_order=in_order)
            )
    values = sorted({value for part in parts for value in (*part.bone, *part.outline)})
    drawn = combine(sorted(_drawn(claim) for claim in claims))
    return LabelRow(kind=parts[0].kind, object=parts[0].object, values=tuple(values), parts=tuple(parts), drawn=drawn)


def _what_was_joined(masks: Sequence[_Mask]) -> str:
    def of(says: Meaning) -> list[list[str]]:
        return [mask.found for mask in masks if mask.says == says]

    bones, others = of(Meaning.BONE), of(Meaning.OTHER)
    reason = f"{len(bones)} masks are joined as its bone ({shown(bones)})"
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
