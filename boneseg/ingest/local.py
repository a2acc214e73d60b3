"""Series in a local folder, recognised in the same way as in a bucket."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boneseg.errors import DataError
from boneseg.ingest.facts import ObjectFacts, inspect
from boneseg.ingest.recognise import assemble
from boneseg.machine import cpus
from boneseg.progress import track
from boneseg.storage.catalogue import ObjectRef, Problem, SeriesRow
from boneseg.storage.hashing import sha256_file

_SECRET = b"local"  # nothing of this leaves the machine; in a bucket, each workspace has a secret of its own


def local_series(folder: Path) -> tuple[tuple[SeriesRow, ...], tuple[Problem, ...]]:
    """Recognise the CT series and labels in a folder.

    Args:
        folder: searched with its subfolders, hidden files left out; or a single file.

    Returns:
        One row a series, whose objects' keys are absolute paths, and what cannot be used.

    Raises:
        DataError: the folder does not exist, or a file in it cannot be read at all.
    """
    folder = folder.absolute()
    if not folder.exists():
        raise DataError(f"{folder} does not exist; name a folder with CT series, or a NIfTI file")
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if _counts(path, folder))
    root = folder.parent if folder.is_file() else folder
    with ThreadPoolExecutor(min(8, cpus())) as pool:
        facts = list(track(pool.map(_inspect, files), "read", total=len(files), unit="files"))
    return assemble(facts, _SECRET, prefix=f"{root}/")


def _counts(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.is_file() and not hidden


def _inspect(path: Path) -> ObjectFacts:
    try:
        ref = ObjectRef(key=str(path), size=path.stat().st_size, etag="", sha256=sha256_file(path))
        return inspect(path, ref, _SECRET)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
