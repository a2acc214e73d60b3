"""Waiting for a store that answered before and is away now: said in the log, bounded, then gone on with."""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from dataclasses import dataclass

from boneseg.errors import SettingsError, StoreError

LIMIT_VARIABLE = "BONESEG_STORE_WAIT_SECONDS"
DEFAULT_LIMIT_SECONDS = 900.0
SAY_FIRST_SECONDS, SAY_EVERY_SECONDS = 1.0, 60.0
"""A single failure is not worth a line: most are gone at the second try."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_outages: dict[str, _Outage] = {}
_answered: set[str] = set()


class StoreAwayError(StoreError):
    """The store does not answer, or says that it cannot now: the same request may succeed later."""

    transient = True


@dataclass
class _Outage:
    since: float
    said: float


def limit_seconds() -> float:
    """Return how long to wait: ``BONESEG_STORE_WAIT_SECONDS``, else a quarter of an hour.

    Raises:
        SettingsError: it is not a number of seconds.
    """
    given = os.environ.get(LIMIT_VARIABLE)
    try:
        limit = DEFAULT_LIMIT_SECONDS if given is None else float(given)
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise SettingsError(f"{LIMIT_VARIABLE}={given!r} must be a number of seconds, 0 or more")
    return limit


def answered(endpoint: str) -> bool:
    """Say whether an endpoint ever answered this process, or the one that sent it its store."""
    return endpoint in _answered


def note_answer(endpoint: str) -> None:
    """Note that an endpoint answers (again)."""
    _answered.add(endpoint)
    if endpoint in _outages:
        with _lock:
            outage = _outages.pop(endpoint, None)
        if outage is not None:
            _log.warning("%s answers again after %.0f seconds", endpoint, time.monotonic() - outage.since)


class Patience:
    """How one request waits. Several that wait for one endpoint at the same time speak with one voice."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._limit = limit_seconds() if answered(endpoint) else 0.0
        self._until = time.monotonic() + self._limit
        self._pause = FIRST_PAUSE_SECONDS

    def wait(self, error: StoreAwayError) -> None:
        """Wait before the next try.

        Raises:
            StoreAwayError: the one given, where the endpoint never answered or the time is up.
        """
        now = time.monotonic()
        if now >= self._until:
            raise error
        self._say(error, now)
        time.sleep(min(self._pause * random.uniform(0.5, 1), self._until - now))
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _say(self, error: StoreAwayError, now: float) -> None:
        with _lock:
            outage = _outages.get(self._endpoint)
            if outage is None:
                _outages[self._endpoint] = _Outage(now, now - SAY_EVERY_SECONDS + SAY_FIRST_SECONDS)
                return
            if now - outage.said < SAY_EVERY_SECONDS:
                return
            outage.said = now
        left = max(self._until - now, 0) / 60
        _log.warning("%s; waiting for it, %.0f minutes more (%s)", error, math.ceil(left), LIMIT_VARIABLE)
