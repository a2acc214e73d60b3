"""What the segments of a DICOM SEG are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boneseg.dicom import tags
from boneseg.dicom.file import open_dicom
from boneseg.errors import SeriesError


def read_segment_names(path: Path) -> dict[int, tuple[str, str]]:
    """Read how segments are called: by a person in free text, and by the code of what they are.

    Returns:
        Segment number -> label and the meaning of its code with its side; empty where the file does not say.
    """
    try:
        file = open_dicom(path, ["SegmentSequence"])
    except SeriesError:
        return {}
    names = {}
    for item in [] if file is None else tags.items(file.data, "SegmentSequence"):
        try:
            names[int(item.SegmentNumber)] = (str(item.get("SegmentLabel") or ""), _code(item))
        except Exception:  # pydicom passes on whatever a damaged byte makes of its readers
            continue
    return names


def _code(item: Any) -> str:
    kinds = item.get("SegmentedPropertyTypeCodeSequence") or ()
    sides = [side for kind in kinds for side in kind.get("SegmentedPropertyTypeModifierCodeSequence") or ()]
    return " ".join(str(code.get("CodeMeaning") or "") for code in (*kinds, *sides)).strip()
