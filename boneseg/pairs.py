"""Which architecture works with which encoder, told from the names alone: no network is built."""

from __future__ import annotations


def refusal(architecture: str, encoder: str) -> str | None:
    """Say why a pair cannot work and which can; none where nothing speaks against it."""
    return None
