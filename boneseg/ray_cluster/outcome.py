"""How a job or a trial ended, and the names under which it reports; for those who ask, without loading Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

METRIC, EPOCH, BONE_DICE, ERROR = "best_mean_iou", "epoch", "bone_dice", "error"
JOB, JOB_STATE = "job", "state"
"""A job says under the second name, in words, what it has done."""
CHOICE = "choice"
"""Under which a trial that is tried once more finds what it had chosen."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: what it chose, what it reported last, and why it failed if it did."""

    choice: dict[str, Any]
    metrics: dict[str, Any]
    error: str | None
    died: bool = False
    """Whether its process died, rather than raised."""


Say = Callable[[dict[str, Any]], None]
"""Takes what a job has to report; the last value under each name is kept."""
Job = Callable[[str, Say, int], None]
"""Does the work that a name stands for, passing over as many ways to compute as the last argument says. Crosses process
borders."""
