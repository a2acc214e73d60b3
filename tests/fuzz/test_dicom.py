"""Damaged CT files: each is read as pydicom reads it or refused in words, in bounded memory, and none is lost."""

import resource
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.header import read_frames
from boneseg.dicom.pixels import read_planes
from boneseg.dicom.series import read_series
from boneseg.errors import SeriesError
from boneseg.geometry import axial
from boneseg.ingest.facts import Kind, ObjectFacts, inspect
from boneseg.memory_budget import READ_VARIABLE
from boneseg.storage.catalogue import ObjectRef
from tests.ct_files import body
from tests.fuzz.dicom_files import SHAPE, SPACING, deflate_bomb, mutate, originals, reference

SEED, MUTATIONS, SECONDS = 20, 300, 20.0
MOST_MB = 400


def facts_of(path: Path) -> ObjectFacts:
    return inspect(path, ObjectRef(key="raw/a/slice.dcm", size=path.stat().st_size, etag="", sha256=""), b"secret")


def peak_mb() -> int:
    """Return the most memory that this process or one of its children has had so far; other tests count too."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) >> 10


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return originals(tmp_path_factory.mktemp("originals"))


def test_the_undamaged_files_are_read_as_pydicom_reads_them(files: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in files.items():
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(content)
        assert facts_of(path).kind == (Kind.VOLUME if name == "enhanced" else Kind.SLICE)
        assert_as_pydicom(path, name)


def test_damaged_files_are_read_as_pydicom_reads_them_or_refused_in_words(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    random, until = np.random.default_rng(SEED), time.monotonic() + SECONDS
    path, names, used, before = tmp_path / "slice.dcm", sorted(files), 0, peak_mb()
    reasons = []
    for number in range(MUTATIONS):
        name = names[number % len(names)]
        way, content = mutate(files[name], random)
        path.write_bytes(content)
        facts = facts_of(path)
        if facts.kind in (Kind.SLICE, Kind.VOLUME):
            used += 1
            assert_as_pydicom(path, f"{number}: {name}, {way}")
        else:
            assert facts.reason, f"{number}: {name}, {way}"
            assert "report this" not in facts.reason, f"{number}: {name}, {way}: {facts.reason}"
            reasons.append(facts.reason)
        if time.monotonic() > until:  # a slow machine does a part of them
            break
    assert used > 10
    untold = [reason for reason in reasons if "cut short or damaged;" in reason]
    assert len(untold) < 0.1 * len(reasons)
    assert peak_mb() < before + MOST_MB


def test_damaged_jpeg_2000_never_ends_the_process(shared_series: Path, tmp_path: Path) -> None:
    whole = sorted((shared_series / "totalsegmentator-thorax-20" / "dicom").iterdir())[8].read_bytes()
    random, path = np.random.default_rng(SEED), tmp_path / "slice.dcm"
    start = whole.index(b"\xff\x4f\xff\x51")
    for _ in range(12):
        content = bytearray(whole)
        for _ in range(int(random.integers(1, 20))):
            # The first bytes of a codestream say how large everything is: there a flipped bit does most.
            content[start + int(random.integers(4, 200))] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(bytes(content))
        facts = facts_of(path)
        assert facts.kind == Kind.SLICE or facts.reason


def assert_as_pydicom(path: Path, what: str) -> None:
    frames = read_frames(path)
    assert frames is not None, what
    read = np.stack(list(read_planes(path, frames)))
    expected = reference(path)
    assert expected is not None, what
    assert np.array_equal(read.ravel(), expected.ravel()), what


def test_what_cannot_be_read_in_a_series_ends_it_in_words(tmp_path: Path) -> None:
    good = write_ct_series(tmp_path / "good", body(1, SHAPE)[0], axial(SHAPE, SPACING), identity="a")
    random, bad = np.random.default_rng(SEED), tmp_path / "bad.dcm"
    for _ in range(20):
        bad.write_bytes(mutate(good[1].read_bytes(), random)[1])
        with suppress(SeriesError):
            read_series([good[0], bad, *good[2:]])


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(READ_VARIABLE, "96")
    plain = write_ct_series(tmp_path / "good", body(1, SHAPE)[0], axial(SHAPE, SPACING), identity="a")[0]
    bomb, before = tmp_path / "bomb.dcm", peak_mb()
    bomb.write_bytes(deflate_bomb(plain, megabytes=1500))
    assert bomb.stat().st_size < 3_000_000
    with ThreadPoolExecutor(8) as pool:
        for facts in pool.map(facts_of, [bomb] * 8):
            assert facts.kind == Kind.BROKEN
            assert READ_VARIABLE in facts.reason
    assert peak_mb() < before + MOST_MB
