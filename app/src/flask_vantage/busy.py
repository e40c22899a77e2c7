"""Tells when all threads of the server are busy: in the log once a minute, and as metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from loguru import logger

# Shorter than this is a burst.
MIN_BUSY_SECONDS = 5.0
_SECONDS_BETWEEN_LINES = 60.0


@dataclass(frozen=True)
class Running:
    """A request that has one of the app's threads since `started` (`time.monotonic()`)."""

    method: str
    path: str
    started: float


class BusyThreads:
    """Looks at the requests that hold the server's `threads`, and logs when that is all of them."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._since: float | None = None
        self._next_line = 0.0

    def watch(self, running: list[Running], waiting: int) -> None:
        """Call once a second, with the requests that hold a thread and the number of those that wait for one."""
        now = time.monotonic()
        if len(running) < self._threads:
            if self._since is not None and self._next_line:
                logger.info("Threads are free again, after {:.0f} s.", now - self._since)
            self._since, self._next_line = None, 0.0
            return
        if self._since is None:
            self._since = max(request.started for request in running)
        busy_seconds = now - self._since
        if busy_seconds < MIN_BUSY_SECONDS or now < self._next_line:
            return
        self._next_line = now + _SECONDS_BETWEEN_LINES
        since = datetime.now(UTC) - timedelta(seconds=busy_seconds)
        logger.bind(
            threads=self._threads,
            busy_since=since.isoformat(timespec="seconds"),
            busy_seconds=round(busy_seconds),
            requests_waiting=waiting,
        ).warning(
            "All {} threads are busy since {:%H:%M:%S} UTC, {} requests wait: {}. "
            "Raise VANTAGE_THREADS, or serve long responses with another server.",
            self._threads,
            since,
            waiting,
            summarize(running),
        )


def summarize(requests: Iterable[Running], limit: int = 5) -> str:
    """Return the commonest methods and paths of `requests`, with their numbers: `GET /events (6), POST /x (1)`."""
    counts = Counter(f"{request.method} {request.path[:200]}" for request in requests)
    return ", ".join(f"{name} ({count})" for name, count in counts.most_common(limit))
