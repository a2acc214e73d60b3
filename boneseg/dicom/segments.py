"""What the segments of a DICOM SEG are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom


def read_segment_names(path: Path) -> dict[int, tuple[str, str]]:
    """Read how segments are called: by a person in free text, and by the code of what they are.

    Returns:
        Segment number -> label and the meaning of its code with its side; empty where the file does not say.
    """
    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=["SegmentSequence"])
        items = list(data.get("SegmentSequence") or ())
    except Exception:  # pydicom passes on whatever a damaged byte makes of its readers
        return {}
    names = {}
    for item in items:
        try:
            names[int(item.SegmentNumber)] = (str(item.get("SegmentLabel") or ""), _code(item))
        except Exception:  # as above: this segment has no name
            continue
    return names


def _code(item: Any) -> str:
    kinds = item.get("SegmentedPropertyTypeCodeSequence") or ()
    sides = [side for kind in kinds for side in kind.get("SegmentedPropertyTypeModifierCodeSequence") or ()]
    return " ".join(str(code.get("CodeMeaning") or "") for code in (*kinds, *sides)).strip()
