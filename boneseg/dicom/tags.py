"""Values of DICOM tags as plain texts and numbers, whatever a file has made of them."""

from __future__ import annotations

import math
from typing import Any

from boneseg.errors import SeriesError


class TagError(SeriesError):
    """A tag that is needed has no readable value; the message names it."""


def text(data: Any, keyword: str) -> str:
    """Return a text, empty where there is none that can be read."""
    try:
        return str(data.get(keyword) or "").strip().strip("\0")
    except Exception:  # pydicom passes on whatever a damaged value makes of its readers
        return ""


def optional_integer(data: Any, keyword: str) -> int | None:
    """Return a number that boneseg can do without; an odd one is passed over."""
    try:
        return integer(data, keyword)
    except TagError:
        return None


def integer(data: Any, keyword: str) -> int | None:
    """Return a whole number, or None where the file has none.

    Raises:
        TagError: the value is no whole number.
    """
    value = number(data, keyword)
    if value is None:
        return None
    if not value.is_integer():
        raise TagError(f"{keyword} is no whole number")
    return int(value)


def number(data: Any, keyword: str) -> float | None:
    """Return a finite number, or None where the file has none.

    Raises:
        TagError: the value is no number, not finite, or more than one.
    """
    value = _value(data, keyword)
    if value is None:
        return None
    found = _finite(value)
    if found is None:
        raise TagError(f"{keyword} is no finite number")
    return found


def numbers(data: Any, keyword: str, count: int) -> Any:
    """Return ``count`` finite numbers as a tuple, or None; a tuple of fixed length has no simple static type."""
    try:
        value = _value(data, keyword)
        if value is None or isinstance(value, str | bytes | float | int) or len(value) != count:
            return None
        found = tuple(_finite(part) for part in value)
    except (TagError, TypeError):
        return None
    return None if None in found else found


def items(data: Any, keyword: str) -> list[Any]:
    """Return the items of a sequence; none where it is absent or cannot be read."""
    try:
        value = data.get(keyword)
        return [] if value is None or isinstance(value, str | bytes) else list(value)
    except Exception:  # as in text
        return []


def _value(data: Any, keyword: str) -> Any:
    try:
        value = data.get(keyword)
    except Exception as error:  # as in text
        raise TagError(f"{keyword} cannot be read") from error
    return None if value in (None, "", b"") or (isinstance(value, str) and not value.strip(" \0")) else value


def _finite(value: Any) -> float | None:
    try:
        found = float(value.strip(" \0") if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
