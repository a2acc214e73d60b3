"""Pipelines on this machine: compiled to IR YAML, or run with every step as a process of its own."""

from __future__ import annotations

import contextlib
import copy
import io
import re
import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

from kfp import compiler
from kfp import local as kfp_local

from boneseg.errors import BonesegError, SettingsError
from boneseg.settings.loading import as_overrides, work_folder
from boneseg.settings.schema import RunSettings
from pipelines.retraining import retraining
from pipelines.sweep import sweep
from pipelines.training import training

PIPELINES: dict[str, Any] = {"training": training, "retraining": retraining, "sweep": sweep}

_OF_KFP = (
    "Looking for component",
    "Loading KFP component",
    "Got executor_input",
    "Wrote executor output",
    "Did not write",
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_EXECUTOR_PREFIX = re.compile(r"^\[KFP Executor [^\]]*\]:\s*")
_OWN_ERROR = re.compile(r"^boneseg\.errors\.\w+: (?P<sentence>.*)$")
_FAILED_STEP = re.compile(r"Inner task failed: (?P<step>[^.]*?)(?: inside .*)?\.?$")
_STEP_STARTS = re.compile(r"Executing task (?P<step>\S+)")


def compile_all(out: Path) -> list[Path]:
    """Write every pipeline as IR YAML into a folder and return the files."""
    return [compile_pipeline(name, out) for name in PIPELINES]


def compile_pipeline(name: str, out: Path) -> Path:
    """Write one pipeline as IR YAML.

    Args:
        name: ``training``, ``retraining`` or ``sweep``.
        out: folder for ``<name>.yaml``.

    Raises:
        SettingsError: there is no such pipeline.
    """
    pipeline = _pipeline(name)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return path


def run_pipeline(name: str, settings: RunSettings) -> str:
    """Run a pipeline on this machine with settings from a file or the command line.

    Args:
        name: ``training``, ``retraining`` or ``sweep``.
        settings: of the run.

    Returns:
        A sentence that says where the artifacts are.
    """
    parameters: dict[str, Any] = {"overrides": as_overrides(settings)}
    if name == "training" and "trials" in settings.tune.model_fields_set:
        # How many trials decides whether there is a sweep at all: a parameter of the pipeline, asked for or none.
        parameters["trials"] = settings.tune.trials
    if name == "retraining":
        parameters["bucket"] = settings.store.bucket
    folder = run_local(name, parameters)
    return f"pipeline finished; artifacts of its steps are in {folder}"


def run_local(name: str, parameters: dict[str, Any]) -> Path:
    """Run a pipeline on this machine, steps one after another in processes of their own.

    Everything the steps say goes to ``log.txt``; their progress is shown.

    Args:
        name: ``training``, ``retraining`` or ``sweep``.
        parameters: of the pipeline; those left out keep their defaults.

    Returns:
        Folder of the artifacts, one subfolder a step.

    Raises:
        SettingsError: there is no such pipeline, or it has no such parameter.
        BonesegError: a step failed; names the step and its reason.
    """
    pipeline = _pipeline(name)
    unknown = set(parameters) - set(pipeline.component_spec.inputs or {})
    if unknown:
        raise SettingsError(f"pipeline {name} has no parameter {', '.join(sorted(unknown))}")
    root = work_folder() / "pipelines"
    root.mkdir(parents=True, exist_ok=True)
    before = set(root.iterdir())
    kfp_local.init(kfp_local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    with (root / f"{name}.log").open("w", encoding="utf-8") as log:
        shown = _Progress(sys.stdout, log)
        with warnings.catch_warnings(), contextlib.redirect_stdout(shown):
            # Image and resources are for the cluster; here this Python runs on this machine.
            for category in (RuntimeWarning, UserWarning):
                warnings.filterwarnings("ignore", category=category, module=r"kfp\.")
            try:
                _without_retries(pipeline)(**parameters)
            except RuntimeError as error:
                raise _failure(error, shown, Path(log.name)) from error
    made = sorted(path for path in root.iterdir() if path.is_dir() and path not in before)
    return made[-1]


class _Progress(io.TextIOBase):
    """Passes on what a person wants to see of a run and keeps all of it in a file."""

    def __init__(self, screen: TextIO, log: TextIO) -> None:
        self.reason = ""
        self._screen = screen
        self._log = log
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._take(_COLOUR.sub("", line).strip())
        return len(text)

    def _take(self, line: str) -> None:
        self._log.write(line + "\n")
        self._log.flush()
        own = _OWN_ERROR.match(line)
        step = _STEP_STARTS.search(line)
        if own:
            self.reason = own["sentence"]
        elif step:
            print(f"step {step['step'].strip(chr(39))}", file=self._screen, flush=True)
        elif _EXECUTOR_PREFIX.match(line):
            said = _EXECUTOR_PREFIX.sub("", line)
            if not said.startswith(_OF_KFP):
                print("   ", said, file=self._screen, flush=True)


def _pipeline(name: str) -> Any:
    if name not in PIPELINES:
        raise SettingsError(f"there is no pipeline {name!r}; there are {', '.join(PIPELINES)}")
    return PIPELINES[name]


def _without_retries(pipeline: Any) -> Any:
    """Return a copy that fails at once: retries are for lost nodes, and here a person waits for the reason."""
    mine = copy.deepcopy(pipeline)
    spec = mine.component_spec.implementation.graph
    for graph in (spec.root, *spec.components.values()):
        for task in graph.dag.tasks.values():
            task.ClearField("retry_policy")
    return mine


def _failure(error: RuntimeError, shown: _Progress, log: Path) -> BonesegError:
    found = _FAILED_STEP.search(_COLOUR.sub("", str(error)))
    step = found["step"].strip("'") if found else "of the pipeline"
    return BonesegError(f"step {step} failed: {shown.reason or 'it stopped without a reason of its own'} (see {log})")
