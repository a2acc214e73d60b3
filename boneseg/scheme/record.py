"""A label scheme: which classes a mask has, what they mean, and how files call them. It travels with data and model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from boneseg.identity import stable_hash

MOST_CLASSES = 250
"""Masks are uint8, and a few values above the classes stand for several of them."""


class Role(StrEnum):
    """What kind of thing a class is: by roles, any two schemes are comparable."""

    BACKGROUND = "background"
    BODY = "body"
    """The patient where there is nothing else: skin, fat, muscles, organs."""
    BONE = "bone"


ROLES = (Role.BACKGROUND, Role.BODY, Role.BONE)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Code(_Part):
    """A concept of SNOMED CT (coding scheme designator SCT)."""

    value: Annotated[str, Field(pattern=r"^\d{6,18}$")]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


Shade = Annotated[int, Field(ge=0, le=255)]


class LabelClass(_Part):
    """One class; its value in a mask is its place in the scheme."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,39}$")]
    role: Role
    group: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,39}$")] | None = None
    """Classes of one group are counted together under its name; none = every bone belongs to ``bone``."""
    partner: str | None = None
    """The class of the other side: mirroring an image swaps the two."""
    side: Literal["left", "right"] | None = None
    colour: tuple[Shade, Shade, Shade] = (128, 128, 128)
    """Red, green, blue, 0 to 255."""
    code: Code | None = None
    calls: tuple[str, ...] = ()
    """Other names by which files call it; letter case and separators play no part."""
    values: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()
    """Values by which files without names call it."""

    @property
    def family(self) -> str | None:
        """The group that it counts for, none for what is no bone and has none."""
        return self.group or ("bone" if self.role == Role.BONE else None)


class LabelScheme(_Part):
    """The classes of a task, in the order of their values: 0, 1, 2 and so on.

    The same bones are always in the same group; a group's voxels are those of all its members.
    """

    version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    classes: Annotated[tuple[LabelClass, ...], Field(min_length=2, max_length=MOST_CLASSES)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        roles = [item.role for item in self.classes]
        if roles[0] != Role.BACKGROUND or roles.count(Role.BACKGROUND) != 1:
            raise ValueError(f"scheme {self.name}: the first class, and no other, is the background")
        if roles.count(Role.BODY) > 1 or Role.BONE not in roles:
            raise ValueError(f"scheme {self.name}: there is at least one bone and at most one class of role body")
        _once(f"scheme {self.name}: the name", (item.name for item in self.classes))
        _once(f"scheme {self.name}: the value", (str(value) for item in self.classes for value in item.values))
        calls = ({plain(name) for name in (item.name, *item.calls)} for item in self.classes)
        _once(f"scheme {self.name}: the name or call", (call for own in calls for call in own))
        by_name = {item.name: item for item in self.classes}
        for item in self.classes:
            other = by_name.get(item.partner) if item.partner else None
            if item.partner and (other is None or other.partner != item.name or other is item):
                raise ValueError(f"scheme {self.name}: {item.name} and its partner {item.partner} must name each other")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of values."""
        return tuple(item.name for item in self.classes)

    @property
    def size(self) -> int:
        """How many classes there are, the background among them."""
        return len(self.classes)

    @property
    def bones(self) -> tuple[int, ...]:
        """Values of the bones."""
        return tuple(value for value, item in enumerate(self.classes) if item.role == Role.BONE)

    @property
    def body(self) -> int | None:
        """Value of the class of role body; none where there is none."""
        return next((value for value, item in enumerate(self.classes) if item.role == Role.BODY), None)

    @property
    def knows_only_bone(self) -> bool:
        """Whether all bones are one class; a scheme whose only bone is a femur, say, knows more."""
        return len(self.bones) == 1 and self.value_of("bone") is not None

    @property
    def by_role(self) -> tuple[int, ...]:
        """For every value its place in ``ROLES``: 0 background, 1 body, 2 bone."""
        return tuple(ROLES.index(item.role) for item in self.classes)

    @property
    def role_table(self) -> NDArray[np.uint8]:
        """``by_role`` to look masks up in."""
        return np.array(self.by_role, dtype=np.uint8)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """For every value the one it has in the mirrored image."""
        names = self.names
        return tuple(names.index(item.partner or item.name) for item in self.classes)

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Group -> values of its members; ``bone`` holds all bones."""
        found: dict[str, list[int]] = {"bone": list(self.bones)}
        for value, item in enumerate(self.classes):
            if item.group and item.group != "bone":
                found.setdefault(item.group, []).append(value)
        return {name: tuple(members) for name, members in found.items()}

    @property
    def identity(self) -> str:
        """Hash of what decides the meaning of a mask; colours, codes and names in files play no part."""
        return stable_hash([[item.name, item.role.value, item.group, item.partner] for item in self.classes])

    @property
    def reading(self) -> str:
        """Hash of all that decides how a file's values become classes: ``identity``, and names and values in files."""
        known = [self.identity, [[item.calls, item.values] for item in self.classes]]
        # Names of groups were not read at first; what was made without any is as it would be made today.
        return stable_hash([*known, "groups"] if len(self.groups) > 1 else known)

    @property
    def naming(self) -> tuple[str, ...]:
        """What names made with this scheme are made of: the classes' names and, unless those say it all, the rest.

        The first version knew only the names of the three classes of today's default.
        """
        plain_bone = self.names == _FIRST and self.by_role == (0, 1, 2) and not any(item.group for item in self.classes)
        return self.names if plain_bone else (*self.names, self.identity)

    def value_of(self, name: str) -> int | None:
        """Return the value of the class that goes by a name, none where there is none."""
        wanted = plain(name)
        for value, item in enumerate(self.classes):
            if wanted in (plain(known) for known in (item.name, *item.calls)):
                return value
        return None


_FIRST = ("background", "patient outline", "bone")


def plain(name: str) -> str:
    """Return a name without what writers differ in: case, spaces, dashes, dots and underscores."""
    return "".join(mark for mark in name.lower() if mark.isalnum())


def _once(what: str, values: Iterable[str]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{what} {twice[0]} is there twice")
