"""Who cleans up after a training that was killed, and where its workers meet."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boneseg.ray_cluster import watchdog
from boneseg.train.rendezvous import interface_of, listen


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("last_word", "ends"), [(b"", True), (b"done\n", False)])
def test_a_cluster_ends_with_its_starter_unless_that_says_farewell(
    tmp_path: Path, last_word: bytes, ends: bool
) -> None:
    folder = tmp_path / "ray"
    (folder / "session" / "logs").mkdir(parents=True)
    mark = f"test-{last_word.hex()}-{os.getpid()}"
    member = subprocess.Popen(["sleep", "100"], env={**os.environ, watchdog.VARIABLE: mark})
    stranger = subprocess.Popen(["sleep", "100"])
    command = [sys.executable, "-I", watchdog.__file__, mark, str(os.getpid()), str(folder)]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        watcher.communicate(last_word, timeout=60)
        assert (member.poll() is not None) == ends
        assert folder.exists() != ends
        assert stranger.poll() is None
    finally:
        for process in (member, stranger):
            process.kill()
            process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_hides_its_environment_is_known_by_its_log(tmp_path: Path) -> None:
    logs = tmp_path / "session_2026_4321"
    logs.mkdir()
    with (logs / "agent.log").open("w") as log:
        member = subprocess.Popen(["sleep", "100"], stdout=log)
    try:
        assert member.pid in watchdog.members("no such mark", starter=4321)
        assert member.pid not in watchdog.members("no such mark", starter=321)
    finally:
        member.kill()
        member.wait()


def test_the_leader_listens_on_one_address_only() -> None:
    with listen("127.0.0.1") as door:
        assert door.getsockname()[0] == "127.0.0.1"


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_the_interface_of_an_address_is_found() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None
