"""Processes of this machine: what one item does to its process costs the others nothing, and nothing stays behind."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from boneseg.pool import Need, Outcome
from boneseg.process_pool import ProcessPool

PROGRAM = """
import os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from boneseg.process_pool import forkserver, start_worker
if __name__ == "__main__":
    with ProcessPoolExecutor(1, forkserver("boneseg.dataset.make_shards"), start_worker) as pool:
        assert pool.submit(abs, -3).result() == 3
        print(sorted(os.listdir(os.environ["TMPDIR"])), flush=True)
        if sys.argv[1] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_killed_again_and_again_no_more_than_one_socket_stays(tmp_path: Path) -> None:
    temporary, program = tmp_path / "t", tmp_path / "program.py"
    temporary.mkdir()
    program.write_text(PROGRAM)

    def run(how: str) -> int:
        command = [sys.executable, str(program), how]
        return subprocess.run(command, env={**os.environ, "TMPDIR": str(temporary)}, check=False).returncode

    for _ in range(2):
        assert run("kill") == -signal.SIGKILL
        assert len(list(temporary.glob("bsmp-*/listener-*"))) == 1
        assert not list(temporary.glob("pymp-*"))
    assert run("end") == 0
    assert not list(temporary.glob("*mp-*"))


class AwkwardError(Exception):
    """Cannot be made again from what it was pickled as."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


def work(item: str) -> int:
    """Return a number, raise, or cost the process, once or each time."""
    word, _, path = item.partition(" ")
    if word == "wrong":
        raise ValueError("no number")
    if word == "awkward":
        raise AwkwardError("a", "b")
    if word == "always" or (word == "once" and not Path(path).exists()):
        if path:
            Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return len(word)


def need(item: str) -> Need:
    return Need(1)


def mapped(items: list[str], processes: int) -> dict[str, Outcome[str, int]]:
    outcomes = list(ProcessPool(processes, "boneseg.pool").map(work, items, need))
    assert sorted(outcome.item for outcome in outcomes) == sorted(items)
    return {outcome.item: outcome for outcome in outcomes}


def test_what_kills_its_process_twice_is_said_and_all_others_are_done(tmp_path: Path) -> None:
    once = f"once {tmp_path / 'mark'}"
    items = ["a", "bb", once, "always", "wrong", "awkward", *(f"x{number}" for number in range(8))]
    found = mapped(items, processes=2)
    assert {item: outcome.result for item, outcome in found.items() if outcome.result is not None} == {
        "a": 1,
        "bb": 2,
        once: 4,
        **{f"x{number}": 2 for number in range(8)},
    }
    assert "was killed twice" in found["always"].lost
    assert [item for item, outcome in found.items() if outcome.lost] == ["always"]
    assert isinstance(found["wrong"].error, ValueError)
    assert "AwkwardError" in str(found["awkward"].error)


def test_one_process_is_this_one() -> None:
    found = mapped(["a", "wrong"], processes=1)
    assert found["a"].result == 1
    assert isinstance(found["wrong"].error, ValueError)


def test_who_stops_early_ends_what_is_under_way(tmp_path: Path) -> None:
    items = [str(tmp_path / str(number)) for number in range(50)]
    with closing(ProcessPool(2, "boneseg.pool").map(touched, items, need)) as outcomes:
        next(outcomes)
    assert len(list(tmp_path.iterdir())) < 20


def touched(item: str) -> None:
    Path(item).touch()
