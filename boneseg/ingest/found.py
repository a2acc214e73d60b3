"""What was recognised so far in a bucket or folder, and what cannot be used of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from boneseg.ingest.candidates import Recognised
from boneseg.storage.catalogue import Problem


class Weight(IntEnum):
    """How much a problem matters: what costs a series first, what is harmless last."""

    SERIES = 0
    LABEL = 1
    CHOICE = 2
    COPY = 3
    UNUSED = 4


@dataclass
class Found:
    """What was recognised so far."""

    secret: bytes
    prefix: str
    label_folders: tuple[str, ...] = ()
    series: list[Recognised] = field(default_factory=list)
    problems: list[tuple[Weight, Problem]] = field(default_factory=list)
    copies: set[str] = field(default_factory=set)
    """Keys of slices that a series has already."""

    def name(self, key: str) -> str:
        """Return a key as a person knows it: below the raw prefix."""
        return key.removeprefix(self.prefix)

    def reject(self, source: str, reason: str, weight: Weight = Weight.SERIES) -> None:
        """Note what is not used or odd; what weighs less than a label is a warning."""
        fatal = weight <= Weight.LABEL
        self.problems.append((weight, Problem(source=source, reason=reason, fatal=fatal)))
