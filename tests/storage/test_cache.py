import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from boneseg.errors import SettingsError, StoreError
from boneseg.storage.cache import IN_USE_SECONDS, Cache
from boneseg.storage.catalogue import ObjectRef
from boneseg.storage.client import ObjectInfo, ObjectStore, etag_of
from boneseg.storage.hashing import sha256_file
from boneseg.storage.workspace import Workspace


@pytest.fixture
def cache(workspace: Workspace) -> Cache:
    return Cache(workspace.cache, workspace.store)


def put(cache: Cache, key: str, data: bytes) -> ObjectRef:
    cache.store.write(key, data)
    item = cache.store.stat(key)
    assert item is not None
    return cache.fetch_new(item)[1]


def leave_unused(path: Path, seconds: float = 2 * IN_USE_SECONDS) -> None:
    before = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(before, path.stat().st_mtime_ns))


def test_what_is_cached_needs_no_store(cache: Cache) -> None:
    ref = put(cache, "a", b"content")
    cache.store.delete("a")
    assert cache.fetch(ref).read_bytes() == b"content"
    assert sha256_file(cache.fetch(ref)) == ref.sha256


def test_a_damaged_file_is_fetched_again(cache: Cache) -> None:
    ref = put(cache, "a", b"content")
    cache.fetch(ref).write_bytes(b"CONTENT")  # same length
    assert cache.fetch(ref).read_bytes() == b"content"


def test_an_object_that_changed_is_refused(cache: Cache) -> None:
    ref = put(cache, "a", b"content")
    cache.fetch(ref).unlink()
    cache.store.write("a", b"CONTENT")
    with pytest.raises(StoreError, match=r"changed since it was listed; run 'boneseg pull'"):
        cache.fetch(ref)
    assert not list(cache.folder.rglob("*partial/*"))


def test_an_object_that_is_gone_is_named(cache: Cache) -> None:
    ref = put(cache, "raw/a", b"content")
    cache.fetch(ref).unlink()
    cache.store.delete("raw/a")
    with pytest.raises(StoreError, match=r"raw/a is not there"):
        cache.fetch(ref)


def test_an_object_that_changed_since_it_was_listed_is_known_by_what_was_fetched(cache: Cache) -> None:
    cache.store.write("a", b"content")
    (listed,) = cache.store.list("a")
    cache.store.write("a", b"other content")
    path, ref = cache.fetch_new(listed)
    (now,) = cache.store.list("a")
    assert path.read_bytes() == b"other content"
    assert (ref.etag, ref.size, ref.sha256) == (now.etag, now.size, sha256_file(path))


def test_an_object_that_changes_twice_while_it_is_read_is_known_by_one_version(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.store.write("a", b"first")
    (listed,) = cache.store.list("a")
    versions = iter([b"second", b"third"])
    download = ObjectStore.download

    def changing(store: ObjectStore, key: str, path: Path) -> str:
        etag = download(store, key, path)
        for data in versions:
            store.write(key, data)
            break
        return etag

    monkeypatch.setattr(ObjectStore, "download", changing)
    path, ref = cache.fetch_new(listed)
    tied = {etag_of(path): sha256_file(path)}
    assert tied == {ref.etag: ref.sha256}


def test_an_object_that_never_stands_still_is_refused(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store.write("a", b"content")
    (listed,) = cache.store.list("a")
    download = ObjectStore.download

    def changing(store: ObjectStore, key: str, path: Path) -> str:
        store.write(key, os.urandom(7))
        return download(store, key, path)

    monkeypatch.setattr(ObjectStore, "download", changing)
    with pytest.raises(StoreError, match="changes while it is read"):
        cache.fetch_new(listed)


class Encrypting(ObjectStore):
    """A store whose ETags are no MD5, as with server-side encryption."""

    def download(self, key: str, path: Path) -> str:
        super().download(key, path)
        return "0" * 32

    def stat(self, key: str) -> ObjectInfo | None:
        return ObjectInfo(key, 7, "0" * 32)


def test_etag_that_is_no_md5_is_accepted_after_a_second_look(cache: Cache) -> None:
    store = cache.store
    store.write("a", b"content")
    cache.store = Encrypting(store.endpoint, store.bucket, store.credentials)
    path, ref = cache.fetch_new(ObjectInfo("a", 7, "0" * 32))
    assert path.read_bytes() == b"content"
    assert ref.etag == "0" * 32


def test_object_of_several_parts_is_fetched(cache: Cache, tmp_path: Path) -> None:
    data = os.urandom(12 * 2**20)
    (tmp_path / "big").write_bytes(data)
    cache.store.upload(tmp_path / "big", "big")
    item = cache.store.stat("big")
    assert item is not None
    assert cache.fetch_new(item)[0].read_bytes() == data


def test_least_recently_fetched_files_go_first(workspace: Workspace) -> None:
    cache = Cache(workspace.cache, workspace.store, limit_bytes=3000)
    refs = [put(cache, str(number), bytes([number]) * 1000) for number in range(3)]
    for age, ref in enumerate(reversed(refs), start=2):
        leave_unused(cache.fetch(ref), age * IN_USE_SECONDS)
    cache.fetch(refs[0])  # the oldest is used again
    put(cache, "3", b"3" * 1000)
    left = [ref.key for ref in refs if (cache.folder / "objects" / ref.sha256[:2] / ref.sha256).exists()]
    assert left == ["0", "2"]


def test_files_in_use_are_not_evicted(workspace: Workspace) -> None:
    cache = Cache(workspace.cache, workspace.store, limit_bytes=10)
    refs = [put(cache, str(number), bytes([number]) * 1000) for number in range(3)]
    for ref in refs:
        workspace.store.delete(ref.key)
        assert cache.fetch(ref).stat().st_size == 1000


def test_leftovers_of_killed_downloads_are_removed(cache: Cache) -> None:
    left = cache.folder / "partial" / "dead"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    long_ago = time.time() - 2 * 86400
    os.utime(left, (long_ago, long_ago))
    put(cache, "a", b"content")
    assert not left.exists()


def test_named_files_are_fetched_once(cache: Cache) -> None:
    cache.store.write("models/m", b"weights")
    assert cache.fetch_key("models/m", "m/weights").read_bytes() == b"weights"
    cache.store.delete("models/m")
    assert cache.fetch_key("models/m", "m/weights").read_bytes() == b"weights"
    with pytest.raises(ValueError):
        cache.fetch_key("models/m", "../../m")


def fetch_size(cache: Cache, ref: ObjectRef) -> int:
    return cache.fetch(ref).stat().st_size


def test_threads_and_processes_share_a_cache(workspace: Workspace) -> None:
    cache = Cache(workspace.cache, workspace.store)
    refs = [put(cache, str(number), os.urandom(200_000)) for number in range(4)]
    for ref in refs:
        cache.fetch(ref).unlink()
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(fetch_size, [cache] * 32, refs * 8)) == {200_000}
    for ref in refs:
        cache.fetch(ref).unlink()
    with get_context("spawn").Pool(2) as processes:
        assert set(processes.starmap(fetch_size, [(cache, ref) for ref in refs * 2])) == {200_000}


def test_limit_comes_from_the_environment(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONESEG_CACHE_GB", "1.5")
    assert Cache(workspace.cache, workspace.store).limit_bytes == 1.5 * 2**30
    for wrong in ("much", "-1", "inf"):
        monkeypatch.setenv("BONESEG_CACHE_GB", wrong)
        with pytest.raises(SettingsError, match="BONESEG_CACHE_GB"):
            Cache(workspace.cache, workspace.store)


def test_place_that_cannot_be_written_is_told(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    workspace.store.write("a", b"content")
    with pytest.raises(StoreError, match="cannot write to the cache"):
        Cache(tmp_path / "file", workspace.store).fetch_new(ObjectInfo("a", 7, ""))


def test_full_disk_is_told_and_leaves_nothing(workspace: Workspace) -> None:
    workspace.store.write("a", os.urandom(500_000))
    cache = Cache(workspace.cache, workspace.store)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StoreError, match="free some space"):
            cache.fetch_new(ObjectInfo("a", 500_000, ""))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in cache.folder.rglob("*") if path.is_file()]
