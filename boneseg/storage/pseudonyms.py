"""Stand-ins for the names of series, files and folders, which often are people's names.

Outside the raw data a series goes by a keyed hash of where it lies. Messages are written with the true names, which
people who hold the data want to read, and concealed before they are logged or stored.
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from pydantic import Field

from boneseg.errors import QUOTED, RecordError
from boneseg.storage.client import ObjectStore
from boneseg.storage.hashing import pseudonym
from boneseg.storage.private import NAMES_FILE, PrivatePlace
from boneseg.storage.records import Record

log = logging.getLogger(__name__)

DIGITS = 12
TOKEN = re.compile(rf"\b(?:series|file|folder|text)-[0-9a-f]{{{DIGITS}}}\b")
_HARMLESS_NUMBER = re.compile(r"\d{1,3}")
_WORDS = """
a above air all an and are as at axial below beside bone bones both but by can case cases contour contours copy cropped
ct CT CTs damaged data dcm DICOM dicom dicoms DICOMDIR direction empty export file files first folder for from gz has
have header heads HU hu i if image images in is it its label labels last lies mask masks MetaImage mha mhd mm modality
names near nearest nhdr nifti NIfTI nii no not nrrd NRRD of on one only or order original other out patient patients
pixel pixels place raw s same scan scans SEG seg segmentation segmentations segments series slice slices small spacing
study test than that the their there these this to train training used validation value values volume volumes voxel
voxels was whole with zip zraw
"""
_HARMLESS = frozenset(_WORDS.split())
"""Words of our own messages: a folder of this name alone tells nothing, and to replace the word would garble them."""

_OWN_SOURCES = frozenset({".", "patients", "validation", "test"})


class NameTable(Record):
    """Stand-in -> name, as it lies beside the raw data."""

    names: dict[str, str] = Field(default_factory=dict)


class Names:
    """Conceals names in texts, and remembers which stand-ins it gave.

    Args:
        secret: of the keyed hash.
        paths: of all raw files, below the raw prefix; their folders and file names are names too.
    """

    def __init__(self, secret: bytes, paths: Iterable[str] = ()) -> None:
        self._secret = secret
        self._kinds: dict[str, str] = {}
        self._series: set[str] = set()
        self.given: dict[str, str] = {}
        """Stand-in -> name, of those given so far."""
        for path in paths:
            self._learn(path)

    def with_series(self, series: Iterable[str]) -> Names:
        """Learn which paths are series, and return these names."""
        self._series.update(series)
        return self

    def token(self, name: str, kind: str | None = None) -> str:
        """Return the stand-in of a name; one that is a stand-in already stays.

        Args:
            name: a path below the raw prefix, or a part of one.
            kind: ``series``, ``file``, ``folder`` or ``text``; none = as it is known.
        """
        if TOKEN.fullmatch(name):
            return name
        kind = "series" if name in self._series else kind or self._kinds.get(name, "folder")
        token = f"{kind}-{pseudonym(self._secret, 'name', name)[:DIGITS]}"
        self.given[token] = name
        return token

    def conceal_source(self, source: str) -> str:
        """Return the stand-in of what a problem is about; a word of ours that is no path stays."""
        return source if source in _OWN_SOURCES else self.token(source)

    def conceal(self, text: str) -> str:
        """Return a text with stand-ins for all names in it, and for what it quotes from a file."""
        parts, done = [], 0
        for match in QUOTED.finditer(text):
            parts += [self._without_paths(text[done : match.start()]), f"«{self.token(match[1], 'text')}»"]
            done = match.end()
        return "".join([*parts, self._without_paths(text[done:])])

    def _without_paths(self, text: str) -> str:
        borders = [
            index
            for index in range(len(text) + 1)
            if index in (0, len(text)) or not (text[index - 1].isalnum() and text[index].isalnum())
        ]
        parts, done = [], 0
        for start in borders:
            if start < done:
                continue
            longest = next((end for end in reversed(borders) if end > start and text[start:end] in self._kinds), None)
            if longest is not None:
                parts += [text[done:start], self.token(text[start:longest])]
                done = longest
        return "".join([*parts, text[done:]])

    def _learn(self, path: str) -> None:
        whole = PurePosixPath(path)
        self._kinds.setdefault(path, "file")
        for part in (whole.name, whole.name.split(".")[0], whole.stem):
            self._learn_part(part, "file")
        for folder in whole.parents:
            name = str(folder)
            if name in self._kinds:  # and so are those above it
                break
            if name not in (".", "/"):
                if "/" in name:
                    self._kinds[name] = "folder"
                else:
                    self._learn_part(name, "folder")
                self._learn_part(folder.name, "folder")

    def _learn_part(self, name: str, kind: str) -> None:
        """Learn a name that stands alone, also as Python quotes it in messages."""
        if name and name not in _HARMLESS and not _HARMLESS_NUMBER.fullmatch(name):
            for shown in (name, repr(name)[1:-1]):
                self._kinds.setdefault(shown, kind)


def restore(text: str, names: Mapping[str, str]) -> str:
    """Return a text with names in place of the stand-ins that the table knows."""
    return TOKEN.sub(lambda match: names.get(match[0], match[0]), text)


def load_names(store: ObjectStore, place: PrivatePlace) -> dict[str, str]:
    """Read the table that leads from stand-ins to names; a damaged one counts as empty.

    Raises:
        StoreError: the store does not answer, or these credentials may not read beside the raw data.
    """
    return _read(store.read_if_there(place.folder + NAMES_FILE), store, place)


def save_names(store: ObjectStore, place: PrivatePlace, given: Mapping[str, str]) -> None:
    """Add to the table; what others add at the same time stays."""
    if not given:
        return

    def add(data: bytes | None) -> bytes:
        present = _read(data, store, place)
        if data is not None and given.items() <= present.items():
            return data
        return NameTable(names=dict(sorted((present | dict(given)).items()))).to_json()

    store.update(place.folder + NAMES_FILE, add, "application/json")


def conceal_html(page: str, names: Names) -> str:
    """Conceal names in the cells of a report's table of problems."""
    cell = re.compile(r'(<td class="text wrap">)(.*?)(</td>)', re.DOTALL)
    return cell.sub(lambda match: match[1] + html.escape(names.conceal(html.unescape(match[2]))) + match[3], page)


def _read(data: bytes | None, store: ObjectStore, place: PrivatePlace) -> dict[str, str]:
    if data is None:
        return {}
    uri = store.uri(place.folder + NAMES_FILE)
    try:
        return NameTable.read(data, uri, "the next 'boneseg pull' makes it anew").names
    except RecordError as error:
        log.warning("%s", error)
        return {}
