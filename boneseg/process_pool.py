"""Work on many items in processes of this machine."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TypeVar

from boneseg.pool import Item, Need, Outcome, Result, attempt
from boneseg.storage.scratch import scratch_folder

SOCKET_PREFIX = "bsmp-"
AHEAD = 2
"""Items that are handed over for each process: one that is done finds the next one waiting."""
_KILLED = "its process was killed twice, the second time with no other beside it, probably for want of memory"

Tried = tuple[Result | None, Exception | None]
Value = TypeVar("Value")

log = logging.getLogger(__name__)


class ProcessPool:
    """Processes of this machine. With one, the work is done in this very process, and dies with it.

    Args:
        processes: how many at most.
        preload: module that each process needs; it is imported once for all of them.
    """

    def __init__(self, processes: int, preload: str) -> None:
        self._most = processes
        self._preload = preload

    def map(
        self, work: Callable[[Item], Result], items: Sequence[Item], need: Callable[[Item], Need]
    ) -> Generator[Outcome[Item, Result], None, None]:
        """See ``pool.Pool``. What items need is not asked: how many processes fit is the caller's to say."""
        processes = min(self._most, len(items))
        tried = partial(attempt, work)
        if processes <= 1:
            for item in items:
                yield _outcome(item, tried(item))
            return
        waiting = deque(items)
        while waiting:
            left: list[Item] = []
            yield from self._together(tried, waiting, processes, left)
            if not left:
                return
            log.warning(
                "a process was killed, probably for want of memory; the %d items under way go one by one", len(left)
            )
            guilty = False
            for item in left:
                outcome = self._alone(tried, item)
                guilty = guilty or bool(outcome.lost)
                yield outcome
            if not guilty:  # alone, each of them had memory enough
                processes = max(1, processes // 2)

    def _together(
        self, tried: Callable[[Item], Tried[Result]], waiting: deque[Item], processes: int, left: list[Item]
    ) -> Iterator[Outcome[Item, Result]]:
        """Work on items until all are done or a process is killed; ``left`` gets what was under way then."""
        with _executor(processes, self._preload) as pool:
            under_way: dict[Future[Tried[Result]], Item] = {}
            while waiting or under_way:
                try:
                    while waiting and len(under_way) < AHEAD * processes:
                        with _interrupt_held_back():
                            under_way[pool.submit(tried, waiting[0])] = waiting[0]
                        waiting.popleft()
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        found = future.result()
                        yield _outcome(under_way.pop(future), found)
                except BrokenProcessPool:
                    for future, item in under_way.items():  # some may have been done in time
                        if future.done() and future.exception() is None:
                            yield _outcome(item, future.result())
                        else:
                            left.append(item)
                    return

    def _alone(self, tried: Callable[[Item], Tried[Result]], item: Item) -> Outcome[Item, Result]:
        with _executor(1, self._preload) as pool:
            try:
                with _interrupt_held_back():
                    future = pool.submit(tried, item)
                return _outcome(item, future.result())
            except BrokenProcessPool:
                return Outcome(item, lost=_KILLED)


def _outcome(item: Item, found: Tried[Result]) -> Outcome[Item, Result]:
    result, error = found
    return Outcome(item, result, error)


@contextmanager
def _executor(processes: int, preload: str) -> Iterator[ProcessPoolExecutor]:
    """Yield processes that are ended at once where the block is left before its end."""
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(processes, forkserver(preload), start_worker) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise


@lru_cache(maxsize=1)
def forkserver(preload: str) -> ForkServerContext:
    """Return how workers are started.

    Forked from a server without threads, which has imported all that a worker needs: neither inherited locks nor
    seconds of imports in each worker. Its socket lies in a folder that the next one removes if this process is killed;
    Python would leave it for good.

    Args:
        preload: module with all that a worker needs.
    """
    held = ExitStack()
    folder = held.enter_context(scratch_folder(Path(tempfile.gettempdir()), SOCKET_PREFIX))
    atexit.register(held.close)
    # Where Python looks for its folder before it makes one; there is no public way to name it.
    configuration: dict[str, object] = getattr(multiprocessing.current_process(), "_config", {})
    configuration.setdefault("tempdir", str(folder))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Let Ctrl-C wait while a process is started: one that is started by half would stay for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupts: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if interrupts:
            raise KeyboardInterrupt


def start_worker() -> None:
    """Make a process one that ends with, and is interrupted by, nobody but the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it was killed and can no longer do so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
