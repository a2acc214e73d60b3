"""Ends the processes of a local Ray cluster when the one that started it is gone, however it went.

``python boneseg/train/watch.py MARK`` with the starter's end of a pipe as standard input: a line says that all is well
and ends the watch; the end of the pipe without one says that the starter died. Plain Python, no imports of boneseg.
"""

import os
import signal
import sys
import time
from pathlib import Path

VARIABLE = "BONESEG_CLUSTER"
"""Every process of the cluster has the mark under this name in its environment."""
QUIET_ROUNDS, ROUND_SECONDS, MOST_ROUNDS = 3, 0.3, 100


def marked(mark: str) -> list[int]:
    """Return the numbers of the processes that carry a mark, this one left out."""
    wanted = f"{VARIABLE}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue  # somebody else's, or gone
        if wanted in environment.split(b"\0") and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def end(mark: str, quiet_rounds: int = QUIET_ROUNDS) -> None:
    """Kill what carries the mark, until nothing new appears."""
    quiet = 0
    for _ in range(MOST_ROUNDS):
        numbers = marked(mark)
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
    end(sys.argv[1])
