"""Which registry: MLflow at a tracking URI, or a SQLite file that the bucket keeps."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from boneseg.errors import ModelError
from boneseg.registry import database
from boneseg.registry.client import Registry
from boneseg.registry.publish_lock import LockLostError, hold_lock
from boneseg.registry.server import tracking_server
from boneseg.settings.schema import PublishSettings
from boneseg.storage.workspace import Workspace

log = logging.getLogger(__name__)

Result = TypeVar("Result")
ATTEMPTS = 30


@contextmanager
def read_registry(settings: PublishSettings, workspace: Workspace) -> Iterator[Registry | None]:
    """Open the registry to look up: ``publish.tracking_uri``, else ``MLFLOW_TRACKING_URI``, else the bucket's own.

    Nothing is changed, in the bucket or on this machine. None = nothing was published in this bucket yet.

    Raises:
        ModelError: the registry does not answer, or is damaged.
    """
    uri = tracking_server(settings)
    if uri:
        yield Registry(uri)
        return
    found = database.find(workspace)
    if found.data is None:
        yield None
        return
    with database.opened(workspace, found.data) as (registry, _):
        yield registry


def change_registry(settings: PublishSettings, workspace: Workspace, work: Callable[[Registry], Result]) -> Result:
    """Change the registry as if nobody else did at the same time, and return what ``work`` returns.

    The bucket's own is changed in a private copy, which takes the place of the bucket's whole and only if that one is
    still the same; else ``work`` is called again on the newer one. Work stopped at any point has changed nothing. On an
    MLflow server one publish of a bucket waits for the other.

    Args:
        settings: which registry.
        workspace: the bucket.
        work: what to do; it may be called several times, and calls ``confirm`` of the registry before it decides.

    Raises:
        ModelError: the registry does not answer, refuses or is damaged, or others keep being faster.
    """
    uri = tracking_server(settings)
    for attempt in range(ATTEMPTS):
        if attempt:
            log.info("publish: somebody else published at the same time; deciding again on the newer registry")
            time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 5)))
        if uri:
            try:
                with hold_lock(workspace, settings.model_name) as confirm:
                    return work(Registry(uri, confirm=confirm))
            except LockLostError:
                continue
        found = database.find(workspace)
        with database.opened(workspace, found.data) as (registry, path):
            result = work(registry)
            registry.close()
            after = path.read_bytes()
        if after == found.data and not found.healed:
            database.mirror(workspace)
            return result
        if database.put(workspace, after, found.etag):
            return result
    raise ModelError("others publish to this registry all the time; publish again when they are done")
