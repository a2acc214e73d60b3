"""Folders and files that only the user who made them may read, whatever the umask."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

FOLDER_MODE, FILE_MODE = 0o700, 0o600
PARTS = ("cache", "models", "ray", "runs", "store")
"""Folders of a work folder that hold data of patients or what was learned from it."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OURS = (*PARTS, "weights", "encoders", "steps", "phantoms", "pipelines", "report.html", "latest-*", "mlflow*")
_SCRATCH = ("registry-*", "evaluation-*", "model-*", "object-*")


def make_private(folder: Path) -> Path:
    """Make a folder that its owner only may enter, and parents that are missing; shut an own one open to others.

    Raises:
        OSError: the folder cannot be made.
    """
    if not folder.parent.exists():
        make_private(folder.parent)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    _shut(folder)
    return folder


def shut_tree(top: Path) -> None:
    """Take the access to a folder and to all in it from everybody but its owner; what is not ours stays as it is."""
    _shut(top)
    for parent, _, names in os.walk(top):
        _shut(Path(parent))
        for name in names:
            _shut(Path(parent) / name)


def protect_work_folder(folder: Path) -> None:
    """Make the work folder, and shut it; of one that holds other things too only what is ours in it.

    Raises:
        OSError: the folder cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    if not _open_to_others(folder):
        return
    entries = list(folder.iterdir())
    ours = [entry for entry in entries if any(fnmatch(entry.name, name) for name in (*_OURS, *_SCRATCH))]
    if len(ours) == len(entries):
        shut_tree(folder)
        return
    for entry in ours:
        if _open_to_others(entry):
            shut_tree(entry)
    for name in PARTS:
        make_private(folder / name)


def _open_to_others(path: Path) -> bool:
    found = path.lstat()
    return found.st_uid == os.geteuid() and not stat.S_ISLNK(found.st_mode) and bool(found.st_mode & _OTHERS)


def _shut(path: Path) -> None:
    with suppress(FileNotFoundError):  # another process removed it
        if _open_to_others(path):
            path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~_OTHERS)
