"""What is known of a bucket's raw objects: kept beside the raw data, for it holds their keys."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from boneseg.errors import RecordError
from boneseg.ingest.facts import FACTS_VERSION
from boneseg.ingest.object_facts import ObjectFacts
from boneseg.storage import layout
from boneseg.storage.catalogue import ObjectRef
from boneseg.storage.client import ObjectStore
from boneseg.storage.hashing import pseudonym
from boneseg.storage.private import OBJECTS_FILE, PrivatePlace
from boneseg.storage.records import Record

log = logging.getLogger(__name__)


class ObjectsState(Record):
    """What is known of the objects of a bucket."""

    version: int
    """Of the facts and of the secret behind them; of another one nothing is re-used."""
    secret: str
    objects: tuple[ObjectFacts, ...]


class KnownObjects:
    """Facts of the objects of a bucket; several pulls may add to them at the same time.

    Args:
        store: the bucket.
        place: beside its raw data.
        secret: of the keyed hashes in the facts.
    """

    def __init__(self, store: ObjectStore, place: PrivatePlace, secret: bytes) -> None:
        self._store = store
        self._key = place.folder + OBJECTS_FILE
        self._secret = pseudonym(secret, "state", "objects")

    def load(self) -> dict[str, ObjectFacts]:
        """Return the facts by key; a damaged or older state counts as none."""
        data = self._store.read_if_there(self._key)
        if data is None:
            data = self._store.read_if_there(layout.EARLIER_OBJECTS)
        return self._parse(data)

    def save(self, known: Mapping[str, ObjectFacts], gone: Collection[ObjectRef] = ()) -> None:
        """Add facts to the state.

        Args:
            known: by key.
            gone: objects that are no longer in the bucket, as the state had them.
        """
        gone_refs = {(ref.key, ref.etag) for ref in gone}

        def change(data: bytes | None) -> bytes:
            theirs = self._parse(data)
            kept = {key: facts for key, facts in theirs.items() if (key, facts.ref.etag) not in gone_refs}
            merged = kept | dict(known)
            objects = tuple(merged[key] for key in sorted(merged))
            return ObjectsState(version=FACTS_VERSION, secret=self._secret, objects=objects).to_json(compact=True)

        self._store.update(self._key, change, "application/json")
        self._store.delete(layout.EARLIER_OBJECTS)

    def by_content(self) -> dict[str, ObjectRef]:
        """Return SHA-256 -> the object with this content."""
        return {facts.ref.sha256: facts.ref for _, facts in sorted(self.load().items(), reverse=True)}

    def _parse(self, data: bytes | None) -> dict[str, ObjectFacts]:
        if data is None:
            return {}
        try:
            state = ObjectsState.read(data, self._store.uri(self._key), "it is made anew")
        except RecordError as error:
            log.warning("%s", error)
            return {}
        if (state.version, state.secret) != (FACTS_VERSION, self._secret):
            return {}
        return {facts.ref.key: facts for facts in state.objects}
