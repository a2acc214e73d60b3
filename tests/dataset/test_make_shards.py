"""The processes that prepare series leave nothing in the temporary folder, however they end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from boneseg.dataset import make_shards
if __name__ == "__main__":
    with ProcessPoolExecutor(1, make_shards._processes(), make_shards._start_worker) as pool:
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
