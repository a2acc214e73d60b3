"""Series in a local folder, recognised in the same way as in a bucket."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from boneseg.errors import DataError
from boneseg.ingest.facts import ObjectFacts, inspect
from boneseg.ingest.patient_table import TABLE_FILE, PatientLine, check_table, read_table
from boneseg.ingest.recognise import assemble
from boneseg.progress import track
from boneseg.storage.catalogue import ObjectRef, Problem, SeriesRow
from boneseg.storage.hashing import sha256_file

_SECRET = b"local"  # nothing of this leaves the machine; in a bucket, each workspace has a secret of its own


def local_series(folder: Path, secret: bytes = _SECRET) -> tuple[tuple[SeriesRow, ...], tuple[Problem, ...]]:
    """Recognise the CT series and labels in a folder.

    Args:
        folder: searched with its subfolders, hidden files left out; or a single file. A ``patients.csv`` in it is the
            table of patients.
        secret: of the keyed hashes, where they leave this machine.

    Returns:
        One row a series, whose objects' keys are absolute paths, and what cannot be used.

    Raises:
        DataError: the folder does not exist, or a file in it cannot be read at all.
    """
    folder = folder.absolute()
    if not folder.exists():
        raise DataError(f"{folder} does not exist; name a folder with CT series, or a NIfTI file")
    root = folder.parent if folder.is_file() else folder
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if _counts(path, folder))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        facts = list(track(pool.map(partial(_inspect, secret), files), "read", total=len(files), unit="files"))
    return assemble(facts, secret, f"{root}/", _table(folder / TABLE_FILE, files, root))


def _table(path: Path, files: list[Path], root: Path) -> list[PatientLine]:
    if not path.is_file():
        return []
    lines = read_table(path.read_bytes(), str(path))
    check_table(lines, [file.relative_to(root).as_posix() for file in files])
    return lines


def _counts(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.is_file() and not hidden and path != folder / TABLE_FILE


def _inspect(secret: bytes, path: Path) -> ObjectFacts:
    try:
        ref = ObjectRef(key=str(path), size=path.stat().st_size, etag="", sha256=sha256_file(path))
        return inspect(path, ref, secret)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
