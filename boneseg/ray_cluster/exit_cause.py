"""What a process died of: Ray only knows that it is gone."""

from __future__ import annotations

import faulthandler
import signal
from pathlib import Path
from typing import IO, Any

from boneseg.identity import stable_hash
from boneseg.machine import death_by

FAULTS = "faults"
"""Folder of notes, below the work folder."""
_SIGNALS = {
    "Segmentation fault": signal.SIGSEGV,
    "Aborted": signal.SIGABRT,
    "Bus error": signal.SIGBUS,
    "Illegal instruction": signal.SIGILL,
    "Floating": signal.SIGFPE,
}
"""How Python's fault handler calls them."""
_notes: list[IO[str]] = []
"""The note of this process, which must stay open."""


def note_death(folder: Path, choice: dict[str, Any]) -> None:
    """Have this process write down by which signal it dies, should it die while it works on a choice."""
    folder.mkdir(parents=True, exist_ok=True)
    note = _path(folder, choice).open("w")
    faulthandler.enable(note)
    for earlier in _notes:
        earlier.close()
    _notes[:] = [note]


def cause_of_death(folder: Path, choice: dict[str, Any]) -> str:
    """Return what the process that worked on a choice died of, such as ``died by signal SIGSEGV (11)``."""
    number = noted_signal(folder, choice)
    if number is not None:
        return death_by(number)
    return f"{death_by(signal.SIGKILL)} or was lost with its machine; look for want of memory"


def noted_signal(folder: Path, choice: dict[str, Any]) -> int | None:
    """Return the signal by which the process that worked on a choice died; none where it could not note any."""
    path = _path(folder, choice)
    text = path.read_text(errors="replace") if path.is_file() else ""
    return next((number for words, number in _SIGNALS.items() if words in text), None)


def _path(folder: Path, choice: dict[str, Any]) -> Path:
    return folder / f"{stable_hash(choice)}.txt"
