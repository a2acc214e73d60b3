"""What tells passes of one series apart: acquisition, phase, kernel, times and numbers of a CT slice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pydicom

MARKS = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "IrradiationEventUID",
    "AcquisitionTime",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "EchoNumbers",
    "KVP",
    "ConvolutionKernel",
    "ImageType",
    "ScanOptions",
    "FilterType",
    "SliceThickness",
    "ContrastBolusAgent",
    "FrameOfReferenceUID",
    "StackID",
    "SeriesNumber",
    "SeriesTime",
    "SeriesDescription",
    "ProtocolName",
    "ImageComments",
)
"""Tags that say which pass a slice is of, what says it best first."""

ORDERS = ("AcquisitionNumber", "AcquisitionTime", "ContentTime", "InstanceNumber")
"""What puts the slices of a series in an order."""

TIMES = (ORDERS.index("AcquisitionTime"), ORDERS.index("ContentTime"))
"""Which of ``ORDERS`` are times."""

_DATES = {"AcquisitionTime": "AcquisitionDate", "ContentTime": "ContentDate"}
_SECONDS_A_DAY = 86400.0


@dataclass(frozen=True)
class Marks:
    """What a file says of its pass.

    Attributes:
        texts: of each of ``MARKS``, as it stands in the file; empty where it does not say.
        orders: of each of ``ORDERS``; none where it does not say. Times are seconds since the year 1.
        localizer: whether the image is a scout, from which a series is planned.
    """

    texts: tuple[str, ...]
    orders: tuple[float | None, ...]
    localizer: bool


def read_marks(path: Path) -> Marks:
    """Read what a DICOM file says of its pass; what is malformed counts as not said."""
    wanted = [*MARKS, *ORDERS, *_DATES.values(), "AcquisitionDateTime", "StudyDate"]
    data: Any
    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(wanted))
    except Exception:  # pydicom passes on whatever a damaged byte makes of its readers
        data = pydicom.Dataset()
    kinds = _text(data, "ImageType").upper()
    return Marks(
        texts=tuple(_moment_text(data) if name == "AcquisitionTime" else _text(data, name) for name in MARKS),
        orders=tuple(_seconds(data, name) if name in _DATES else _number(data, name) for name in ORDERS),
        localizer="LOCALIZER" in kinds or "SCOUT" in kinds,
    )


@dataclass(frozen=True)
class Identity:
    """What a file says that it is, as far as it can be read; empty where it cannot."""

    sop_class: str
    patient: str
    study: str
    series: str
    image: str


def read_identity(path: Path) -> Identity:
    """Read what a damaged DICOM file still says of itself."""
    wanted = ["SOPClassUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(wanted))
        found = [_text(data, keyword) for keyword in wanted]
        found[0] = found[0] or str(data.file_meta.get("MediaStorageSOPClassUID") or "")
    except Exception:  # as above
        found = [""] * len(wanted)
    return Identity(*found)


def _moment_text(data: Any) -> str:
    seconds = _seconds(data, "AcquisitionTime")
    return "" if seconds is None else f"{seconds:.3f}"


def _seconds(data: Any, keyword: str) -> float | None:
    """Return a moment in seconds, with the day where the file tells it."""
    whole = _text(data, "AcquisitionDateTime") if keyword == "AcquisitionTime" else ""
    if whole[8:]:
        day, time = whole[:8], whole[8:]
    else:
        day, time = _text(data, _DATES[keyword]) or _text(data, "StudyDate"), _text(data, keyword)
    digits = time.replace(":", "").split("+")[0].split("-")[0].strip()
    try:
        hours, minutes, rest = int(digits[:2]), int(digits[2:4] or 0), float(digits[4:] or 0)
    except ValueError:
        return None
    seconds = 3600.0 * hours + 60 * minutes + rest
    try:
        days = datetime.strptime(day.replace(".", "").replace("-", "")[:8], "%Y%m%d").toordinal()
    except ValueError:
        days = 0
    return days * _SECONDS_A_DAY + seconds if math.isfinite(seconds) else None


def _number(data: Any, keyword: str) -> float | None:
    try:
        number = float(_text(data, keyword))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _text(data: Any, keyword: str) -> str:
    try:
        value = data.get(keyword)
    except Exception:  # an element is parsed when it is asked for
        return ""
    if value is None:
        return ""
    several = not isinstance(value, str | bytes) and hasattr(value, "__iter__")
    return "\\".join(str(part) for part in value) if several else str(value).strip()
