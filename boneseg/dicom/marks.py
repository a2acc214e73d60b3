"""What tells passes of one series apart: acquisition, phase, kernel, times and numbers of a CT slice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pydicom

from boneseg.dicom.file import open_dicom
from boneseg.errors import SeriesError

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

_COUNTS = ("ImagesInAcquisition", "NumberOfSlices")
_MOST_IMAGES = 100_000
_DATES = {"AcquisitionTime": "AcquisitionDate", "ContentTime": "ContentDate"}
_SECONDS_A_DAY = 86400.0


@dataclass(frozen=True)
class Marks:
    """What a file says of its pass.

    Attributes:
        texts: of each of ``MARKS``, as it stands in the file; empty where it does not say.
        orders: of each of ``ORDERS``; none where it does not say. Times are seconds since the year 1.
        localizer: whether the image is a scout, from which a series is planned.
        images: how many images its acquisition has; none where the file does not say.
    """

    texts: tuple[str, ...]
    orders: tuple[float | None, ...]
    localizer: bool
    images: int | None = None


def read_marks(path: Path) -> Marks:
    """Read what a DICOM file says of its pass; what is malformed counts as not said."""
    wanted = [*MARKS, *ORDERS, *_COUNTS, *_DATES.values(), "AcquisitionDateTime", "StudyDate"]
    try:
        file = open_dicom(path, wanted)
    except SeriesError:
        file = None
    data: Any = pydicom.Dataset() if file is None else file.data
    kinds = _text(data, "ImageType").upper()
    counts = [int(count) for name in _COUNTS if 0 < (count := _number(data, name) or 0) <= _MOST_IMAGES]
    return Marks(
        texts=tuple(_moment_text(data) if name == "AcquisitionTime" else _text(data, name) for name in MARKS),
        orders=tuple(_seconds(data, name) if name in _DATES else _number(data, name) for name in ORDERS),
        localizer="LOCALIZER" in kinds or "SCOUT" in kinds,
        images=max(counts, default=None),
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
        file = open_dicom(path, wanted)
    except SeriesError:
        file = None
    if file is None:
        return Identity(*[""] * len(wanted))
    found = [_text(file.data, keyword) for keyword in wanted]
    return Identity(found[0] or _text(file.meta, "MediaStorageSOPClassUID"), *found[1:])


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
