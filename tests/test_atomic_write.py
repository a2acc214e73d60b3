"""Files that appear whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from boneseg.atomic_write import atomic_write, atomic_write_bytes


def test_a_reader_meets_the_old_content_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "weights.nii.gz"
    path.write_bytes(b"old")
    with atomic_write(path) as partial:
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert partial.parent == tmp_path
        assert partial.name.endswith(".nii.gz")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("sole", [False, True])
def test_what_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path, sole: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_write(path, sole_writer=sole) as partial:
            partial.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as first:
        first.write_bytes(b"first")
        with atomic_write(path) as second:
            second.write_bytes(b"second")
    assert path.read_bytes() == b"first"


def test_a_sole_writer_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path, sole_writer=True) as partial:
        partial.touch()
    partial.write_bytes(b"left")
    with atomic_write(path, sole_writer=True) as partial:
        assert not partial.exists()
        partial.write_bytes(b"new")
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("file", b"new")]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_private_file_is_never_open_to_others(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "key", private=True, durable=True) as partial:
            modes = [stat.S_IMODE(partial.stat().st_mode)]
            partial.write_bytes(b"secret")
            modes.append(stat.S_IMODE(partial.stat().st_mode))
    finally:
        os.umask(before)
    modes.append(stat.S_IMODE((tmp_path / "key").stat().st_mode))
    assert modes == [0o600] * 3
    assert (tmp_path / "key").read_bytes() == b"secret"


def test_a_durable_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "key", []

    def sync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((kind, path.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    atomic_write_bytes(path, b"x", durable=True)
    assert seen == [("file", False), ("folder", True)]
