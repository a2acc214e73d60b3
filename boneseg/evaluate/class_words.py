"""What is said in words and in one small matrix of how well a model tells its classes apart."""

from __future__ import annotations

import numpy as np

from boneseg.evaluate.class_tables import told_confusion
from boneseg.evaluate.records import EvaluationResult
from boneseg.metrics.counts import Counts
from boneseg.scheme import LabelScheme
from boneseg.scheme.roles import COMMON_CLASSES

MOST_SHOWN = 12
"""More classes than this are shown by group in a matrix."""


def bone_sentences(result: EvaluationResult) -> list[str]:
    """Say which bone is found worst, and how much of left was taken for right; nothing for bone as one class."""
    tables = {table.name: table for table in result.tables}
    sentences = []
    if "bones" in tables:
        rows = [row for row in tables["bones"].dicts() if row["bone"] in result.scheme.names]
        known = [(row["dice_percent"], row["bone"]) for row in rows if isinstance(row["dice_percent"], float)]
        if known:
            dice, name = min(known, key=lambda item: float(item[0]))
            sentences.append(f"Of {len(known)} bones {name} has the lowest mean Dice, {dice:.2f} %.")
    if "sides" in tables:
        *pairs, together = tables["sides"].dicts()
        if isinstance(together["left_as_right"], int):
            words = [
                f"{together[key]} voxels ({_percent(together[f'{key}_percent'])}) of left bones were taken for right"
                if key == "left_as_right"
                else f"{together[key]} ({_percent(together[f'{key}_percent'])}) the other way round"
                for key in ("left_as_right", "right_as_left")
            ]
            worst = max(pairs, key=_both_ways)
            most = f", most of them of {worst['pair']}" if len(pairs) > 1 and _both_ways(worst) else ""
            sentences.append(f"{', '.join(words)}{most}.")
    return sentences


def _both_ways(row: dict[str, str | int | float | None]) -> int:
    return sum(value for key in ("left_as_right", "right_as_left") if isinstance(value := row[key], int))


def _percent(value: str | int | float | None) -> str:
    return f"{value:.2f} %" if isinstance(value, float) else "none"


def shown_confusion(result: EvaluationResult) -> tuple[list[str], Counts]:
    """Return names and voxels, reference by prediction, of a matrix that a person can read.

    Of the scheme's classes where the labels told them, by group where there are many; else of the three common ones.
    Voxels of which a label says only that they are of one of several classes are not in it.
    """
    total = told_confusion(result.series, result.scheme)
    if total is None or not total.any():
        return list(COMMON_CLASSES), np.array(result.confusion, dtype=np.int64)
    by_name = parts(result.scheme)
    picked = np.array([[value in values for value in range(result.scheme.size)] for values in by_name.values()])
    folded: Counts = picked.astype(np.int64) @ total @ picked.T.astype(np.int64)
    used = np.flatnonzero(folded.any(axis=0) | folded.any(axis=1))
    return [list(by_name)[place] for place in used], folded[np.ix_(used, used)]


def parts(scheme: LabelScheme) -> dict[str, tuple[int, ...]]:
    """Divide the classes of a scheme into as few parts as a matrix can show; every class is in one.

    Few classes stand for themselves. Of many, those of a group are together, and so are partners; where that is still
    too many, all bones that have no group.
    """
    names = scheme.names
    if scheme.size <= MOST_SHOWN:
        return {name: (value,) for value, name in enumerate(names)}
    named = [item.group if item.group and item.group != "bone" else None for item in scheme.classes]
    alone = sum(group is None for group in named)
    keys = [
        group or (names[value] if alone <= MOST_SHOWN or value not in scheme.bones else "other bones")
        for value, group in enumerate(named)
    ]
    return {key: tuple(value for value, own in enumerate(keys) if own == key) for key in dict.fromkeys(keys)}
