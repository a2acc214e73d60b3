"""Whether this machine's fast path computes a network's training step right, found out before the training.

A kernel may crash or give a wrong gradient for one network on one kind of processor only. One step of the very network
and batch in a process of its own tells; the next slower way stands in where it does not go well.
"""

from __future__ import annotations

import fcntl
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from boneseg.atomic_write import atomic_write_bytes
from boneseg.errors import ModelError, RecordError
from boneseg.identity import stable_hash
from boneseg.machine import cpu_features, cpu_name, death_by
from boneseg.models.precision import Precision
from boneseg.storage.records import Record
from boneseg.train.step_check_worker import SOUND, Step

log = logging.getLogger(__name__)

VARIABLE = "BONESEG_STEP_CHECK"
"""Set to 0 to train without this check."""
LONGEST_SECONDS = 600.0


class StepVerdict(Record):
    """What became of a step on this kind of processor."""

    precision: str
    fault: str
    """Empty where it went well."""


@dataclass(frozen=True)
class Chosen:
    """How a training computes, and why not faster."""

    precision: Precision
    reason: str = ""

    @property
    def words(self) -> str:
        """For the model's card: ``cpu, bf16, channels last``, and the reason."""
        return f"{self.precision.device.type}, {self.precision.words}" + (f" ({self.reason})" if self.reason else "")


def fastest_correct(step: Step, network: list[str], folder: Path, slower: int = 0) -> Chosen:
    """Return the fastest way in which the step goes well on this machine.

    Only bf16 on a CPU is tried: fp32 in plain memory order is what it is compared with.

    Args:
        step: the network, the batch, and the fastest way to compute.
        network: what names the network, for the verdict that is kept.
        folder: where verdicts are kept, by processor, torch version, network and batch.
        slower: ways to pass over, because a training that took them died.

    Raises:
        ModelError: the step kills its process in fp32, too.
    """
    chosen = Chosen(step.precision)
    for _ in range(slower):
        way = chosen.precision.slower()
        if way is not None:
            chosen = Chosen(way, f"a training in {chosen.precision.words} died")
    if step.precision.device.type != "cpu" or os.environ.get(VARIABLE, "1") in ("0", "off", "no"):
        return chosen
    while chosen.precision.bf16:
        fault = _verdict(replace(step, precision=chosen.precision), network, folder)
        if not fault:
            return chosen
        way = chosen.precision.slower()
        assert way is not None
        log.warning(
            "a training step in %s does not go well on this CPU (%s); computing in %s",
            *(chosen.precision.words, fault, way.words),
        )
        chosen = Chosen(way, f"in {chosen.precision.words} {fault}")
    if chosen.reason and (fault := _verdict(replace(step, precision=chosen.precision), network, folder)):
        raise ModelError(
            f"a training step of this network does not go well on this CPU in fp32 either ({fault}); train it on "
            "another machine, or another network"
        )
    return chosen


def _verdict(step: Step, network: list[str], folder: Path) -> str:
    """Return what is wrong with a step, from what is known of it or by trying; empty where nothing is."""
    environment = {name: os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")}
    processor = [cpu_name(), cpu_features(), torch.__version__, environment]
    name = stable_hash([*processor, network, step.batch, step.loss, step.precision.words])
    file = folder / f"{name}.json"
    with _locked(folder / f"{name}.lock"):
        if file.is_file():
            try:
                return StepVerdict.read(file.read_bytes(), str(file), "the step is tried again").fault
            except RecordError as error:
                log.warning("%s", error)
        fault = try_step(step)
        if fault is None:
            return ""
        atomic_write_bytes(file, StepVerdict(precision=step.precision.words, fault=fault).to_json())
        return fault


def try_step(step: Step) -> str | None:
    """Take a step in a process of its own.

    Returns:
        What is wrong with it, empty where nothing is; none where that cannot be told, as for want of memory.
    """
    path = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "boneseg.train.step_check_worker"],
            input=pickle.dumps(step),
            capture_output=True,
            env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
            timeout=LONGEST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        log.warning("one training step took more than %.0f s to try; training without this check", LONGEST_SECONDS)
        return None
    if done.returncode == -signal.SIGKILL:
        log.warning(
            "trying one training step was ended from outside, perhaps for want of memory; training all the same"
        )
        return None
    if done.returncode < 0:
        return death_by(-done.returncode)
    said = done.stdout.decode(errors="replace").strip().rpartition("\n")[2]
    if done.returncode != 0 or not said:
        log.debug("one training step could not be tried: %s", done.stderr.decode(errors="replace"))
        return None  # what Python raises there, the training itself raises better
    return "" if said == SOUND else said


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let only one process at a time try the same step; the others find its verdict."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
