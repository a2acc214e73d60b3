"""A job's log, from its first line to its last, over connections that may end at any time.

A stream that ends says nothing of the job: its status does. Each new stream starts with the first line again, and what
was shown already is passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from boneseg.redaction import redacted

POLL_SECONDS, QUIET_SECONDS, LAST_SECONDS = 5.0, 120.0, 10.0
"""Between questions for the status; without a line, after which a stream is opened anew, since it may be dead; for the
last lines of a job that is over."""


@dataclass(frozen=True)
class Missing:
    """The end of a job that the cluster forgot, with the cluster's head as a rule."""

    status: str = "MISSING"
    message: str = ""
    error_type: str | None = None
    driver_exit_code: int | None = None


class Follower:
    """Follows one job.

    Args:
        client: Ray's ``JobSubmissionClient``.
        name: of the job.
        show: takes pieces of the log.
        patience: seconds for which a server that does not answer is waited for.
    """

    def __init__(self, client: Any, name: str, show: Callable[[str], None], patience: float) -> None:
        self._client, self._name, self._show, self._patience = client, name, show, patience
        self._shown = 0
        self._answered = time.monotonic()
        self.text = ""
        """The end of the log."""

    def run(self) -> Any | None:
        """Show the log until the job is over.

        Returns:
            What the server says of the job then (``Missing`` if it forgot it); none if it was away for too long.
        """
        return asyncio.run(self._until_over())

    async def _until_over(self) -> Any | None:
        while True:
            await self._one_stream()
            end = await self._end()
            if end is not None:
                await self._rest()
                return end
            if time.monotonic() - self._answered > self._patience:
                return None
            await asyncio.sleep(min(1.0, POLL_SECONDS))

    async def _one_stream(self) -> None:
        """Show what one connection brings, until it ends, is quiet for too long, or the job is over."""
        stream = self._client.tail_job_logs(self._name)
        position, quiet_since, over_since = 0, time.monotonic(), None
        coming = asyncio.ensure_future(anext(stream))
        try:
            while True:
                done, _ = await asyncio.wait({coming}, timeout=POLL_SECONDS)
                now = time.monotonic()
                if done:
                    piece = coming.result()
                    position, quiet_since, self._answered = position + len(piece), now, now
                    self._add(piece, position)
                    coming = asyncio.ensure_future(anext(stream))
                elif over_since is not None or await self._end() is not None:
                    over_since = over_since or now
                    if now - over_since > LAST_SECONDS:
                        return
                elif now - quiet_since > QUIET_SECONDS or now - self._answered > self._patience:
                    return
        except Exception:  # whatever it was: the status decides
            return
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            await stream.aclose()

    async def _end(self) -> Any | None:
        """Return what the server says of the job if it is over."""
        try:
            info = await asyncio.to_thread(self._client.get_job_info, self._name)
        except RuntimeError as error:
            if "does not exist" not in str(error):
                return None
            self._answered = time.monotonic()
            return Missing()
        except Exception:  # away, for now
            return None
        self._answered = time.monotonic()
        return info if info.status.is_terminal() else None

    async def _rest(self) -> None:
        """Show what no stream brought."""
        try:
            text = await asyncio.to_thread(self._client.get_job_logs, self._name)
        except Exception:  # its node may be gone
            return
        self._add(text, len(text))

    def _add(self, piece: str, position: int) -> None:
        """Show the part of a piece that is new.

        Args:
            piece: of the log.
            position: in the log, in characters, where the piece ends.
        """
        fresh = position - self._shown
        if fresh > 0:
            new = piece[-fresh:] if fresh < len(piece) else piece
            self._shown = position
            self.text = (self.text + new)[-20_000:]
            self._show(redacted(new))


def shown_lines(text: str) -> list[str]:
    """Return the lines of a log that say something."""
    return [line for line in redacted(text).splitlines() if line.strip()]
