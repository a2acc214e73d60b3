"""A step of a pipeline: it opens its workspace, and a retry does not repeat what cannot end otherwise.

Kubernetes starts a failed step again, because its node may have been lost. A wrong setting or a missing series fails
the second time as it did the first; so a run notes such a failure in the bucket, and the retry ends with it at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from boneseg.errors import BonesegError, RecordError, StoreError
from boneseg.identity import stable_hash
from boneseg.settings.schema import RunSettings
from boneseg.storage import layout
from boneseg.storage.open import open_workspace
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace

RUN_VARIABLE = "BONESEG_PIPELINE_RUN"
"""Environment variable with the id of the pipeline's run; a run on one machine has none, and no retries either."""


class Failure(Record):
    """Why a step of a run ended, though nothing around it failed."""

    step: str
    reason: str


@contextmanager
def step(name: str, settings: RunSettings) -> Iterator[Workspace]:
    """Open the workspace of a step.

    Args:
        name: of the step, such as ``train``.
        settings: of the run.

    Raises:
        BonesegError: with the reason of the first try, where that was one that a retry cannot mend.
    """
    workspace = open_workspace(settings)
    run = os.environ.get(RUN_VARIABLE)
    if not run:
        yield workspace
        return
    key = layout.failure(stable_hash([run, name, settings.model_dump(mode="json")]))
    _refuse_again(workspace, key)
    try:
        yield workspace
    except BonesegError as error:
        if not error.transient:
            _note(workspace, key, Failure(step=name, reason=str(error)))
        raise


def _refuse_again(workspace: Workspace, key: str) -> None:
    data = workspace.store.read_if_there(key)
    if data is None:
        return
    try:
        failure = Failure.read(data, workspace.store.uri(key), "the step is tried again")
    except RecordError:
        return
    raise BonesegError(f"{failure.reason} (found at the first try; trying again changes nothing)")


def _note(workspace: Workspace, key: str, failure: Failure) -> None:
    try:
        workspace.store.write(key, failure.to_json(), "application/json")
    except StoreError:  # the reason itself matters more
        return
