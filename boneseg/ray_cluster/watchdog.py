"""Ends the processes of a local Ray cluster when the one that started it is gone, however it went.

``python boneseg/ray_cluster/watchdog.py MARK PID FOLDER`` with the starter's end of a pipe as standard input: a line
says that all is well and ends the watch; the end of the pipe without one says that the starter died. Then Ray's folder
goes too. It imports nothing of boneseg.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

VARIABLE = "BONESEG_CLUSTER"
"""Every process of the cluster has the mark under this name in its environment."""
QUIET_ROUNDS, ROUND_SECONDS, MOST_ROUNDS = 3, 0.3, 100


def members(mark: str, starter: int) -> list[int]:
    """Return the numbers of the processes of a cluster.

    Args:
        mark: in the environment of all of them; but those that change their title overwrite their environment.
        starter: number of the process that started Ray. It is the end of the name of Ray's session folder, in which
            every one of its processes has its log open.
    """
    wanted = f"{VARIABLE}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) in (os.getpid(), starter):
            continue
        try:
            marked = wanted in (folder / "environ").read_bytes().split(b"\0")
            if marked or any(_of_session(file, starter) for file in (folder / "fd").iterdir()):
                found.append(int(folder.name))
        except OSError:
            continue  # somebody else's, or gone
    return found


def _of_session(file: Path, starter: int) -> bool:
    try:
        folders = file.readlink().parts
    except OSError:
        return False
    return any(name.startswith("session_") and name.endswith(f"_{starter}") for name in folders)


def end(mark: str, starter: int, quiet_rounds: int = QUIET_ROUNDS) -> None:
    """Kill a cluster's processes, until nothing new appears."""
    quiet = 0
    for _ in range(MOST_ROUNDS):
        numbers = members(mark, starter)
        for number in numbers:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
        quiet = 0 if numbers else quiet + 1
        if quiet == quiet_rounds:
            return
        time.sleep(ROUND_SECONDS)


if __name__ == "__main__" and not sys.stdin.buffer.readline():
    end(sys.argv[1], int(sys.argv[2]))
    shutil.rmtree(sys.argv[3], ignore_errors=True)
