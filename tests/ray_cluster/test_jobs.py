"""Jobs whose processes die: it is said how, they are tried once more, and the others go on."""

import os
import signal

import pytest

from boneseg.errors import DataError
from boneseg.ray_cluster.jobs import run_jobs
from boneseg.ray_cluster.outcome import JOB_STATE, Say
from boneseg.storage.workspace import Workspace


def job(name: str, say: Say, slower: int) -> None:
    """Die, now or always, or do the work."""
    say({JOB_STATE: "begun"})
    if name.startswith("SIG") and (slower == 0 or "always" in name):
        os.kill(os.getpid(), signal.Signals[name.partition(" ")[0]])
    if name == "wrong":
        raise DataError(f"nothing to train on, asked {slower + 1} times")
    say({"result": slower})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_dies_is_tried_once_more_in_a_slower_way_and_says_of_what(workspace: Workspace) -> None:
    names = ("fine", "SIGSEGV once", "SIGABRT always", "SIGKILL always", "wrong")
    outcomes = run_jobs("deaths", workspace, names, job, parallel=1)
    assert list(outcomes) == list(names)
    assert (outcomes["fine"].error, outcomes["fine"].metrics["result"]) == (None, 0)
    assert (outcomes["SIGSEGV once"].error, outcomes["SIGSEGV once"].metrics["result"]) == (None, 1)
    assert "died by signal SIGABRT (6), and so it did before" in (outcomes["SIGABRT always"].error or "")
    assert "died by signal SIGKILL (9)" in (outcomes["SIGKILL always"].error or "")
    assert outcomes["wrong"].error == "nothing to train on, asked 1 times"
