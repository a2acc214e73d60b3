"""Pairs of architectures and timm encoders: tried once in a process of their own, and the answer remembered.

Nothing heavy is imported here, and no process is started where no encoder is timm's or the answer is known.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path

from boneseg.atomic_write import atomic_write_bytes
from boneseg.encoder_compatibility import ARCHITECTURES, PAPER_ENCODERS, TIMM, sentence
from boneseg.identity import stable_hash
from boneseg.settings.schema import RunSettings

log = logging.getLogger(__name__)

Pair = tuple[str, str]
"""Architecture and encoder."""

FOLDER = "encoders"
"""In the work folder."""
LIBRARIES = ("segmentation-models-pytorch", "timm", "torch")
"""Another version of one of them may answer otherwise."""
_PROBE_VERSION = 1
"""Raised where the probe, or a decoder of our own, changes."""
_LONGEST_SECONDS = 300.0
_BUILT = tuple(name for name in ARCHITECTURES if name not in PAPER_ENCODERS)


def refusal_of(settings: RunSettings, folder: Path) -> str | None:
    """Say in one sentence which of the settings' pairs cannot work, and what can; none where nothing speaks against it.

    Args:
        settings: of a run.
        folder: work folder, where answers are kept.
    """
    chosen = [(settings.model.architecture, settings.model.encoder)]
    tried = [*chosen, *product(settings.tune.architectures, settings.tune.encoders)]
    pairs = [pair for pair in dict.fromkeys(tried) if pair[1].startswith(TIMM) and pair[0] in _BUILT]
    for (architecture, encoder), fault in zip(pairs, faults_of(pairs, folder), strict=True):
        if fault:
            others = [(name, encoder) for name in _BUILT]
            answers = zip(others, faults_of(others, folder), strict=True)
            return sentence(architecture, encoder, fault, [name for (name, _), wrong in answers if wrong == ""])
    return None


def faults_of(pairs: Sequence[Pair], folder: Path) -> list[str | None]:
    """Return what is wrong with each pair: empty where nothing is, none where it cannot be told."""
    known = [_remembered(_file(folder, pair)) for pair in pairs]
    missing = [pair for pair, fault in zip(pairs, known, strict=True) if fault is None]
    found = dict(zip(missing, _probe(missing), strict=True)) if missing else {}
    for pair, fault in found.items():
        if fault is not None:
            _remember(_file(folder, pair), pair, fault)
    return [found.get(pair) if fault is None else fault for pair, fault in zip(pairs, known, strict=True)]


def _file(folder: Path, pair: Pair) -> Path:
    return folder / FOLDER / f"{stable_hash([_PROBE_VERSION, *pair, *map(version, LIBRARIES)])}.json"


def _remembered(file: Path) -> str | None:
    try:
        fault = json.loads(file.read_bytes())["fault"]
    except (OSError, ValueError, KeyError, TypeError):  # not known yet, or damaged: found out again
        return None
    return fault if isinstance(fault, str) else None


def _remember(file: Path, pair: Pair, fault: str) -> None:
    answer = {"architecture": pair[0], "encoder": pair[1], "fault": fault}
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        atomic_write_bytes(file, json.dumps(answer, indent=1).encode(), private=True)
    except OSError as error:
        log.debug("%s cannot be written (%s); the pair is tried again the next time", file, error)


def _probe(pairs: Sequence[Pair]) -> list[str | None]:
    log.info("trying whether %s works, once", ", ".join(f"{name} on {encoder}" for name, encoder in pairs[:3]))
    path = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "boneseg.models.probe"],
            input=json.dumps(pairs),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
            timeout=_LONGEST_SECONDS,
            check=True,
        )
        faults = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.debug("architecture and encoder could not be tried before training (%s)", error)
        return [None] * len(pairs)
    return list(faults)
