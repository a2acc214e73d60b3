"""What people at the terminal read: names in place of stand-ins, where this machine may see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from boneseg.errors import BonesegError
from boneseg.settings.loading import work_folder
from boneseg.storage.local_pseudonyms import load_local_names
from boneseg.storage.pseudonyms import TOKEN, load_names, restore
from boneseg.storage.workspace import Workspace

Readable = Callable[[str], str]
"""Puts names in place of stand-ins."""


def reader_of(workspace: Workspace | None) -> Readable:
    """Return what makes texts readable, from the table beside the raw data and that of this machine.

    Where the table cannot be read (no right to, no store), stand-ins stay. It is read when the first text needs it.

    Args:
        workspace: the bucket; none = only what was evaluated in local folders.
    """

    @cache
    def table() -> Mapping[str, str]:
        names = load_local_names(work_folder())
        if workspace is not None:
            try:
                names |= load_names(workspace.store, workspace.private)
            except BonesegError:
                return names
        return names

    return lambda text: restore(text, table()) if TOKEN.search(text) else text
