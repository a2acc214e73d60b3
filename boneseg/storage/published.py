"""Which data was published last under a model name: what a scheduled run compares with."""

from __future__ import annotations

import logging

from boneseg.errors import RecordError
from boneseg.storage import layout
from boneseg.storage.client import ObjectStore
from boneseg.storage.records import Record

log = logging.getLogger(__name__)


class Published(Record):
    """The last publish under a model name."""

    fingerprint: str
    """Of the data."""
    dataset_hash: str = ""
    model: str = ""
    """Reference, such as ``bone:3``."""

    @property
    def number(self) -> int:
        """Return the version, 0 where it is unknown."""
        digits = self.model.rpartition(":")[2]
        return int(digits) if digits.isdecimal() else 0


def read_published(store: ObjectStore, name: str) -> tuple[Published | None, str | None]:
    """Return what was published last under a name, and the ETag of its record; a damaged one counts as none.

    Earlier versions kept one record a bucket: it counts for the name it is of.
    """
    data, etag = store.read_versioned(layout.published(name))
    if data is not None:
        return _parsed(data, store.uri(layout.published(name))), etag
    data = store.read_if_there(layout.PUBLISHED_STATE)
    found = None if data is None else _parsed(data, store.uri(layout.PUBLISHED_STATE))
    return (found if found is not None and found.model.rpartition(":")[0] == name else None), None


def write_published(store: ObjectStore, name: str, wanted: Published, etag: str | None) -> None:
    """Write down what was published; where somebody else did so since ``etag`` was read, the newer version stays."""

    def newer(present: bytes | None) -> bytes:
        found = None if present is None else _parsed(present, store.uri(layout.published(name)))
        return present if present is not None and found is not None and found.number > wanted.number else ours

    ours = wanted.to_json()
    if not store.write_if(layout.published(name), ours, etag, "application/json"):
        store.update(layout.published(name), newer, "application/json")


def _parsed(data: bytes, place: str) -> Published | None:
    try:
        return Published.read(data, place, "the data counts as changed, and the next publish writes it anew")
    except RecordError as error:
        log.warning("%s", error)
        return None
