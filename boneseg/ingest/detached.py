"""Volumes in two files, a header and the voxels beside it: objects are inspected one by one, then these in pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from boneseg.ingest.object_facts import ObjectFacts
from boneseg.storage.catalogue import ObjectRef


def voxels_key(item: ObjectFacts) -> str:
    """Return the key of the object that holds the voxels of a detached header; empty for any other file."""
    if not item.data_file:
        return ""
    folder, slash, _ = item.ref.key.rpartition("/")
    return f"{folder}{slash}{item.data_file}"


def incomplete(facts: Mapping[str, ObjectFacts]) -> list[tuple[ObjectFacts, ObjectRef]]:
    """Return the headers that were inspected without their voxels, each with the object that holds these.

    Args:
        facts: of all objects, by key.
    """
    headers = [item for item in facts.values() if item.data_file and item.data is None]
    pairs = [(item, facts.get(voxels_key(item))) for item in headers]
    return [(item, voxels.ref) for item, voxels in pairs if voxels is not None and voxels.ref.sha256]


def without_voxels(facts: Iterable[ObjectFacts]) -> list[ObjectFacts]:
    """Leave out the objects that are the voxels of a detached header: that header speaks for them."""
    listed = list(facts)
    voxels = {item.data.key for item in listed if item.data is not None}
    return [item for item in listed if item.ref.key not in voxels]
