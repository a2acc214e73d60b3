"""What a sweep chooses among: settings by dotted name, each with what it is chosen from and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from boneseg.settings.loading import parse_settings
from boneseg.settings.recipes import merged
from boneseg.settings.schema import RunSettings, TuneSettings

Choice = dict[str, Any]
"""Setting by dotted name, such as ``model.encoder`` -> value."""

ARCHITECTURE, ENCODER = "model.architecture", "model.encoder"
LEARNING_RATE, LOSS = "train.learning_rate", "train.loss"
SIZE, SPACING = "model.preprocess.size", "model.preprocess.spacing_mm"
DIGITS = 4
"""Of a number out of a range: one that went through a table or a message is the same number."""


@dataclass(frozen=True)
class Part:
    """What one setting is chosen from, and under which condition."""

    values: tuple[Any, ...] = ()
    """The choices; empty where it is a range."""
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: int | None = None
    """Of whole numbers; none = the range is of real numbers."""
    points: int | None = None
    """Into how many values a grid divides the range; none = a grid cannot use it."""
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Setting -> the values of which it must have one; empty = always."""

    def grid(self) -> tuple[Any, ...]:
        """Return the values that a grid tries; empty where the range does not say how many."""
        if self.values:
            return self.values
        if self.points is None:
            return tuple(range(int(self.low), int(self.high) + 1, self.step)) if self.step and not self.log else ()
        shares = [number / max(1, self.points - 1) for number in range(self.points)]
        return tuple(dict.fromkeys(self.at(share) for share in shares))

    def at(self, share: float) -> float | int:
        """Return the number that lies at a share, 0 to 1, of a range: of its logarithm where it is logarithmic."""
        linear, ratio = self.low + (self.high - self.low) * share, self.high / self.low if self.log else 1.0
        return self.rounded(self.low * ratio**share if self.log else linear)

    def rounded(self, number: float) -> float | int:
        """Return a number of the range as a setting has it."""
        if self.step is None:
            return float(f"{number:.{DIGITS}g}")
        return int(min(self.high, self.low + round((number - self.low) / self.step) * self.step))


@dataclass(frozen=True)
class Dimension:
    """One setting of a space. The first part whose condition holds counts; where none does, the run's value stays."""

    name: str
    parts: tuple[Part, ...]

    def part(self, value_of: Callable[[str], Any]) -> int | None:
        """Return the number of the part that counts, given the values of other settings."""
        for number, part in enumerate(self.parts):
            if all(value_of(name) in allowed for name, allowed in part.when.items()):
                return number
        return None


Pick = Callable[[str, int, Part], Any]
"""Chooses a value for a setting out of one of its parts, by the part's number."""


@dataclass(frozen=True)
class Space:
    """What a sweep searches.

    Attributes:
        dimensions: in an order in which conditions look back only.
        base: the run's settings, which hold wherever nothing is chosen.
    """

    dimensions: tuple[Dimension, ...]
    base: RunSettings
    _values: dict[str, Any] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_values", self.base.model_dump(mode="json"))

    def choose(self, pick: Pick) -> Choice:
        """Go through the settings, asking for a value of each one whose condition holds."""
        choice: Choice = {}
        for dimension in self.dimensions:
            number = dimension.part(lambda name: self.value(name, choice))
            if number is not None:
                choice[dimension.name] = pick(dimension.name, number, dimension.parts[number])
        return choice

    def grid(self) -> Iterator[Choice]:
        """Yield every combination, the last setting changing fastest."""

        def further(choice: Choice, rest: Sequence[Dimension]) -> Iterator[Choice]:
            if not rest:
                yield choice
                return
            number = rest[0].part(lambda name: self.value(name, choice))
            if number is None:
                yield from further(choice, rest[1:])
                return
            for value in rest[0].parts[number].grid():
                yield from further({**choice, rest[0].name: value}, rest[1:])

        yield from further({}, self.dimensions)

    def value(self, name: str, choice: Choice) -> Any:
        """Return what a setting is under a choice."""
        if name in choice:
            return choice[name]
        found: Any = self._values
        for part in name.split("."):
            found = found[part]
        return found

    def described(self) -> dict[str, Any]:
        """Return setting -> what it is chosen from, in the words of a space file."""
        return {
            dimension.name: _words(dimension.parts[0])
            if len(dimension.parts) == 1
            else [_words(part) for part in dimension.parts]
            for dimension in self.dimensions
        }


def _words(part: Part) -> Any:
    when = {"when": {name: list(values) for name, values in part.when.items()}} if part.when else {}
    if part.values:
        return {**when, "choice": list(part.values)} if when else list(part.values)
    kind = ("logint" if part.log else "int") if part.step is not None else ("loguniform" if part.log else "uniform")
    more = {"step": part.step} if part.step not in (None, 1) else {}
    more |= {"points": part.points} if part.points is not None else {}
    return {**when, kind: [part.low, part.high], **more}


def space_of_lists(settings: RunSettings) -> Space:
    """Return the space that the lists of ``tune`` make, where no space is given."""
    tune: TuneSettings = settings.tune
    low, high = tune.learning_rate
    return Space(
        (
            Dimension(ARCHITECTURE, (Part(tune.architectures),)),
            Dimension(ENCODER, (Part(tune.encoders),)),
            Dimension(LEARNING_RATE, (Part(low=low, high=high, log=True),)),
            Dimension(LOSS, (Part(tuple(loss.value for loss in tune.losses)),)),
        ),
        settings,
    )


def overrides(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, by section, that a choice stands for."""
    nested: dict[str, Any] = {}
    named = dict(choice)
    if named.get(SIZE) is not None:  # the two exclude each other
        named.setdefault(SPACING, None)
    elif named.get(SPACING) is not None:
        named.setdefault(SIZE, None)
    for name, value in named.items():
        *sections, last = name.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return nested


def apply_best(settings: RunSettings, best: Mapping[str, Any]) -> RunSettings:
    """Put what a sweep found into a run's settings.

    Args:
        settings: of the run.
        best: ``TuneResult.best``.

    Raises:
        SettingsError: ``best`` is not from a sweep.
    """
    values = merged(settings.model_dump(mode="json"), dict(best))
    return parse_settings(values, source="best settings of the sweep")
