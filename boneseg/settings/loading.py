"""Settings from a file, the command line or a form."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from boneseg.errors import SettingsError
from boneseg.redaction import HIDDEN, SECRET_NAMES, holds_password, redacted
from boneseg.scheme.record import plain
from boneseg.settings.probed_pairs import refusal_of
from boneseg.settings.schema import RunSettings

_LONGEST_SHOWN = 120
"""Characters of a refused value that a message shows."""


NODE_VARIABLE = "BONESEG_ON_NODE"
"""Set in processes that a Ray cluster started for us: their folder is that of their node, not of who called."""


def work_folder() -> Path:
    """Return the local folder for caches, runs and the embedded services.

    It is ``BONESEG_HOME`` of this process, else ``./.boneseg``. On a node of a Ray cluster, where the working
    directory is Ray's and goes with the job, it is ``~/.boneseg``, or in the folder for temporary files where the
    user has no home.

    Raises:
        SettingsError: somebody else owns the folder.
    """
    given = os.environ.get("BONESEG_HOME")
    if given or not on_node():
        return Path(given or ".boneseg").absolute()
    home = Path("~").expanduser()
    if home.is_absolute() and home != Path("/") and os.access(home, os.W_OK):
        return home / ".boneseg"
    folder = Path(tempfile.gettempdir()) / f"boneseg-{os.geteuid()}"
    if folder.is_symlink() or (folder.exists() and folder.stat().st_uid != os.geteuid()):
        raise SettingsError(f"{folder} belongs to somebody else: set BONESEG_HOME on the nodes of the cluster")
    return folder


def on_node() -> bool:
    """Say whether a Ray cluster that was given started this process."""
    return bool(os.environ.get(NODE_VARIABLE))


def load_settings(path: Path | None = None, overrides: tuple[str, ...] = ()) -> RunSettings:
    """Read settings from a YAML file and apply ``section.key=value`` overrides, in that order.

    Raises:
        SettingsError: the file cannot be read, a key is unknown, a value is not allowed, or architecture and encoder
            do not work together.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = read_yaml(path, f"{path}: ", "the settings file") or {}
        if not isinstance(values, dict):
            raise SettingsError(f"{path}: settings must be a mapping such as 'train: {{epochs: 3}}'")
    for override in overrides:
        _apply(values, override)
    values = _with_space_file(_with_scheme_file(values))
    source = str(path) if path else "settings"
    settings = parse_settings(values, source)
    if (reason := refusal_of(settings, work_folder())) is not None:
        raise SettingsError(f"{source}: {reason}")
    return settings


def _with_scheme_file(values: dict[str, Any]) -> dict[str, Any]:
    """Put a scheme in place of the YAML file that is named, so that settings hold all that other machines need."""
    named = values.get("scheme")
    if not isinstance(named, str) or Path(named).suffix.lower() not in (".yaml", ".yml"):
        return values
    scheme = read_yaml(Path(named), f"scheme = {named}: ", "the file")
    if not isinstance(scheme, dict):
        raise SettingsError(f"scheme = {named}: holds no scheme; give it a name and classes, as docs/schemes.md shows")
    return {**values, "scheme": scheme}


def _with_space_file(values: dict[str, Any]) -> dict[str, Any]:
    """Put a space in place of the YAML file that ``tune.space`` names."""
    tune = values.get("tune")
    named = tune.get("space") if isinstance(tune, dict) else None
    if not isinstance(named, str):
        return values
    space = read_yaml(Path(named), f"tune.space = {named}: ", "the file")
    return {**values, "tune": {**values["tune"], "space": space}}


def read_yaml(path: Path, start: str, what: str) -> Any:
    """Read a YAML file.

    Raises:
        SettingsError: it cannot be read, is no text, or no YAML; one sentence that begins with ``start``.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{start}cannot read {what} ({error.strerror})") from error
    except UnicodeDecodeError:
        raise SettingsError(f"{start}not a text file; write {what} as YAML in UTF-8") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{start}not valid YAML: {_fault(error)}") from None


def _fault(error: yaml.YAMLError) -> str:
    """Say in a clause what is wrong with YAML, and where."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return redacted(f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}")
    return redacted(" ".join(str(error).split()))


def parse_settings(values: dict[str, Any] | str, source: str = "settings") -> RunSettings:
    """Validate settings given as a mapping or as a JSON string.

    Raises:
        SettingsError: names the key, the value and what is allowed.
    """
    try:
        if isinstance(values, str):
            return RunSettings.model_validate_json(values or "{}")
        return RunSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = _known_keys(first["loc"][:-1]) if first["type"] == "extra_forbidden" else ""
        reason = f"unknown key; known are {known}" if known else str(first["msg"]).removeprefix("Value error, ")
        # Not "from error": its text holds the value as it is.
        given = f"{key} = {_shown(key, first['input'])}: " if key else ""
        raise SettingsError(f"{source}: {given}{reason}") from None


def _shown(key: str, value: Any) -> str:
    """Return a refused value as it may be shown: without passwords."""
    if SECRET_NAMES.search(key) or (isinstance(value, str) and holds_password(value)):
        return HIDDEN
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{name!r}: {_shown(f'{key}.{name}', inner)}" for name, inner in value.items()) + "}"
        return text if len(text) <= _LONGEST_SHOWN else "{...}"
    text = redacted(repr(value))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def form_overrides(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Turn the fields of a form, by ``section.key``, into overrides.

    An empty field, or 0 for a number, says nothing, so that the recipe decides; anything else is what the user wants,
    also where it happens to be the usual default.
    """
    return tuple(f"{key}={json.dumps(value)}" for key, value in values.items() if value)


def as_overrides(settings: RunSettings) -> list[str]:
    """Return the settings as ``section.key=value``: those that differ from what their recipe alone gives."""

    def walk(values: dict[str, Any], defaults: dict[str, Any], prefix: str) -> Iterator[str]:
        for key, value in values.items():
            default = defaults.get(key)
            if isinstance(value, dict) and isinstance(default, dict):
                yield from walk(value, default, f"{prefix}{key}.")
            elif value != default:
                yield f"{prefix}{key}={json.dumps(value)}"

    alone = RunSettings(recipe=settings.recipe).model_dump(mode="json")
    usual = RunSettings().recipe
    recipe = [] if settings.recipe == usual else [f"recipe={json.dumps(settings.recipe)}"]
    return recipe + list(walk(settings.model_dump(mode="json"), alone, ""))


def _known_keys(location: tuple[int | str, ...]) -> str:
    section: Any = RunSettings
    for part in location:
        # A number is a place in a list, whose kind of items stands inside its own.
        inside = get_args(section) if isinstance(part, int) else (section.model_fields[part].annotation,)
        section = next((kind for kind in inside if kind is not Ellipsis and kind is not type(None)), None)
        if section is None or not (get_args(section) or issubclass(section, BaseModel)):
            return ""
    return ", ".join(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else ""


def check_headline(settings: RunSettings) -> None:
    """Refuse a headline that a model of this run will not be measured by, before hours are spent on it.

    Raises:
        SettingsError: it is neither ``bone`` nor a class or group of the scheme.
    """
    scheme, wanted = settings.scheme, settings.publish.headline
    known = list(dict.fromkeys([*scheme.groups, *scheme.names[1:]]))
    if plain(wanted) not in map(plain, known):
        raise SettingsError(
            f"settings: publish.headline = {wanted!r}: not in scheme {scheme.name}; known are {', '.join(known)}"
        )


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise SettingsError(f"override {_override(override)} must look like train.epochs=3")
    *sections, last = key.strip().split(".")
    target = values
    for section in sections:
        inner = target.setdefault(section, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"override {_override(override)}: {section} holds a value, not a section")
        target = inner
    try:
        target[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(f"override {_override(override)}: the value is not valid YAML") from None


def _override(text: str) -> str:
    key, separator, value = text.partition("=")
    return repr(f"{key}{separator}{HIDDEN}") if separator and holds_password(value) else repr(redacted(text))
