"""One publish at a time where the registry itself cannot say who was first: a lock, kept as an object in the bucket.

Clocks of different machines are never compared: whoever waits takes over a lock that did not change for a while by its
own clock, so that one whose holder was killed is never in anybody's way for long.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from boneseg.errors import BonesegError, ModelError
from boneseg.storage import layout
from boneseg.storage.workspace import Workspace

log = logging.getLogger(__name__)

TAKEN_OVER_AFTER = 60.0
"""Seconds without a sign of the holder."""
POLL_SECONDS = 0.5
PATIENCE = 1800.0
FREE = b""


class LockLostError(BonesegError):
    """Somebody else took over because this process was silent for too long; what it decided no longer counts."""


@contextmanager
def hold_lock(workspace: Workspace, name: str) -> Iterator[Callable[[], None]]:
    """Hold the lock for publishing a model of this name.

    Yields:
        A function to call before anything that must not happen twice: it shows a sign of life, and raises
        LockLostError where the lock is somebody else's by now.

    Raises:
        ModelError: others hold it all the time.
    """
    store, key = workspace.store, layout.publishing(name)
    mine = secrets.token_hex(8)
    signs = 0

    def sign() -> bytes:
        nonlocal signs
        signs += 1
        return f"{mine} {signs}".encode()

    def confirm() -> None:
        present, etag = store.read_versioned(key)
        if present is None or not present.startswith(mine.encode()) or not store.write_if(key, sign(), etag):
            raise LockLostError("somebody else publishes at the same time; publish again")

    _wait(workspace, key, sign)
    try:
        yield confirm
    finally:
        present, etag = store.read_versioned(key)
        if present is not None and present.startswith(mine.encode()):
            store.write_if(key, FREE, etag)


def _wait(workspace: Workspace, key: str, sign: Callable[[], bytes]) -> None:
    store, start = workspace.store, time.monotonic()
    seen, since, announced = "", start, False
    while time.monotonic() - start < PATIENCE:
        present, etag = store.read_versioned(key)
        if (etag or "") != seen:
            seen, since = etag or "", time.monotonic()
        free = present is None or present == FREE
        if free or time.monotonic() - since >= TAKEN_OVER_AFTER:
            if store.write_if(key, sign(), etag):
                return
            continue
        if not announced:
            log.info("publish: waiting for another publish of the same model, or %.0f s", TAKEN_OVER_AFTER)
            announced = True
        time.sleep(POLL_SECONDS)
    raise ModelError(f"others publish this model all the time ({store.uri(key)}); publish again when they are done")
