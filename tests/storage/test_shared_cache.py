"""One cache for several processes: one download, nothing evicted that is in use, nothing torn, a full disk survived."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import numpy as np
import pytest

from boneseg.errors import StoreError
from boneseg.storage import cache as cache_module
from boneseg.storage.cache import IN_USE_SECONDS, Cache, CacheFullError
from boneseg.storage.catalogue import ObjectRef
from boneseg.storage.client import ObjectInfo, ObjectStore
from boneseg.storage.workspace import Workspace
from tests.storage.test_cache import leave_unused, put

SPAWN = get_context("spawn")


def place_of(cache: Cache, ref: ObjectRef) -> Path:
    return cache.folder / "objects" / ref.sha256[:2] / ref.sha256


def forgotten(cache: Cache, key: str, data: bytes) -> ObjectRef:
    """Put an object that the cache does not hold."""
    ref = put(cache, key, data)
    place_of(cache, ref).unlink()
    return ref


class CountingStore(ObjectStore):
    """Notes each download in a file, for downloads happen in several processes."""

    def __reduce__(self) -> tuple[type["CountingStore"], tuple[object, ...]]:
        return CountingStore, (self.endpoint, self.bucket, self.credentials)

    def download(self, key: str, path: Path) -> ObjectInfo:
        with Path(os.environ["DOWNLOADS"]).open("a") as notes:
            notes.write(f"{key}\n")
        return super().download(key, path)


def counting(cache: Cache, notes: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("DOWNLOADS", str(notes))
    store = CountingStore(cache.store.endpoint, cache.store.bucket, cache.store.credentials)
    return Cache(cache.folder, store, cache.limit_bytes)


def fetch_together(cache: Cache, refs: list[ObjectRef], together: Barrier) -> None:
    together.wait()
    for ref in refs:
        with cache.open(ref) as file:
            assert len(file.read()) == ref.size


def test_processes_that_want_the_same_objects_fetch_each_once(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = counting(Cache(workspace.cache, workspace.store), tmp_path / "notes", monkeypatch)
    refs = [forgotten(cache, f"shard-{number}", os.urandom(2_000_000)) for number in range(3)]
    (tmp_path / "notes").unlink()
    together = SPAWN.Barrier(3)
    workers = [SPAWN.Process(target=fetch_together, args=(cache, refs, together)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert sorted((tmp_path / "notes").read_text().split()) == ["shard-0", "shard-1", "shard-2"]


def hold_open(cache: Cache, ref: ObjectRef, held: Event, let_go: Event) -> None:
    mapped = np.memmap(cache.open(ref), mode="r")  # the file itself is closed, the map is not
    held.set()
    let_go.wait()
    assert bytes(mapped[:4]) == b"used"


@pytest.mark.parametrize("ended", ["closed", "killed"])
def test_a_file_that_another_process_has_mapped_is_evicted_only_after_it(workspace: Workspace, ended: str) -> None:
    cache = Cache(workspace.cache, workspace.store, limit_bytes=3000)
    ref = put(cache, "used", b"used" * 250)
    held, let_go = SPAWN.Event(), SPAWN.Event()
    user = SPAWN.Process(target=hold_open, args=(cache, ref, held, let_go))
    user.start()
    assert held.wait(60)
    leave_unused(place_of(cache, ref), 1000)  # by time it would be the first to go
    others = [put(cache, str(number), bytes([number]) * 1000) for number in range(4)]
    for age, other in enumerate(others):
        leave_unused(place_of(cache, other), 500 - age)
    put(cache, "new", b"n" * 1000)
    assert place_of(cache, ref).exists()
    assert [place_of(cache, other).exists() for other in others] == [False, False, False, True]

    if ended == "killed":
        assert user.pid is not None
        os.kill(user.pid, signal.SIGKILL)
    else:
        let_go.set()
    user.join()
    leave_unused(place_of(cache, others[3]), 10)
    put(cache, "newer", b"m" * 1000)
    assert not place_of(cache, ref).exists()


def test_what_was_opened_and_closed_needs_no_minute_of_grace(workspace: Workspace) -> None:
    cache = Cache(workspace.cache, workspace.store, limit_bytes=1500)
    ref = put(cache, "a", b"a" * 1000)
    with cache.open(ref) as file:
        assert file.read() == b"a" * 1000
    put(cache, "b", b"b" * 1000)
    assert not place_of(cache, ref).exists()


def test_more_than_the_cache_holds_is_fetched_again_and_again(workspace: Workspace) -> None:
    cache = Cache(workspace.cache, workspace.store, limit_bytes=2500)
    refs = [forgotten(cache, str(number), bytes([number]) * 1000) for number in range(6)]
    for _ in range(3):
        for ref in refs:
            with cache.open(ref) as file:
                assert file.read() == bytes([int(ref.key)]) * 1000
    held = sum(path.stat().st_size for path in (cache.folder / "objects").rglob("*") if path.is_file())
    assert held <= 3000


def die_in_the_middle(cache: Cache, ref: ObjectRef) -> None:
    class Dying(ObjectStore):
        def download(self, key: str, path: Path) -> ObjectInfo:
            path.write_bytes(b"torn")
            path.with_name(f".partial-0-{path.name}").write_bytes(b"torn")
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    store = cache.store
    Cache(cache.folder, Dying(store.endpoint, store.bucket, store.credentials)).fetch(ref)


def test_a_download_that_was_killed_is_never_taken_for_whole_and_leaves_nothing(workspace: Workspace) -> None:
    cache = Cache(workspace.cache, workspace.store)
    ref = forgotten(cache, "a", b"content")
    process = SPAWN.Process(target=die_in_the_middle, args=(cache, ref))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [path.read_bytes() for path in (cache.folder / "partial").iterdir()] == [b"torn", b"torn"]
    assert cache.fetch(ref).read_bytes() == b"content"
    assert not list((cache.folder / "partial").iterdir())


@pytest.mark.parametrize("damage", [b"", b"cont", b"CONTENT"])
def test_a_torn_file_in_its_place_is_fetched_again(workspace: Workspace, damage: bytes) -> None:
    cache = Cache(workspace.cache, workspace.store)
    ref = forgotten(cache, "a", b"content")
    place_of(cache, ref).write_bytes(damage)  # as a machine leaves it that lost power
    with cache.open(ref) as file:
        assert file.read() == b"content"


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, is_full: Callable[[], bool]) -> Iterator[None]:
    """Let downloads meet a full disk for as long as it is one."""
    whole = ObjectStore.download

    def download(self: ObjectStore, key: str, path: Path) -> ObjectInfo:
        if is_full():
            path.write_bytes(b"some")
            fault = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise StoreError(f"cannot write the download ({fault.strerror}); free some space there") from fault
        return whole(self, key, path)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "download", download)
        yield


def test_on_a_full_disk_others_make_room(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(workspace.cache, workspace.store)
    ref = forgotten(cache, "a", b"a" * 1000)
    oldest, older, recent = (put(cache, name, name.encode() * 200) for name in ("oldest", "older", "recent"))
    leave_unused(place_of(cache, oldest), 10 * IN_USE_SECONDS)
    leave_unused(place_of(cache, older), 5 * IN_USE_SECONDS)
    with full_disk(monkeypatch, lambda: place_of(cache, oldest).exists()):
        assert cache.fetch(ref).stat().st_size == 1000
    assert place_of(cache, older).exists()  # 1200 bytes were enough
    assert place_of(cache, recent).exists()


def test_a_disk_full_of_other_things_is_told_in_one_sentence(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(workspace.cache, workspace.store)
    ref = forgotten(cache, "a", b"content")
    with full_disk(monkeypatch, lambda: True):
        with pytest.raises(CacheFullError, match=r"No space left on device.*free some space"):
            cache.fetch(ref)
        with cache.open_in_memory(ref) as file:
            assert file.read() == b"content"
    assert not [path for path in (cache.folder / "partial").iterdir() if path.is_file()]
    assert cache.fetch(ref).read_bytes() == b"content"


def test_what_is_read_into_memory_is_checked_too(workspace: Workspace) -> None:
    cache = Cache(workspace.cache, workspace.store)
    ref = forgotten(cache, "a", b"content")
    cache.store.write("a", b"CONTENT")
    with pytest.raises(StoreError, match="changed since it was listed"):
        cache.open_in_memory(ref)


def test_the_cache_leaves_the_disk_some_room_for_others(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(workspace.cache, workspace.store)
    first = put(cache, "a", b"a" * 1000)
    leave_unused(place_of(cache, first))
    monkeypatch.setattr(cache_module, "_disk", lambda folder: (2**40, 2**29))  # 512 MB left
    put(cache, "b", b"b")
    assert not place_of(cache, first).exists()


def test_without_a_setting_the_limit_is_a_share_of_the_disk(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BONESEG_CACHE_GB", raising=False)
    disk = os.statvfs(workspace.folder)
    expected = disk.f_blocks * disk.f_frsize / 4
    assert Cache(workspace.cache, workspace.store).limit_bytes == pytest.approx(expected, rel=1e-6)
