"""The same work on many items, in processes of this machine or of a cluster: what both ways have in common."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: exactly one of ``result``, ``error`` and ``lost`` says it.

    Attributes:
        item: that was worked on.
        result: of the work.
        error: what the work raised.
        lost: what its process died of, each time that it was tried, such as ``its process was killed twice``; it goes
            on with where, and what that probably means.
    """

    item: Item
    result: Result | None = None
    error: Exception | None = None
    lost: str = ""


@dataclass(frozen=True)
class Need:
    """What the work on an item takes; a cluster sees to it that a node has it, this machine is as large as it is.

    Attributes:
        memory: bytes at its peak.
        network: whether it runs a network: on a GPU where the cluster has one, else on several CPUs.
    """

    memory: int
    network: bool = False


class Pool(Protocol):
    """Processes that share the work on items."""

    def map(
        self, work: Callable[[Item], Result], items: Sequence[Item], need: Callable[[Item], Need]
    ) -> Generator[Outcome[Item, Result], None, None]:
        """Work on items and yield what became of each, in the order in which they are done.

        An item whose process is lost is tried once more, and costs the others nothing. Few more items than there are
        processes are under way at any time. Whoever stops before the end closes the iterator: that ends what is under
        way.

        Args:
            work: takes one item; it and the items cross process borders, and it may be begun twice.
            items: any number.
            need: what the work on an item takes.
        """


def attempt(work: Callable[[Item], Result], item: Item) -> tuple[Result | None, Exception | None]:
    """Return the result of the work, or what it raised."""
    try:
        return work(item), None
    except Exception as error:  # a value for whoever asked; what it means is theirs to say
        return None, _portable(error)


def _portable(error: Exception) -> Exception:
    """Return the error, or one that names it where it cannot cross a process border: it would break the pool there."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}, which cannot cross a process border")
    return error
