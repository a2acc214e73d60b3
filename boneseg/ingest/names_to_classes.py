"""Which classes of a scheme a name means: one, or several where it says less than the scheme could."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from boneseg.ingest.anatomy import GENERIC, Meaning, is_ignored, is_level, meaning, names_bone, structure, words
from boneseg.scheme import LabelScheme
from boneseg.scheme.labelling import ClassSet

_ALL_BONES = frozenset(("bone", "bones", "osseous", "skeleton", "skeletal", "knochen", "os"))
_SPINE = ("spine", "vertebrae")
_SINGULAR = {
    "femora": "femur",
    "femurs": "femur",
    "femoral": "femur",
    "hips": "hip",
    "coxae": "coxa",
    "iliac": "ilium",
    "sacral": "sacrum",
    "vertebra": "vertebrae",
    "vertebral": "vertebrae",
    "ribs": "rib",
    "scapulae": "scapula",
    "clavicle": "clavicula",
    "clavicles": "clavicula",
    "claviculae": "clavicula",
    "humeri": "humerus",
    "humeral": "humerus",
    "sternal": "sternum",
    "pelvic": "pelvis",
    "l": "left",
    "r": "right",
}
_SAYS_BONE = frozenset(("bone", "bones"))
"""Words that say nothing beside a name: a hip bone is a hip."""
_OF_SPINE = frozenset(("spine", "vertebrae", "sacrum"))
_PIECES = {"ilium": "hip", "ischium": "hip", "pubis": "hip", "acetabulum": "hip", "ischial": "hip", "pubic": "hip"}
"""Parts of bones that have names of their own."""


def classes_called(name: str, scheme: LabelScheme) -> ClassSet | None:
    """Return the classes that a name means.

    ``femur_left`` is one class of scheme ``pelvis``, ``hip`` two, ``bone`` all bones, ``L5`` the spine; the name of a
    group means its bones; a bone that the scheme does not have may be any class, for nobody knows what else of it was
    drawn; what is no bone is background.

    Returns:
        Values of classes, rising; none where the name says nothing.
    """
    return _called(name, scheme)[0]


def classes_covered(names: Iterable[str], scheme: LabelScheme) -> set[int]:
    """Return the bones that a label shows wherever they are, by the names of all that it tells apart.

    A name of a part, such as ``femur head left`` or ``L5``, says nothing of the rest of its bone; two parts of one bone
    tell that the bone was labelled part by part.
    """
    covered: set[int] = set()
    parts: dict[ClassSet, set[frozenset[str]]] = defaultdict(set)
    for name in names:
        classes, is_part = _called(name, scheme)
        if classes is None or len(classes) == scheme.size:
            continue
        if is_part:
            parts[classes].add(_plain(structure(words(name))))
        else:
            covered.update(classes)
    return covered.union(*(classes for classes, found in parts.items() if len(found) > 1))


def _called(name: str, scheme: LabelScheme) -> tuple[ClassSet | None, bool]:
    """Return the classes that a name means, and whether it means only a part of one."""
    found = words(name)
    exact = scheme.value_of("".join(found))
    if exact is not None:
        return (exact,), False
    if group := _group_called(found, scheme):
        return group, False
    everything = tuple(range(scheme.size))
    if is_ignored(found):
        return everything, False
    own = _without_level(structure(found))
    says = meaning(found)
    if says != Meaning.BONE or not own:
        return {Meaning.OTHER: (0,), Meaning.OUTLINE: (scheme.body or 0,)}.get(says), False
    if own <= _ALL_BONES or scheme.knows_only_bone:
        return any_bone(scheme), False
    known, is_part = _matching(own, scheme)
    if not known and any(is_level(word) for word in own):
        of_spine = (_matching(frozenset((word,)), scheme)[0] for word in _SPINE)
        known, is_part = next((match for match in of_spine if match), ()), True
    return (known, is_part) if known else (everything, False)


def _group_called(found: Sequence[str], scheme: LabelScheme) -> ClassSet:
    """Return the bones of the group that a name is of, of one side where it says one; none where it is of no group."""
    own = sorted(_SINGULAR.get(word, word) for word in found if word not in GENERIC)
    sides = {word for word in own if word in ("left", "right")}
    unsided = [word for word in own if word not in sides]
    for name, members in scheme.groups.items():
        called = sorted(_SINGULAR.get(word, word) for word in words(name))
        if name == "bone" or called not in (own, unsided):
            continue
        side = sides.pop() if called != own and len(sides) == 1 else None
        bones = (value for value in members if value in scheme.bones)
        return tuple(value for value in bones if side in (None, scheme.classes[value].side))
    return ()


def _without_level(own: frozenset[str]) -> frozenset[str]:
    """Read the ``L1`` of ``Femur_L1`` as a side and a number: only of the spine it is a level."""
    others = {word for word in own if not is_level(word) and names_bone([word])}
    if not others or _plain(others) & _OF_SPINE:
        return own
    return frozenset(part for word in own for part in ((word[0], word[1:]) if is_level(word) else (word,)))


def any_bone(scheme: LabelScheme) -> ClassSet:
    """Return the classes of a voxel of which a label says only that it is bone.

    A scheme of one bone that is not called bone, such as a femur, leaves out the rest of the skeleton.
    """
    if len(scheme.bones) > 1 or scheme.knows_only_bone:
        return scheme.bones
    return tuple(sorted({scheme.body or 0, *scheme.bones}))


def _matching(own: frozenset[str], scheme: LabelScheme) -> tuple[ClassSet, bool]:
    """Return the classes that some words call, or say less of, or name a part of, and whether it is a part."""
    own = _plain(own)
    is_piece = not own.isdisjoint(_PIECES)
    own = frozenset(_PIECES.get(word, word) for word in own)
    calls = [
        (value, _plain(words(call)))
        for value, item in enumerate(scheme.classes)
        if value in scheme.bones
        for call in (item.name, *item.calls)
    ]
    equal = {value for value, call in calls if call == own}
    less = {value for value, call in calls if own < call}
    part = max((len(call) for _, call in calls if call < own), default=0)
    more = {value for value, call in calls if call < own and len(call) == part}
    beside = [word for value, call in calls if value in more and len(call) == part for word in own - call]
    is_part = not (equal or less) and not all(word.isdigit() for word in beside)
    return tuple(sorted(equal or less or more)), is_part or is_piece


def _plain(found: Iterable[str]) -> frozenset[str]:
    single = frozenset(_SINGULAR.get(word, word) for word in found)
    return single - _SAYS_BONE or single


def classes_of_values(present: Sequence[int], scheme: LabelScheme, encloses: bool) -> dict[int, ClassSet] | None:
    """Return the classes that values without names mean.

    Args:
        present: values above 0 that occur.
        scheme: says by which values files call its classes.
        encloses: whether value 1 lies around value 2 and is no bone by its HU, as an outline does.

    Returns:
        Value -> classes; none where the values say nothing.
    """
    if list(present) == [1] or (list(present) in ([1, 2], [2]) and encloses):
        bone = present[-1]
        outline = {1: (scheme.body or 0,)} if len(present) == 2 else {}
        return {**outline, bone: any_bone(scheme)}
    called = {value: number for number, item in enumerate(scheme.classes) for value in item.values}
    if all(value in called for value in present):
        return {value: (called[value],) for value in present}
    return None
