"""Who is who: which series are of one patient, as far as numbers, paths, the table of patients and pixels tell."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from boneseg.ingest.object_facts import ObjectFacts
from boneseg.ingest.patient_table import PatientLine, line_for
from boneseg.storage.catalogue import Problem, SeriesRow, ToldBy
from boneseg.storage.hashing import combine, pseudonym

MOST_IN_A_FOLDER = 6
"""A folder with more series than this is a collection, not a patient."""
FILLERS = (
    *("0", "00", "000", "0000", "00000", "000000", "00000000", "1", "-", "--", "?", ".", "X", "XX", "XXX", "XXXX"),
    *("ANON", "ANONYM", "ANONYMIZED", "ANONYMISED", "ANONYMOUS", "ANONYMOUS PATIENT", "ANON PATIENT", "DEIDENTIFIED"),
    *("DE-IDENTIFIED", "DEFAULT", "DUMMY", "EMPTY", "ID", "MISSING", "N/A", "NA", "NAN", "NO ID", "NOID", "NOBODY"),
    *("NONE", "NULL", "NOT AVAILABLE", "PATIENT", "PATIENTID", "PATIENT ID", "REMOVED", "TEST", "UNDEFINED"),
    *("UNKNOWN", "UNNAMED", "REDACTED", "CONFIDENTIAL", "PATIENT_ID", "ANON^YMOUS", "ANONYMOUS^", "^", "^^", "XXXXX"),
    *("XXXXXX", "XXXXXXX", "XXXXXXXX", "ANONYMOUS^PATIENT", "ANONYMIZED PATIENT", "ANONYMISED PATIENT", "ANONYMOUS1"),
)
"""What anonymisers and scanners write where there is no patient's number; also in lower and title case."""

_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
_SUBJECT_FILE = re.compile(r"(sub-[A-Za-z0-9]+)[_.]")
_COLLECTION = re.compile(
    r"""((images?|labels?|masks?|segmentations?|volumes?|data|dataset|datasets|nifti|niftis|nii|nrrds?|mha|mhd|
    metaimages?|ct|cts|mr|pet|dicom|raw|rawdata|derivatives|sourcedata|train|training|test|testing|val|valid|validation|all|site|cent(?:er|re)|
    hospital|    clinic|batch|fold|part|set|split|task|vendor|scanner|group|cohort|study|source)
    ([Tt][rs]|[ _-]?[A-Za-z]|[ _-]?\d{1,3})?
    |(scans?|cases?|patients?|subjects?|series|thorax|chest|abdomen|pelvis|head|neck|spine|hip|knee|leg|foot|shoulder|arm|
    wrist|hand|bones?|body|wholebody|male|female|left|right|adults?|children|arterial|venous|native|contrast|normal|
    healthy|fractured?))""",
    re.VERBOSE | re.IGNORECASE,
)
"""Names of folders that hold many patients. Some are so with a number too, as ``site1``; ``case1`` is one patient."""
_WITHIN = re.compile(
    r"""ses-.*|session.*|visit.*|images?([Tt][rs])?|labels?([Tt][rs])?|masks?|segmentations?|raw|rawdata|sourcedata|
    derivatives|train|training|test|testing|val|valid|validation|nifti|nii|nrrd|mha|mhd|metaimage|dicom|ct|scans?|volumes?|
    pre|post|baseline|
    follow[ _-]?up.*|day[ _-]?\d+|\d{8}""",
    re.VERBOSE | re.IGNORECASE,
)
"""Names of folders that divide the series of a data set, not its subjects."""
_PIPELINES = "derivatives"
"""In it lies a folder a way of processing."""


def settle_patients(
    rows: Sequence[SeriesRow], facts: Sequence[ObjectFacts], secret: bytes, lines: Sequence[PatientLine]
) -> list[SeriesRow]:
    """Say of each series who its patient is, and under which other keys the same pictures were found.

    A PatientID decides; without one the path does (``told_by_path``). The table of patients stands above both. The
    study stays what it was, so that a patient who is told in another way now keeps the split of an earlier run.

    Args:
        rows: with the patient that the files give.
        facts: of all objects.
        secret: of the keyed hashes.
        lines: of the table of patients.
    """
    nameless = [row.source for row in rows if row.patient_by != ToldBy.PATIENT_ID]
    by_path = told_by_path(nameless)
    settled = []
    for row in rows:
        told = by_path.get(row.source)
        if told is not None:
            rule, place = told
            patient = pseudonym(secret, "patient folder", place)
            row = row.model_copy(update={"patient": patient, "patient_by": rule})  # noqa: PLW2901
        settled.append(row)
    return _linked(with_table(settled, [row.source for row in settled], lines, secret), facts)


def told_by_path(paths: Sequence[str]) -> dict[str, tuple[ToldBy, str]]:
    """Tell patients by where their series lie; a path that tells nothing is left out.

    Two rules. BIDS: a folder ``sub-XX``, or a file whose name starts with ``sub-XX_``, is a subject of the data set
    around it. A patient's folder: of the folders side by side at the top (those named as collections, such as
    ``imagesTr`` or ``site1``, are looked into), one with two to six series is a patient; where series lie in one
    folder only, or a folder holds more, it is a collection, and its files tell nothing.

    Returns:
        Path -> the rule, and the path of the subject's or patient's folder.
    """
    told = {path: (ToldBy.BIDS, subject) for path in paths if (subject := _subject(path)) is not None}
    rest = [path for path in paths if path not in told]
    folders: dict[str, list[str]] = defaultdict(list)
    root = _common([PurePosixPath(path).parent.parts for path in rest])
    for path in rest:
        folder = _patient_folder(path, root)
        if folder is not None:
            folders[folder].append(path)
    if len(folders) > 1:
        for folder, members in folders.items():
            if 1 < len(members) <= MOST_IN_A_FOLDER:
                told |= dict.fromkeys(members, (ToldBy.FOLDER, folder))
    return told


def with_table(
    rows: Sequence[SeriesRow], paths: Sequence[str], lines: Sequence[PatientLine], secret: bytes
) -> list[SeriesRow]:
    """Put in place what the table of patients says.

    Args:
        rows: series.
        paths: of each, below the raw prefix.
        lines: of the table.
        secret: of the keyed hashes.
    """
    if not lines:
        return list(rows)
    made = []
    for row, path in zip(rows, paths, strict=True):
        line = line_for(path, lines)
        changes: dict[str, object] = {}
        if line is not None and line.patient:
            changes |= {"patient": pseudonym(secret, "patient", line.patient), "patient_by": ToldBy.TABLE}
        if line is not None and line.split is not None:
            changes["asked"] = line.split
        made.append(row.model_copy(update=changes) if changes else row)
    return _studies_apart(made, secret)


def filler_notes(rows: Sequence[SeriesRow], secret: bytes, table: str) -> list[Problem]:
    """Name PatientIDs that are nobody's: all their series count as one patient.

    Args:
        rows: series.
        secret: of the keyed hashes.
        table: where the table of patients belongs.
    """
    words = (word for filler in FILLERS for word in (filler, filler.lower(), filler.title(), filler.capitalize()))
    known = {pseudonym(secret, "patient", word): word for word in words}
    notes = []
    for key, word in known.items():
        members = [row for row in rows if row.patient == key and row.patient_by == ToldBy.PATIENT_ID]
        if len(members) > 1:
            reason = (
                f"{len(members)} series have the PatientID {word}, which is nobody's number; to be safe they count as "
                f"one patient. Say who is who in {table} (columns series, patient)"
            )
            notes.append(Problem(source="patients", reason=reason, fatal=False))
    return notes


def _subject(path: str) -> str | None:
    """Return a subject's name with the data set that it is of: one name in its sessions and parts is one subject."""
    parts = PurePosixPath(path).parts
    for index, part in enumerate(parts):
        if _SUBJECT.fullmatch(part):
            return "/".join([*_data_set(parts[:index]), part])
    found = _SUBJECT_FILE.match(parts[-1]) if parts else None
    return "/".join([*_data_set(parts[:-1]), found[1]]) if found else None


def _data_set(folders: Sequence[str]) -> list[str]:
    kept = []
    for before, folder in zip(("", *folders), folders, strict=False):
        if not _WITHIN.fullmatch(folder) and before.lower() != _PIPELINES:
            kept.append(folder)
    return kept


def subject_notes(rows: Sequence[SeriesRow], table: str) -> list[Problem]:
    """Name BIDS subjects that count as several patients, because they lie in several data sets.

    Args:
        rows: series, with their own paths.
        table: where the table of patients belongs.
    """
    patients: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.patient_by == ToldBy.BIDS and (subject := _subject(row.source)) is not None:
            patients[PurePosixPath(subject).name].add(row.patient)
    twice = sorted(name for name, keys in patients.items() if len(keys) > 1)
    if not twice:
        return []
    shown = ", ".join(twice[:5]) + (f" and {len(twice) - 5} more" if len(twice) > 5 else "")
    reason = (
        f"{shown} lie in several folders and count as different people; if they are not, say who is who in {table} "
        "(columns series, patient)"
    )
    return [Problem(source="patients", reason=reason, fatal=False)]


def _patient_folder(path: str, root: int) -> str | None:
    """Return the first folder below the common one that is not named as a collection."""
    parts = PurePosixPath(path).parent.parts
    for index in range(root, len(parts)):
        if not _COLLECTION.fullmatch(parts[index]):
            return "/".join(parts[: index + 1])
    return None


def _common(folders: Sequence[tuple[str, ...]]) -> int:
    """Return how many folders at the start all paths have in common."""
    count = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        count += 1
    return count


def _studies_apart(rows: list[SeriesRow], secret: bytes) -> list[SeriesRow]:
    """Let the table stand above a study that several of its patients share: an anonymiser may give all the same."""
    patients: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.patient_by == ToldBy.TABLE:
            patients[row.study].add(row.patient)
    return [
        row.model_copy(update={"study": pseudonym(secret, "study", f"{row.patient} {row.study}")})
        if row.patient_by == ToldBy.TABLE and len(patients[row.study]) > 1
        else row
        for row in rows
    ]


def _linked(rows: Sequence[SeriesRow], facts: Iterable[ObjectFacts]) -> list[SeriesRow]:
    """Find the same pictures under several keys: whole copies, other geometries, some slices of a series."""
    # Of a detached header the voxels tell: the same header may stand beside those of many patients.
    prints = {(item.data or item.ref).sha256: item.prints for item in facts if item.prints}
    own = [_prints(row, prints) for row in rows]
    holders: dict[str, list[int]] = defaultdict(list)
    for index, found in enumerate(own):
        for name in set(found):
            holders[name].append(index)
    linked = []
    for row, found in zip(rows, own, strict=True):
        others = {index for name in found for index in holders[name]}
        keys = {key for index in others for key in (rows[index].patient, rows[index].study)} - {row.patient, row.study}
        pixels = combine(sorted(found)) if found else ""
        linked.append(row.model_copy(update={"pixels": pixels, "links": tuple(sorted(keys))}))
    return linked


def _prints(row: SeriesRow, prints: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [name for item in row.objects for name in prints.get(item.sha256, ()) if name]
