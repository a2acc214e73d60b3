"""A cluster started here: a folder of its own that no other user enters, and nothing of it afterwards."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boneseg.ray_cluster.connect import LONGEST_PARENT, PREFIX
from tests.storage.test_other_users import as_another_user

PROGRAM = """
import sys, time
from boneseg.ray_cluster.connect import cluster
from boneseg.ray_cluster.environment import before_ray
before_ray()
import ray
with cluster():
    @ray.remote
    def work() -> int:
        print("words of a worker")
        return 7
    assert ray.get(work.remote()) == 7
    print("up", flush=True)
    sys.stdin.readline()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
    pytest.mark.timeout(300),
]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files that is open to everybody and as long as may be."""
    folder = Path("/tmp") / f"t{os.getpid()}".ljust(LONGEST_PARENT - len("/tmp/"), "x")
    folder.mkdir()
    folder.chmod(0o1777)
    yield folder
    for path in folder.iterdir():
        subprocess.run(["rm", "-r", str(path)], check=True)
    folder.rmdir()


def started(temporary: Path) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_TMPDIR")}
    driver = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**environment, "TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        umask=0,
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == b"up\n"
    return driver


def processes(folder: Path) -> list[int]:
    """Return the processes that have a file below a folder open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink().is_relative_to(folder):
                found.add(int(link.parts[2]))
        except OSError:
            continue
    return sorted(found)


def watching(folder: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in words and any(word.endswith(b"watchdog.py") for word in words):
            found.append(int(path.parts[2]))
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_no_other_user_reads_what_ray_writes_and_nothing_stays(temporary: Path) -> None:
    driver = started(temporary)
    try:
        (folder,) = temporary.glob(f"{PREFIX}*")
        inside = list(folder.rglob("*"))
        assert any(stat.S_ISSOCK(path.lstat().st_mode) for path in inside)
        assert any(path.suffix in (".log", ".out") for path in inside)

        def tries() -> list[str]:
            opened = []
            for path in (folder, *inside):
                try:
                    list(path.iterdir()) if path.is_dir() else path.stat()
                    opened.append(str(path))
                except OSError:
                    continue
            try:
                (folder / "planted").touch()
                opened.append("planted")
            except OSError:
                pass
            return opened

        assert as_another_user(tries) == []
        plain = [path for path in inside if path.is_file() and not path.is_symlink()]
        assert [path for path in plain if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    finally:
        driver.communicate(b"\n", timeout=60)
    assert driver.returncode == 0
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("watcher_too", [False, True])
def test_of_a_killed_driver_nothing_stays(temporary: Path, watcher_too: bool) -> None:
    driver = started(temporary)
    (folder,) = temporary.glob(f"{PREFIX}*")
    watchers = watching(folder)
    assert len(watchers) == 1
    if watcher_too:  # as where a container or a session ends
        os.kill(watchers[0], signal.SIGKILL)
        for process in {*processes(folder)} - {driver.pid}:
            os.kill(process, signal.SIGKILL)
    driver.kill()
    driver.wait()
    if watcher_too:
        assert folder.is_dir()
        started(temporary).communicate(b"\n", timeout=60)
    for _ in range(300):
        if not folder.exists():
            break
        time.sleep(0.1)
    assert not list(temporary.iterdir())
    assert processes(folder) == []
