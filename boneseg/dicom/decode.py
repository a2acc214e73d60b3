"""Compressed pixels, decoded in processes of their own: damaged data can end a decoder, but nothing else."""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID

from boneseg.dicom.file import damaged
from boneseg.errors import SeriesError

_MOST_WORKERS = 4
_SECONDS_A_FRAME = 120.0
_PACKAGES = Path(__file__).resolve().parents[2]


class _DeadError(Exception):
    """The process ended, or gave no answer in time."""


class _Worker:
    """One decoding process."""

    def __init__(self) -> None:
        search = os.pathsep.join([str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "boneseg.dicom.decode_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._out, selectors.EVENT_READ)
        self._rest = b""
        try:
            self.answer()
        except _DeadError as error:
            raise SeriesError(
                f"the process that decodes compressed pixels does not start ({sys.executable})"
            ) from error

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: dict[str, Any]) -> None:
        try:
            self._in.write(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise _DeadError from error

    def answer(self) -> tuple[dict[str, Any], bytearray]:
        """Return the head of a frame and its pixels, or of an error and nothing."""
        until = time.monotonic() + _SECONDS_A_FRAME
        while b"\n" not in self._rest:
            self._rest += self._read(1 << 16, until)
        line, self._rest = self._rest.split(b"\n", 1)
        head = json.loads(line)
        if "error" in head:
            return head, bytearray()
        size = int(np.prod(head["shape"])) * np.dtype(head["dtype"]).itemsize
        pixels = bytearray(self._rest[:size])
        self._rest = self._rest[size:]
        while len(pixels) < size:
            pixels += self._read(size - len(pixels), until)
        return head, pixels

    def end(self) -> None:
        self._ready.close()
        for pipe in (self._in, self._out):
            with suppress(OSError):
                pipe.close()
        self._process.kill()
        self._process.wait()

    def _read(self, size: int, until: float) -> bytes:
        if not self._ready.select(max(until - time.monotonic(), 0)):
            raise _DeadError
        data = self._out.read(size)
        if not data:
            raise _DeadError
        return data


class _Pool:
    """Processes that wait for work; a new one starts when all others are busy."""

    def __init__(self) -> None:
        self._free: list[_Worker] = []
        self._lock = threading.Lock()
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._places = threading.BoundedSemaphore(max(1, min(_MOST_WORKERS, cpus)))

    @contextmanager
    def worker(self) -> Iterator[_Worker]:
        """Lend a process; unless the work with it came to its end, it is not used again."""
        with self._places:
            with self._lock:
                worker = self._free.pop() if self._free else None
            if worker is not None and not worker.lives:
                worker.end()
                worker = None
            worker = worker or _Worker()
            done = False
            try:
                yield worker
                done = True
            finally:
                if done:
                    with self._lock:
                        self._free.append(worker)
                else:
                    worker.end()

    def close(self) -> None:
        with self._lock:
            while self._free:
                self._free.pop().end()


_pool = _Pool()


@atexit.register
def _close() -> None:
    _pool.close()


def _after_fork() -> None:
    global _pool  # noqa: PLW0603 - the parent's processes answer the parent only
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def decoded(path: Path, syntax: str, shape: tuple[int, int, int], memory: int) -> Iterator[NDArray[Any]]:
    """Decode the frames of a file one after the other.

    Args:
        path: the file; its header says that its pixels are compressed.
        syntax: transfer syntax, for messages.
        shape: (frames, rows, columns) by the header.
        memory: bytes that decoding may take.

    Yields:
        Stored values, (rows, columns).

    Raises:
        SeriesError: there is no decoder for them, or the data are damaged.
    """
    error = why = ""
    name = UID(syntax).name
    with _pool.worker() as worker:
        try:
            worker.ask({"path": str(path.absolute()), "frames": shape[0], "memory": memory})
            for _ in range(shape[0]):
                head, pixels = worker.answer()
                error, why = head.get("error", ""), head.get("why", "")
                if error:
                    break
                if tuple(head["shape"]) != shape[1:]:
                    raise _DeadError
                yield np.frombuffer(pixels, dtype=np.dtype(head["dtype"])).reshape(shape[1:])
        except _DeadError as dead:
            raise damaged(path, f"the compressed pixels are damaged: {name} data that end the decoder") from dead
    if error == "unsupported":
        raise SeriesError(f"{path.name}: compressed as {name}, which cannot be decoded; decompress it")
    if error:
        raise damaged(path, f"the compressed pixels are damaged: {why or f'{name} data that cannot be decoded'}")
