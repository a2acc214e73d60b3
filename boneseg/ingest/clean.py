"""Records of earlier versions held names of folders and files: found once a bucket, and rewritten with stand-ins."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from boneseg.safe_csv import csv_text
from boneseg.storage import layout
from boneseg.storage.client import ObjectInfo, ObjectStore
from boneseg.storage.private import change_place, is_private
from boneseg.storage.pseudonyms import TOKEN, Names, conceal_html, save_names
from boneseg.storage.records import SEAL, seal_of
from boneseg.storage.workspace import Workspace

log = logging.getLogger(__name__)

_PREFIXES = ("catalogues/", "shards/", "datasets/", "evaluations/")


def clean_bucket(workspace: Workspace) -> None:
    """Rewrite what earlier versions wrote outside the raw data with names of folders and files in it, once a bucket.

    Contents that hashes cover (voxels, splits, measurements) stay as they are; so do the names of all records.
    """
    store, place = workspace.store, workspace.private
    if place.cleaned:
        return
    records = [item for prefix in _PREFIXES for item in store.list(prefix)]
    if records:
        raw = [item.key for item in store.list(workspace.raw_prefix) if not is_private(item.key)]
        keys = {*raw, *_earlier_keys(store, records)}
        names = Names(workspace.patient_secret(), (key.removeprefix(workspace.raw_prefix) for key in keys))
        done = sum(_clean(store, item, names) for item in records)
        save_names(store, place, names.given)
        if done:
            log.warning(
                "%d records of an earlier version named folders of the raw data; they are rewritten. Copies elsewhere "
                "(artifacts of past pipeline runs, exported reports, logs) still hold them",
                done,
            )
    store.delete(layout.EARLIER_OBJECTS)
    change_place(store, cleaned=True)


def _clean(store: ObjectStore, item: ObjectInfo, names: Names) -> bool:
    """Rewrite one object if it holds names; say whether it did."""
    change = _change(item.key)
    if change is None:
        return False
    data, etag = store.read_versioned(item.key)
    if data is None:
        return False
    try:
        wanted = change(data, names)
    except (ValueError, TypeError, KeyError, AttributeError):
        return False  # damaged: whoever reads it says so
    if wanted == data:
        return False
    return store.write_if(item.key, wanted, etag)


def _change(key: str) -> Callable[[bytes, Names], bytes] | None:
    if key.endswith("/measurement.json"):
        return None
    if key.startswith("datasets/") and key.endswith(".csv"):
        return _clean_table
    if key.endswith("/report.html"):
        return lambda data, names: conceal_html(data.decode(), names).encode()
    return _clean_record if key.endswith(".json") and "/tables/" not in key else None


def _clean_record(data: bytes, names: Names) -> bytes:
    values = json.loads(data)
    seal = values.pop(SEAL, None)
    cleaned = _cleaned(values, names)
    if cleaned == values:
        return data
    if seal is not None:
        if seal != seal_of(values):
            return data  # changed by hand: its reader refuses it, and shall
        cleaned[SEAL] = seal_of(cleaned)
    return json.dumps(cleaned, indent=1, ensure_ascii=False).encode()


def _cleaned(value: Any, names: Names) -> Any:
    if isinstance(value, list):
        return [_cleaned(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: _cleaned(item, names) for key, item in value.items()}
    if isinstance(value.get("source"), str):
        made["source"] = names.token(value["source"], "series") if "series" in value else _source(value, names)
    if isinstance(value.get("reason"), str):
        made["reason"] = names.conceal(value["reason"])
    if isinstance(value.get("warnings"), list):
        made["warnings"] = [names.conceal(str(warning)) for warning in value["warnings"]]
    if "sha256" in value and not str(value.get("key", "")).startswith("shards/"):
        made |= {"key": "", "etag": ""}
    return made


def _source(value: dict[str, Any], names: Names) -> str:
    return names.conceal_source(value["source"])


def _clean_table(data: bytes, names: Names) -> bytes:
    reader = csv.DictReader(io.StringIO(data.decode()))
    heads = list(reader.fieldnames or ())
    rows = [dict(row) for row in reader]
    if "source" not in heads or all(TOKEN.fullmatch(row["source"]) for row in rows):
        return data
    for row in rows:
        row["source"] = names.token(row["source"], "series") if "shard" in row else names.conceal_source(row["source"])
        if "reason" in row:
            row["reason"] = names.conceal(row["reason"])
    return csv_text([heads, *([row[head] for head in heads] for row in rows)]).encode()


def _earlier_keys(store: ObjectStore, records: Iterable[ObjectInfo]) -> Iterator[str]:
    """Yield the raw keys that earlier catalogues name, also of objects that are gone by now."""
    for item in records:
        if not item.key.startswith("catalogues/"):
            continue
        try:
            rows = json.loads(store.read(item.key))["series"]
            for row in rows:
                yield from (ref["key"] for ref in row["objects"] if ref.get("key"))
                if row.get("label"):
                    yield row["label"]["object"].get("key") or ""
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
