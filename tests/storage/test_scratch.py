"""Folders for one use: private, gone afterwards, also where their process was killed."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

from boneseg.storage.scratch import IN_USE, remove_left, scratch_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from boneseg.storage.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), "work-") as folder:
    (folder / "half").write_bytes(b"x" * 1000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(parent: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(parent)], check=False)
    assert ended.returncode == -signal.SIGKILL


def test_only_its_user_enters_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with scratch_folder(tmp_path / "new", "work-") as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert stat.S_IMODE((folder / IN_USE).stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not list((tmp_path / "new").iterdir())


def test_kills_leave_no_more_than_the_last_one_and_what_is_in_use_stays(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, "work-") as mine:
        for _ in range(3):
            killed(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
        with scratch_folder(tmp_path, "work-") as other:
            assert set(tmp_path.iterdir()) == {mine, other}
        assert mine.is_dir()
    assert not list(tmp_path.iterdir())


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """A user's own folder of such a name, a file, and a link to elsewhere."""
    (tmp_path / "work-of-mine").mkdir()
    (tmp_path / "work-of-mine" / "thesis").write_text("years")
    (tmp_path / "work-file").write_text("kept")
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / IN_USE).touch()
    (tmp_path / "work-link").symlink_to(target)
    (tmp_path / "work-empty").mkdir()
    hours_ago = time.time() - 7200
    for path in (tmp_path / "work-of-mine", tmp_path / "work-empty"):
        os.utime(path, (hours_ago, hours_ago))
    (tmp_path / "work-just-made").mkdir()  # another process has not locked it yet
    remove_left(tmp_path, "work-")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"work-of-mine", "work-file", "work-link", "elsewhere", "work-just-made"}
    assert (target / IN_USE).exists()
