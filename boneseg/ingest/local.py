"""Series in a local folder, recognised in the same way as in a bucket."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from boneseg.errors import DataError
from boneseg.ingest.detached import incomplete, voxels_key
from boneseg.ingest.facts import inspect
from boneseg.ingest.object_facts import Kind, ObjectFacts
from boneseg.ingest.patient_table import TABLE_FILE, PatientLine, check_table, read_table
from boneseg.ingest.recognise import NO_PNG, assemble
from boneseg.machine import cpus
from boneseg.progress import track
from boneseg.scheme import BONE_SCHEME, LabelScheme
from boneseg.settings.schema import PngSettings
from boneseg.storage.catalogue import ObjectRef, Problem, SeriesRow
from boneseg.storage.hashing import sha256_file

_SECRET = b"local"  # nothing of this leaves the machine; in a bucket, each workspace has a secret of its own


def local_series(
    folder: Path, secret: bytes = _SECRET, scheme: LabelScheme = BONE_SCHEME, png: PngSettings = NO_PNG
) -> tuple[tuple[SeriesRow, ...], tuple[Problem, ...]]:
    """Recognise the CT series and labels in a folder.

    Args:
        folder: searched with its subfolders, hidden files left out; or a single file. A ``patients.csv`` in it is the
            table of patients.
        secret: of the keyed hashes, where they leave this machine.
        scheme: says by which words beside those of anatomy files call bones.
        png: what pictures of slices do not say of themselves.

    Returns:
        One row a series, whose objects' keys are absolute paths, and what cannot be used.

    Raises:
        DataError: the folder does not exist, or its table of patients cannot be read.
    """
    facts, prefix = local_facts(folder, secret)
    return assemble(
        facts, secret, prefix, _table(folder.absolute() / TABLE_FILE, facts, prefix), scheme=scheme, png=png
    )


def local_images(folder: Path) -> tuple[tuple[SeriesRow, ...], tuple[Problem, ...], list[ObjectFacts]]:
    """Recognise the CT series in a folder, whatever labels lie beside them; copies too: each may be a patient's.

    Returns:
        As ``local_series``, without anything on labels; and what every file is.

    Raises:
        DataError: the folder does not exist.
    """
    facts, prefix = local_facts(folder)
    images = [item for item in facts if item.kind != Kind.LABEL]
    return *assemble(images, _SECRET, prefix, keep_copies=True), facts


def local_facts(folder: Path, secret: bytes = _SECRET) -> tuple[list[ObjectFacts], str]:
    """Find out what each file of a folder is.

    Returns:
        The facts, keys being absolute paths; and the start of all keys, up to the folder.

    Raises:
        DataError: the folder does not exist.
    """
    folder = folder.absolute()
    if not folder.exists():
        raise DataError(f"{folder} does not exist; name a folder with CT series, or a volume file")
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if _counts(path, folder))
    with ThreadPoolExecutor(min(8, cpus())) as pool:
        facts = list(track(pool.map(partial(_inspect, secret), files), "read", total=len(files), unit="files"))
        if folder.is_file() and (beside := voxels_key(facts[0])) and Path(beside).is_file():
            facts.append(_inspect(secret, Path(beside)))
        by_key = {item.ref.key: item for item in facts}
        pairs = incomplete(by_key)
        by_key |= {item.ref.key: item for item in pool.map(partial(_inspect_pair, secret), pairs)}
        facts = list(by_key.values())
    root = folder.parent if folder.is_file() else folder
    return facts, f"{root.as_posix().rstrip('/')}/"


def _table(path: Path, facts: list[ObjectFacts], prefix: str) -> list[PatientLine]:
    if not path.is_file():
        return []
    lines = read_table(path.read_bytes(), str(path))
    check_table(lines, [item.ref.key.removeprefix(prefix) for item in facts])
    return lines


def _counts(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.is_file() and not hidden and path != folder / TABLE_FILE


def _inspect_pair(secret: bytes, pair: tuple[ObjectFacts, ObjectRef]) -> ObjectFacts:
    header, voxels = pair
    return inspect(Path(header.ref.key), header.ref, secret, (Path(voxels.key), voxels))


def _inspect(secret: bytes, path: Path) -> ObjectFacts:
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    unread = ObjectFacts(ref=ObjectRef(key=name, size=0, etag="", sha256=""), kind=Kind.BROKEN)
    if name != str(path):
        return unread.model_copy(update={"reason": "the name of this file or of its folder is no UTF-8; rename it"})
    try:
        ref = ObjectRef(key=name, size=path.stat().st_size, etag="", sha256=sha256_file(path))
        return inspect(path, ref, secret)
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); check its permissions and its disk"
        return unread.model_copy(update={"reason": reason})
