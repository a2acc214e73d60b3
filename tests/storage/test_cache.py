import hashlib
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
from boneseg.storage.client import ObjectInfo, ObjectStore
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
    with pytest.raises(StoreError, match=r"raw/a was deleted since it was listed; run 'boneseg pull'"):
        cache.fetch(ref)


def test_an_object_that_changed_after_the_listing_comes_with_its_own_etag_and_hash(cache: Cache) -> None:
    cache.store.write("a", b"content")
    listed = cache.store.stat("a")
    assert listed is not None
    cache.store.write("a", b"another content")
    path, ref = cache.fetch_new(listed)
    now = cache.store.stat("a")
    assert now is not None
    assert (ref.size, ref.etag, ref.sha256) == (now.size, now.etag, hashlib.sha256(b"another content").hexdigest())
    assert path.read_bytes() == b"another content"


class Encrypting(ObjectStore):
    """A store whose ETags are no MD5 of the content, as with encryption on the server; ``unstable`` ones change."""

    unstable = False
    fetched = 0

    def download(self, key: str, path: Path) -> ObjectInfo:
        info = super().download(key, path)
        self.fetched += 1
        return ObjectInfo(info.key, info.size, f"{self.fetched if self.unstable else 0:032d}")


def test_etag_that_is_no_md5_is_accepted_after_a_second_look(cache: Cache) -> None:
    store = Encrypting(cache.store.endpoint, cache.store.bucket, cache.store.credentials)
    store.write("a", b"content")
    path, ref = Cache(cache.folder, store).fetch_new(ObjectInfo("a", 7, ""))
    assert path.read_bytes() == b"content"
    assert ref.etag == "0" * 32
    assert store.fetched == 2


def test_an_object_that_changes_all_the_time_is_refused(cache: Cache) -> None:
    store = Encrypting(cache.store.endpoint, cache.store.bucket, cache.store.credentials)
    store.unstable = True
    store.write("a", b"content")
    with pytest.raises(StoreError, match="changes while it is read"):
        Cache(cache.folder, store).fetch_new(ObjectInfo("a", 7, ""))


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
