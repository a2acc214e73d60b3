"""JSON records in the bucket: sealed by a hash when written, readable by every later version.

A field that is new in a version has a default, so that records of earlier versions stay readable; a field that this
version does not know is passed over. Settings inside a record are stricter: one that is unknown here would be computed
without.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from boneseg.errors import RecordError

SEAL, SEAL_DIGITS = "seal", 32
"""Name of the hash over all other fields; records of the first format have none and are read as they are."""
FORMAT, SEALED_FORMAT = "format", 2
"""Name and value of the field that says that a record must have its seal."""


class Record(BaseModel):
    """Base of what is written to the bucket as JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_json(self, compact: bool = False) -> bytes:
        """Return the sealed JSON that ``read`` reads back; ``compact`` leaves out defaults and white space."""
        values = {FORMAT: SEALED_FORMAT, **json.loads(self.model_dump_json(exclude_defaults=compact))}
        indent = None if compact else 1
        return json.dumps({**values, SEAL: seal_of(values)}, indent=indent, ensure_ascii=False).encode()

    @classmethod
    def read(cls, data: bytes, place: str, remedy: str, must_be_sealed: bool = False) -> Self:
        """Read a record back.

        Args:
            data: as ``to_json`` made it, here or in an earlier version.
            place: where it comes from, for the message.
            remedy: what a person does about a damaged one, such as ``make it again with 'boneseg pull'``.
            must_be_sealed: no version without seals wrote records under this name.

        Raises:
            RecordError: it is cut short, was changed after it was written, or holds what this version does not know.
        """
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{place} is damaged or cut short; {remedy}") from error
        if not isinstance(values, dict):
            raise RecordError(f"{place} is damaged: it holds no record; {remedy}")
        seal = values.pop(SEAL, None)
        if (seal is not None or FORMAT in values or must_be_sealed) and seal != seal_of(values):
            raise RecordError(f"{place} was changed after it was written; {remedy}")
        values.pop(FORMAT, None)
        try:
            return cls.model_validate_json(json.dumps(values))
        except ValidationError as error:
            raise RecordError(f"{place} {_why(error)}; {remedy}") from error


def seal_of(values: dict[str, Any]) -> str:
    """Return the hash over a record's fields; their order and white space play no part."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:SEAL_DIGITS]


def _why(error: ValidationError) -> str:
    first = error.errors(include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "the record"
    if first["type"] == "extra_forbidden":
        return f"holds {field}, which this version does not know: a later version wrote it, so update boneseg"
    return f"is damaged or of an unknown version ({field}: {first['msg'].lower()})"
