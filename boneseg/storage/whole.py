"""Small files that are there whole or not at all."""

from __future__ import annotations

import uuid
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a name of its own, then rename it: whoever reads it meets the old one or the new one."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
