"""Content hashes: the names of series, shards, datasets and models."""

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHORT = 16
"""Hex digits of a content name; 64 bits keep a collision among a million series below one in ten million."""


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_array(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's type, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def combine(parts: Iterable[str]) -> str:
    """Return a short name for a sequence of hashes or texts; order matters."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:SHORT]


def pseudonym(secret: bytes, kind: str, identifier: str) -> str:
    """Return the keyed hash (HMAC-SHA-256) that stands for an identifier outside the bucket's raw data.

    Without the secret, a list of all possible patient numbers does not lead back to the patient.
    """
    return hmac.new(secret, f"{kind}\0{identifier}".encode(), hashlib.sha256).hexdigest()[:SHORT]
