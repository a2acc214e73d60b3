import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from boneseg.dataset.shards import load_dataset
from boneseg.models.card import EpochRecord
from boneseg.models.checkpoint import fetch_model, load_model
from boneseg.settings.schema import RunSettings, Split
from boneseg.storage.workspace import Workspace
from boneseg.train.train import train_run


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_workers_finish_a_run_as_one_alone_although_one_is_killed(
    workspace: Workspace, dataset_uri: str, quick: RunSettings
) -> None:
    together = {"workers": "1..2", "epochs": 3, "precision": "fp32", "save_every_steps": 2, "ema": 0.9}
    settings = quick.train.model_copy(update=together)
    killed: list[int] = []
    sizes: list[int] = []
    heard: list[int] = []
    open_to_others: set[str] = set()
    folders: set[Path] = set()

    def report(record: EpochRecord) -> None:
        heard.append(record.epoch)
        folder = own_folder()
        folders.add(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert list(folder.glob("r/session_*/sockets/*"))
        assert_no_credentials(workspace, folder)
        open_to_others.update(listening_on_other_than_loopback())
        if not killed:
            sizes.append(len(workers()))
            killed.append(kill_a_worker())

    dataset = load_dataset(workspace, dataset_uri)
    result = train_run(workspace, dataset, quick.model, settings, "quick", report)

    assert killed
    assert sizes == [2]
    assert not open_to_others, "a process listens to other machines"
    assert [record.epoch for record in result.history] == [1, 2, 3]
    assert heard.count(1) == 2  # once more when the new workers continued
    assert heard[-1] == 3
    assert load_model(fetch_model(workspace, result.model_uri))[1].history == result.history
    assert len(dataset.of(Split.VALIDATION)) == 1
    assert not workers(), "Ray is still there after training"
    assert_no_credentials(workspace, workspace.folder)
    assert folders
    assert not any(folder.exists() for folder in folders)

    alone = train_run(workspace, dataset, quick.model, settings.model_copy(update={"workers": 1}), "alone")
    for loss in ("train_loss", "validation_loss"):
        losses, expected = ([getattr(record, loss) for record in run.history] for run in (result, alone))
        assert losses == pytest.approx(expected, rel=1e-2)


def workers() -> list[int]:
    """Return the process numbers of the Ray Train workers among this process's descendants."""
    return [number for number, title in descendants().items() if b"TrainWorker" in title]


def descendants() -> dict[int, bytes]:
    """Return the numbers and titles of this process's descendants."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            titles[int(folder.name)] = (folder / "cmdline").read_bytes()
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # ended meanwhile
    found = {}
    for process, parent in parents.items():
        ancestor = parent
        while ancestor not in (0, 1, os.getpid()):
            ancestor = parents.get(ancestor, 0)
        if ancestor == os.getpid():
            found[process] = titles[process]
    return found


LISTENING = "0A"
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


def listening_on_other_than_loopback() -> set[str]:
    """Return address and title of every socket of this process and its descendants that others can reach."""
    found = set()
    for process, title in {**descendants(), os.getpid(): b"this"}.items():
        try:
            mine = {str(file.readlink()) for file in Path(f"/proc/{process}/fd").iterdir()}
        except OSError:
            continue  # ended meanwhile
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                _, address, _, status, *rest = line.split()
                if status == LISTENING and f"socket:[{rest[5]}]" in mine and address.split(":")[0] not in LOOPBACK:
                    found.add(f"{address} {title!r}")
    return found


def kill_a_worker() -> int:
    victim = workers()[-1]
    os.kill(victim, signal.SIGKILL)
    return victim


def own_folder() -> Path:
    """Return the folder of logs and sockets of the Ray that this process started; others may run beside it."""
    node = ray._private.worker._global_node
    assert node is not None
    return Path(node.get_temp_dir_path()).parent


def assert_no_credentials(workspace: Workspace, folder: Path) -> None:
    """Look through what Ray wrote."""
    secret = workspace.store.credentials.secret_key
    command = ["grep", "-rlF", "--devices=skip", secret, str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stdout == ""
