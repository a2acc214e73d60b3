"""What a label and a series say of themselves that keeps the one from being the other's, though they fit."""

from __future__ import annotations

from collections.abc import Callable

from boneseg.ingest.object_facts import ObjectFacts
from boneseg.storage.catalogue import FileKind

Refuse = Callable[[ObjectFacts, ObjectFacts, str], str]
"""Gives for a label, an image of a series and the path of the series why they do not belong together; empty if nothing
speaks against it."""


def is_same_frame(fact: ObjectFacts, image: ObjectFacts) -> bool:
    """Say whether contours lie in the frame of reference of a series: there names and numbers of files say no more."""
    frame = image.frame_of_reference
    return fact.file == FileKind.RTSTRUCT and bool(frame) and fact.frame_of_reference == frame


def drawn_elsewhere(fact: ObjectFacts, image: ObjectFacts, series: str) -> str:
    """Return what is to be said of contours used for another series than they name; empty if they name none."""
    if not (fact.referenced_series or fact.referenced_images):
        return ""
    why = "which has the same frame of reference" if is_same_frame(fact, image) else "on whose slices it lies"
    return f"the series that it says it was drawn on is not here; it is used for {series}, {why}"


def contradiction(fact: ObjectFacts, image: ObjectFacts, series: str) -> str:
    """Return why a label cannot be of a series that it does not name; see ``Refuse``."""
    if other := _another_patient(fact, image, series):
        return other
    same_study = bool(fact.study) and fact.study == image.study
    same_frame = bool(fact.frame_of_reference) and fact.frame_of_reference == image.frame_of_reference
    same_patient = bool(fact.patient) and fact.patient == image.patient
    refers = bool(fact.referenced_series or fact.referenced_images)
    if is_same_frame(fact, image):
        return ""  # contours lie where they lie, whichever series of the same space they were drawn on
    if refers and (same_study or same_frame or same_patient):
        return (
            f"it says that it was drawn on a series that is not here; {series} has the same grid, but is another "
            "one: add the series that it was drawn on"
        )
    if same_study and fact.frame_of_reference and image.frame_of_reference and not same_frame:
        return _another_frame(series)
    return ""


def another_space(fact: ObjectFacts, image: ObjectFacts, series: str) -> str:
    """Return why a label cannot be of a series that it names; see ``Refuse``."""
    if other := _another_patient(fact, image, series):
        return other
    frames = {fact.frame_of_reference, image.frame_of_reference} - {""}
    return _another_frame(series) if fact.file == FileKind.RTSTRUCT and len(frames) > 1 else ""


def _another_frame(series: str) -> str:
    return f"it lies in another frame of reference than {series}; export it again on that series"


def _another_patient(fact: ObjectFacts, image: ObjectFacts, series: str) -> str:
    if fact.patient and image.patient and fact.patient != image.patient:
        return f"it names another PatientID than {series}, the series that it fits; put it beside its own series"
    return ""
