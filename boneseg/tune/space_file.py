"""From a space as it is written, in YAML or in a run's settings, to what a sweep searches; see ``docs/sweeps.md``."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from boneseg.encoder_compatibility import ARCHITECTURES
from boneseg.errors import SettingsError
from boneseg.identity import flattened
from boneseg.settings import identities
from boneseg.settings.loading import read_yaml
from boneseg.settings.schema import ModelSettings, RunSettings, TrainSettings
from boneseg.tune.space import ARCHITECTURE, Dimension, Part, Space, space_of_lists

RANGES = {"uniform": (False, False), "loguniform": (False, True), "int": (True, False), "logint": (True, True)}
"""Kind of range -> whether of whole numbers, and whether logarithmic."""
PART_KEYS = ("choice", *RANGES, "step", "points", "when")
SECTIONS: dict[str, type[BaseModel]] = {"model": ModelSettings, "train": TrainSettings}
ELSEWHERE = {"train.epochs": "tune.epochs says how long a trial trains", "train.workers": "all trials have the same"}
"""Settings that trials do not choose, and why."""
LEAST_TO_GROW = 2
Place = Callable[[str], str]
"""Says where a setting stands, such as ``space.yaml, line 3``."""


def space_of(settings: RunSettings, place: Place | None = None) -> Space:
    """Return what a run's sweep searches.

    Args:
        settings: of the run; where ``tune.space`` is none, the lists of ``tune`` are searched.
        place: says where a setting of the space stands; none = by its name alone.

    Raises:
        SettingsError: a setting of the space is unknown, or what it is chosen from is not allowed.
    """
    if settings.tune.space is None:
        return space_of_lists(settings)
    where = place or (lambda _: "tune.space")
    if not settings.tune.space:
        raise SettingsError("tune.space: it is empty; give settings with choices, such as model.encoder: [resnet18]")
    found = {name: _dimension(name, given, where) for name, given in settings.tune.space.items()}
    ordered = _ordered(found, where)
    space = Space(tuple(ordered), settings)
    _check_conditions(space, found, where)
    return space


def with_space(settings: RunSettings, path: Path | None) -> RunSettings:
    """Put a space file into a run's settings, and check its space before any work is done.

    Args:
        settings: of the run.
        path: of the file; none = the space is that of the settings, or their lists.

    Raises:
        SettingsError: names file, line and setting.
    """
    if path is None:
        space_of(settings)
        return settings
    values, place = read_space(path)
    chosen = settings.model_copy(update={"tune": settings.tune.model_copy(update={"space": values})})
    space_of(chosen, place)
    return chosen


def read_space(path: Path) -> tuple[dict[str, Any], Place]:
    """Read a space file.

    Returns:
        Setting by dotted name -> what is written of it, and where each stands.

    Raises:
        SettingsError: it cannot be read, is no YAML or no mapping, or names a setting twice.
    """
    values = read_yaml(path, f"{path}: ", "the space file")
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    if not isinstance(values, dict) or not isinstance(root, yaml.MappingNode) or not values:
        raise SettingsError(f"{path}: a space is a mapping of settings, such as 'model.encoder: [resnet18, resnet34]'")
    lines: dict[str, int] = {}
    for key, _ in root.value:
        line = key.start_mark.line + 1
        if key.value in lines:
            raise SettingsError(f"{path}, line {line}: {key.value} stands in line {lines[key.value]} already; keep one")
        lines[key.value] = line
    return {str(name): given for name, given in values.items()}, lambda name: f"{path}, line {lines[name]}"


def _dimension(name: str, given: Any, where: Place) -> Dimension:
    start = f"{where(name)}: {name}"
    allowed = _field(name, where(name))
    conditional = isinstance(given, list) and given and all(isinstance(part, dict) for part in given)
    written: list[Any] = given if conditional else [given]
    parts = tuple(_part(name, part, allowed, start) for part in written)
    for part in parts[:-1]:
        if not part.when:
            raise SettingsError(f"{start}: a part without 'when' always holds; put it last")
    return Dimension(name, parts)


def _field(name: str, place: str) -> TypeAdapter[Any]:
    """Return what a setting allows."""
    section, *rest = name.split(".")
    kind: Any = SECTIONS.get(section)
    found: FieldInfo | None = None
    for part in rest:
        known = isinstance(kind, type) and issubclass(kind, BaseModel) and part in kind.model_fields
        found = kind.model_fields[part] if known else None
        kind = found.annotation if found is not None else None
    if found is None or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        near = difflib.get_close_matches(name, _names(), 3, 0.5) or [ARCHITECTURE, "train.learning_rate"]
        raise SettingsError(f"{place}: {name} is no setting that a sweep can choose; did you mean {' or '.join(near)}?")
    if name in ELSEWHERE:
        raise SettingsError(f"{place}: {name} is not chosen by a trial: {ELSEWHERE[name]}; leave it out")
    if section == "train" and ".".join(rest) in identities.TRAIN.how:
        raise SettingsError(f"{place}: {name} changes nothing of the outcome; leave it out of the space")
    annotation: Any = Annotated[(kind, *found.metadata)] if found.metadata else kind
    return TypeAdapter(annotation, config=None if found.metadata else _config(kind))


def _config(kind: Any) -> ConfigDict | None:
    return None if isinstance(kind, type) and issubclass(kind, BaseModel) else ConfigDict(allow_inf_nan=False)


def _names() -> list[str]:
    names = [f"{name}.{key}" for name, section in SECTIONS.items() for key in flattened(section().model_dump())]
    return [name for name in names if name not in ELSEWHERE and name.removeprefix("train.") not in identities.TRAIN.how]


def _part(name: str, given: Any, allowed: TypeAdapter[Any], start: str) -> Part:
    if isinstance(given, list):
        given = {"choice": given}
    if not isinstance(given, dict):
        raise SettingsError(f"{start}: {given!r} is no choice; write a list, or one of {', '.join(RANGES)}")
    for key in given:
        if key not in PART_KEYS:
            raise SettingsError(f"{start}: {key!r} is unknown; known are {', '.join(PART_KEYS)}")
    kinds = [kind for kind in ("choice", *RANGES) if kind in given]
    if len(kinds) != 1:
        raise SettingsError(f"{start}: give one of choice, {', '.join(RANGES)} (now {' and '.join(kinds) or 'none'})")
    when = _when(given.get("when", {}), start)
    if kinds == ["choice"]:
        return Part(values=_values(name, given["choice"], allowed, start), when=when)
    return _range(kinds[0], given, allowed, start, when)


def _values(name: str, values: Any, allowed: TypeAdapter[Any], start: str) -> tuple[Any, ...]:
    if not isinstance(values, list) or not values:
        raise SettingsError(f"{start}: choice = {values!r}: give a list of at least one value")
    for value in values:
        _check(value, allowed, start)
        if name == ARCHITECTURE and value not in ARCHITECTURES:
            near = difflib.get_close_matches(str(value), ARCHITECTURES, 3, 0.5) or ARCHITECTURES
            raise SettingsError(f"{start} = {value!r}: there is no such architecture; known are {', '.join(near)}, ...")
    plain = [allowed.dump_python(allowed.validate_python(value), mode="json") for value in values]
    return tuple(value for number, value in enumerate(plain) if value not in plain[:number])


def _range(
    kind: str, given: Mapping[str, Any], allowed: TypeAdapter[Any], start: str, when: dict[str, tuple[Any, ...]]
) -> Part:
    whole, log = RANGES[kind]
    bounds = given[kind]
    numbers = (int,) if whole else (int, float)
    right = isinstance(bounds, list) and len(bounds) == 2 and all(type(bound) in numbers for bound in bounds)
    if not right or not -math.inf < bounds[0] < bounds[1] < math.inf or (log and bounds[0] <= 0):
        what = "two whole numbers" if whole else "two numbers, such as 1.0e-4 with its dot,"
        raise SettingsError(
            f"{start}: {kind} = {bounds!r}: give {what} low and high{', above 0' if log else ''}, as [low, high]"
        )
    for bound in bounds:
        _check(bound, allowed, start)
    for key, least in (("step", 1), ("points", LEAST_TO_GROW)):
        if key in given and (type(given[key]) is not int or given[key] < least):
            raise SettingsError(f"{start}: {key} = {given[key]!r}: give a whole number of at least {least}")
    if "step" in given and not whole:
        raise SettingsError(f"{start}: step is of whole numbers; use int, or leave it out")
    step = given.get("step", 1) if whole else None
    part = Part(low=bounds[0], high=bounds[1], log=log, step=step, points=given.get("points"), when=when)
    if whole:  # a step may lead to values that the setting does not allow, such as a crop of 100
        _check(part.rounded(bounds[0] + (step or 1)), allowed, start)
    return part


def _check(value: Any, allowed: TypeAdapter[Any], start: str) -> None:
    try:
        allowed.validate_python(value)
    except ValidationError as error:
        reason = str(error.errors(include_input=False)[0]["msg"])
        hint = "; YAML reads a number such as 1e-4 as a word, write 1.0e-4" if _is_number(value) else ""
        raise SettingsError(f"{start} = {value!r}: {reason[:1].lower()}{reason[1:]}{hint}") from None


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False


def _when(given: Any, start: str) -> dict[str, tuple[Any, ...]]:
    if not isinstance(given, dict):
        raise SettingsError(f"{start}: when = {given!r}: write settings and values, such as {{{ARCHITECTURE}: unet}}")
    when: dict[str, tuple[Any, ...]] = {}
    for name, values in given.items():
        allowed = _field(str(name), f"{start}: when")
        listed = values if isinstance(values, list) else [values]
        for value in listed:
            _check(value, allowed, f"{start}: when {name}")
        when[str(name)] = tuple(listed)
    return when


def _ordered(found: Mapping[str, Dimension], where: Place) -> Sequence[Dimension]:
    """Order settings so that each comes after those that its conditions ask."""
    ordered: list[Dimension] = []
    waiting = dict(found)
    while waiting:
        ready = [
            name
            for name, dimension in waiting.items()
            if not any(asked in waiting for part in dimension.parts for asked in part.when)
        ]
        if not ready:
            name = next(iter(waiting))
            raise SettingsError(f"{where(name)}: {name}: its conditions ask each other in a circle; break it")
        ordered.append(waiting.pop(ready[0]))
    return ordered


def _check_conditions(space: Space, found: Mapping[str, Dimension], where: Place) -> None:
    """Refuse a condition that can never hold, which is a slip of the pen."""
    for dimension in space.dimensions:
        for part in dimension.parts:
            for asked, values in part.when.items():
                given = [space.value(asked, {})]
                parts = found[asked].parts if asked in found else ()
                if any(not inner.values for inner in parts):
                    continue
                possible = [value for inner in parts for value in inner.values] or given
                possible += given if parts and all(inner.when for inner in parts) else []
                if not any(value in possible for value in values):
                    raise SettingsError(
                        f"{where(dimension.name)}: {dimension.name}: when {asked} is {' or '.join(map(str, values))} "
                        f"never holds; {asked} can be {', '.join(map(str, possible))}"
                    )
