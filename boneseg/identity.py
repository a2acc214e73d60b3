"""Hashes that name settings and what is made with them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def stable_hash(value: Any) -> str:
    """Return 16 hex digits of SHA-256 over the canonical JSON of ``value``."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Fields:
    """The written-down list of fields by which something is named.

    Names stay what they are when settings grow: fields of the first version always count, with the value they have;
    a later one counts only where its value is not the one that means "as before".

    Attributes:
        first: dotted paths of the first version's fields.
        later: dotted path -> the value that does not count. Never change it, even if the setting's default changes.
        how: fields that say how something is computed, not what comes out; they never count.
        same: dotted path -> values that count as another one: a later default of ``first`` as the default before it.
    """

    first: tuple[str, ...]
    later: Mapping[str, Any] = field(default_factory=dict)
    how: tuple[str, ...] = ()
    same: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)

    def select(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what counts of some values (as ``model_dump(mode="json")`` gives them), nested as they are.

        A field of the first version that is missing raises KeyError; a later one that is missing does not count.
        """
        chosen: dict[str, Any] = {}
        for path in self.first:
            value = _get(values, path)
            _put(chosen, path, self.same[path].get(value, value) if path in self.same else value)
        for path, neutral in self.later.items():
            try:
                value = _get(values, path)
            except KeyError:
                continue
            if value != neutral:
                _put(chosen, path, value)
        return chosen

    def hash(self, values: Mapping[str, Any]) -> str:
        """Return the ``stable_hash`` of what counts."""
        return stable_hash(self.select(values))


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values by dotted path, as in ``{"train.epochs": 3}``, in their order."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{path}": inner for path, inner in flattened(value).items()}
        else:
            flat[key] = value
    return flat


def _get(values: Mapping[str, Any], path: str) -> Any:
    found: Any = values
    for part in path.split("."):
        found = found[part]
    return found


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *sections, last = path.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[last] = value
