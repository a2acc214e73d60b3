"""Stand-ins for names of local folders: their secret and their table stay in the work folder of this machine."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from boneseg.atomic_write import atomic_write_bytes
from boneseg.errors import RecordError
from boneseg.storage.private import KEY_FILE, KEY_VARIABLE, LEAST_KEY_BYTES, NAMES_FILE
from boneseg.storage.pseudonyms import NameTable

FOLDER = "private"
"""In the work folder."""


def local_secret(home: Path) -> bytes:
    """Return the secret of keyed hashes for data on this machine: ``BONESEG_PATIENT_KEY``, else one made here.

    Raises:
        RecordError: the one in the work folder was cut short.
    """
    given = os.environ.get(KEY_VARIABLE)
    if given:
        return given.encode()
    path = home / FOLDER / KEY_FILE
    try:
        kept = path.read_bytes()
    except FileNotFoundError:
        kept = secrets.token_hex(32).encode()
        _write(path, kept)
    if len(kept) < LEAST_KEY_BYTES:
        raise RecordError(f"{path} was cut short: delete it, and stand-ins of local data are made anew")
    return kept


def load_local_names(home: Path) -> dict[str, str]:
    """Read the table of names of this machine; none that can be read is an empty one."""
    path = home / FOLDER / NAMES_FILE
    try:
        return NameTable.read(path.read_bytes(), str(path), "it is made anew").names
    except (OSError, RecordError):
        return {}


def save_local_names(home: Path, given: Mapping[str, str]) -> None:
    """Add to the table of names of this machine."""
    names = load_local_names(home) | dict(given)
    _write(home / FOLDER / NAMES_FILE, NameTable(names=dict(sorted(names.items()))).to_json())


def _write(path: Path, data: bytes) -> None:
    """Write a file that nobody else on this machine may read; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    atomic_write_bytes(path, data, private=True, durable=True)
