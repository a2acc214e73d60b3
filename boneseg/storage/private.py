"""What leads back to people: the patients' key and the names of folders and files. It lies beside the raw data only."""

from __future__ import annotations

import logging
import os
import secrets

from pydantic import field_validator

from boneseg.errors import RecordError
from boneseg.storage import layout
from boneseg.storage.client import ObjectStore
from boneseg.storage.hashing import pseudonym
from boneseg.storage.records import Record

FOLDER = ".boneseg/"
"""Folder below the raw prefix; nothing in it is data."""
KEY_FILE, OBJECTS_FILE, NAMES_FILE, OVERRIDES_FILE = "patient-key", "objects.json", "names.json", "overrides.csv"
KEY_VARIABLE = "BONESEG_PATIENT_KEY"
LEAST_KEY_BYTES = 16

log = logging.getLogger(__name__)


class PrivatePlace(Record):
    """Where a bucket keeps what leads back to people, and whether its key is still the same."""

    folder: str
    """Such as ``raw/.boneseg/``; stays where it was made, whatever ``store.raw_prefix`` becomes."""
    key_check: str = ""
    """Keyed hash of a constant under the bucket's own patient key: tells whether the key was changed."""
    cleaned: bool = False
    """Whether records of versions that wrote folder names outside the raw data were looked for and rewritten."""

    @field_validator("folder")
    @classmethod
    def _is_no_data(cls, folder: str) -> str:
        if not is_private(folder) or not folder.endswith(f"/{FOLDER}"):
            raise ValueError(f"must end with /{FOLDER}, or what lies there counts as data")
        return folder


def is_private(key: str) -> bool:
    """Say whether an object below the raw prefix is not data but boneseg's own."""
    return f"/{FOLDER}" in f"/{key}"


def is_own(key: str, place: PrivatePlace) -> bool:
    """Say whether an object is one that boneseg writes: then, and only then, it may be removed and made anew."""
    plain = all(part not in ("", ".", "..") for part in key.split("/"))
    return plain and key.startswith((*layout.PREFIXES, place.folder))


def private_place(store: ObjectStore, raw_prefix: str) -> PrivatePlace:
    """Return where the bucket keeps what leads back to people; decided at first use, found again if damaged."""

    def whole(data: bytes | None) -> bytes:
        if data is not None:
            try:
                _read(data, store)
                return data
            except RecordError as error:
                log.warning("%s", error)
                return PrivatePlace(folder=_found_again(store, raw_prefix)).to_json()
        return PrivatePlace(folder=f"{raw_prefix}{FOLDER}").to_json()

    return _read(store.update(layout.PRIVATE_STATE, whole, "application/json"), store)


def change_place(store: ObjectStore, **values: object) -> None:
    """Set fields of the bucket's ``PrivatePlace``, which is there already."""

    def change(data: bytes | None) -> bytes:
        assert data is not None
        return _read(data, store).model_copy(update=values).to_json()

    store.update(layout.PRIVATE_STATE, change, "application/json")


def patient_secret(store: ObjectStore, raw_prefix: str) -> bytes:
    """Return the secret of the keyed hashes: ``BONESEG_PATIENT_KEY``, else the bucket's own, made at first use.

    It must not change, or patients would change their split.

    Raises:
        RecordError: the bucket's key is cut short or not the one it was.
    """
    given = os.environ.get(KEY_VARIABLE)
    if given:
        return given.encode()
    return _bucket_secret(store, raw_prefix, secrets.token_hex(32).encode())


def fix_secret(store: ObjectStore, raw_prefix: str, secret: bytes) -> None:
    """Make this the bucket's own key, unless it has one."""
    _bucket_secret(store, raw_prefix, secret)


def _bucket_secret(store: ObjectStore, raw_prefix: str, fresh: bytes) -> bytes:
    place = private_place(store, raw_prefix)
    key = place.folder + KEY_FILE
    kept = store.read_if_there(key)
    if kept is None:
        if place.key_check:
            log.warning(
                "the patient key %s is gone; a new one is made. Patients are known again by the pixels of their series "
                "as long as one of those is there",
                store.uri(key),
            )
        kept = _moved(store, key) or _made(store, key, fresh)
        change_place(store, key_check=_check(kept))
    elif len(kept) < LEAST_KEY_BYTES or (place.key_check and place.key_check != _check(kept)):
        raise RecordError(
            f"the patient key {store.uri(key)} was changed or cut short, so patients would not be known again: restore "
            f"it from a backup or give the true one as {KEY_VARIABLE}; where neither is left, 'boneseg store remove "
            f"{key}', and patients are known again by the pixels of their series"
        )
    elif not place.key_check:
        change_place(store, key_check=_check(kept))
    return kept


def _moved(store: ObjectStore, key: str) -> bytes | None:
    """Carry the key of an earlier version beside the raw data."""
    earlier = store.read_if_there(layout.EARLIER_PATIENT_KEY)
    if earlier is None:
        return None
    if len(earlier) < LEAST_KEY_BYTES:
        raise RecordError(
            f"the patient key {store.uri(layout.EARLIER_PATIENT_KEY)} was cut short, so patients would not be known "
            f"again: restore it from a backup or give it as {KEY_VARIABLE}; where neither is left, 'boneseg store "
            f"remove {layout.EARLIER_PATIENT_KEY}', and patients are known again by the pixels of their series"
        )
    kept = _made(store, key, earlier)
    store.delete(layout.EARLIER_PATIENT_KEY)
    return kept


def _made(store: ObjectStore, key: str, secret: bytes) -> bytes:
    """Store a key unless another process was faster; return the one that counts."""
    return secret if store.write_if(key, secret, None) else store.read(key)


def _check(secret: bytes) -> str:
    return pseudonym(secret, "check", "patient-key")


def _found_again(store: ObjectStore, raw_prefix: str) -> str:
    """Look for the folder that the patient key lies in; without one, it is where a new bucket has it."""
    first = f"{raw_prefix}{FOLDER}"
    if store.exists(first + KEY_FILE):
        return first
    ending = f"/{FOLDER}{KEY_FILE}"
    found = (item.key for item in store.list() if f"/{item.key}".endswith(ending))
    return next((key.removesuffix(KEY_FILE) for key in found), first)


def _read(data: bytes, store: ObjectStore) -> PrivatePlace:
    return PrivatePlace.read(data, store.uri(layout.PRIVATE_STATE), "it is made anew")
