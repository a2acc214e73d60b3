"""Work that is sent to the nodes of a cluster: it dies, waits or is done there."""

import os
import signal
import time
from pathlib import Path

import ray

from boneseg.dataset import make_shards
from boneseg.dataset.make_shards import Prepared, Task
from boneseg.errors import StoreError
from boneseg.ray_cluster.environment import on_cluster
from boneseg.scheme import LabelScheme
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.workspace import Workspace

LONGEST_WAIT_SECONDS = 120
prepare_series = make_shards.prepare_series


def node_of(item: str) -> str:
    """Return the node that did the work; ``WORD FOLDER`` leaves there the process that began it.

    The word says how it goes on: ``once`` and ``always`` cost the process, ``refused`` and ``away`` lack the store the
    first time or each time, ``hold`` waits for the file ``go``. Of ``nested``, return whether work could be spread
    again from there.
    """
    if item == "nested":
        os.environ["RAY_ADDRESS"] = "127.0.0.1:1"
        return str(on_cluster())
    word, _, place = item.partition(" ")
    node: str = ray.get_runtime_context().get_node_id()
    if not place:
        return node
    folder = Path(place)
    again = any(folder.glob(f"{word}-*"))
    (folder / f"{word}-{os.getpid()}-{node}").touch()
    if word == "away" or (word == "refused" and not again):
        raise StoreError("cannot write to the cache; free some space")
    if word == "always" or (word == "once" and not again):
        os.kill(os.getpid(), signal.SIGKILL)
    if word.startswith("hold"):
        wait_for(folder / "go")
    return node


def wait_for(path: Path) -> None:
    """Wait for a file, but not for ever."""
    end = time.monotonic() + LONGEST_WAIT_SECONDS
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)


def prepare_held(workspace: Workspace, settings: PrepareSettings, scheme: LabelScheme, task: Task) -> Prepared:
    """Do what prepare does, slowed down: the first process dies, and what comes next waits for the file ``go``."""
    folder = workspace.folder
    try:
        (folder / "died").touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    except FileExistsError:
        (folder / f"held-{os.getpid()}-{ray.get_runtime_context().get_node_id()}").touch()
        wait_for(folder / "go")
    return prepare_series(workspace, settings, scheme, task)
