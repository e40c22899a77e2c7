"""The HTTP server of `vantage-serve`, on private interfaces of waitress, and why; one connection: _connection.py.

waitress' own `run()` ends at once on an exception and answers nothing more, so the event loop is driven here. One
thread runs the loop: it accepts connections and parses requests; a request that is complete waits for one of the app's
threads. tests/test_private.py looks up every attribute that is used here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from waitress import wasyncore  # type: ignore[import-untyped]
from waitress.adjustments import Adjustments  # type: ignore[import-untyped]
from waitress.server import TcpWSGIServer  # type: ignore[import-untyped]
from waitress.task import ThreadedTaskDispatcher  # type: ignore[import-untyped]
from waitress.utilities import RequestEntityTooLarge  # type: ignore[import-untyped]

from flask_vantage._connection import Channel, Refusal, UnreadBody, make_error
from flask_vantage.busy import Running
from flask_vantage.settings import ALIVE_PATH, METRICS_PATH, READY_PATH

# Probes and scrapes. Each path has a thread of its own, so that a slow readiness check delays no scrape.
PROBE_PATHS = (ALIVE_PATH, READY_PATH, METRICS_PATH)

# Above this number of connections, a new one closes the one that is idle the longest: each open connection costs time
# at each turn of the event loop. Measured: 900 idle connections double the CPU time of a request, 200 add 4 %.
MAX_CONNECTIONS_WITH_IDLE = 200
# A connection that was active more recently than this is not closed to make room: its request may be on its way.
MIN_IDLE_SECONDS = 1.0
# The same for a connection that has sent a part of its request.
MIN_STALLED_SECONDS = 0.1
# Connections above the limit that may wait for their first request: one of them may be a probe.
MAX_EXTRA_CONNECTIONS = 100
# Threads that take the place of those whose client has left. The container's limit of threads is 256.
MAX_EXTRA_THREADS = 64
_WATCH_SECONDS = 1.0


class Owner(Protocol):
    """What the HTTP server asks and tells."""

    def refuse(self, refusal: Refusal) -> tuple[list[tuple[str, str]], bytes]:
        """Return the headers and the body of the response."""

    def report_exception(self, method: str, path: str, error: BaseException) -> None:
        """Log an exception that the app did not handle."""

    def report_response(
        self, method: str, path: str, environ: Mapping[str, Any], status: str, length: int | None, seconds: float
    ) -> None:
        """Called when the app has answered a request that is no probe or scrape; `length` is None if unknown."""

    def watch(self, running: list[Running], waiting: int) -> None:
        """Called once a second with the requests that hold a thread, and the number that wait for one."""


class HttpServer:
    """A waitress server that always answers probes, and stops in steps so that no request in flight is lost."""

    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
        owner: Owner,
        *,
        threads: int,
        connection_limit: int,
        body_limit: int | None,
        app_body_limit: int | None,
        **adjustments: Any,
    ) -> None:
        """Listen; raises OSError when the address is taken. `adjustments` are waitress' own.

        A body of more than `body_limit` bytes is refused. Without that limit, one of more than `app_body_limit` bytes
        is not read, and the app answers, as its framework does.
        """
        limit = app_body_limit if body_limit is None else body_limit
        adj = Adjustments(
            # Waitress refuses a body that reaches its limit.
            max_request_body_size=2**63 if limit is None else limit + 1,
            threads=threads,
            # The limit is kept by `_Server.handle_accept`: waitress stops accepting, probes included.
            connection_limit=2**31,
            **adjustments,
        )
        if len(adj.listen) != 1:
            raise OSError(f"host with several addresses: {adjustments['host']!r} (one address)")
        self.owner = owner
        self.threads = threads
        self.connection_limit = connection_limit
        self.body_limit = body_limit
        # While true, every response has `Connection: close`.
        self.is_draining = False
        self._next_watch = 0.0
        self._server = _Server(app, self, adj)
        self.address: tuple[str, int] = (self._server.effective_host, int(self._server.effective_port))

    def loop(self, until: Callable[[], bool], poll_seconds: float) -> None:
        """Serve until `until` is true; it is asked at least every `poll_seconds`."""
        while not until():
            now = time.monotonic()
            if now >= self._next_watch:
                self._next_watch = now + _WATCH_SECONDS
                self._server.replace_left_threads()
                self.owner.watch(self.running(), self.count_waiting())
            # poll2 uses poll(), which has no limit of 1024 file descriptors.
            wasyncore.poll2(poll_seconds, self._server._map)

    def wake(self) -> None:
        """Let `loop` ask `until` now. May be called from any thread and from a signal handler."""
        self._server.pull_trigger()

    def running(self) -> list[Running]:
        """Return the requests that hold one of the app's threads; may be called from any thread.

        Without those whose client has left, unless no further thread takes their place.
        """
        with_client: list[Running] = []
        left: list[Running] = []
        for channel, (request, started) in self._server.running.copy().items():
            (left if channel.client_left else with_client).append(Running(request.command, request.path, started))
        return [*with_client, *left[MAX_EXTRA_THREADS:]][: self.threads]

    def unfinished(self) -> list[Running]:
        """Return all requests that hold a thread, whether their client is there or not."""
        return [Running(request.command, request.path, started) for request, started in self._server.running.values()]

    def count_waiting(self) -> int:
        """Return the number of requests that wait for one of the app's threads; may be called from any thread."""
        return len(self._server.task_dispatcher.queue)

    def close_listener(self) -> None:
        """Accept no more connections; those that are open stay open."""
        wasyncore.dispatcher.close(self._server)

    def end_streams(self) -> None:
        """Close the connections of streams, and refuse the requests that are not complete yet."""
        for channel in self._server.running.copy():
            if channel.is_streaming:
                channel.will_close = True
        for channel in list(self._server.active_channels.values()):
            if channel.request is not None and not channel.requests:
                channel.refuse(make_error(503, "Service Unavailable", "the server is stopping"))

    def count_busy(self, streams: bool = True) -> int:
        """Return the number of unfinished requests and responses; close the idle connections.

        `streams` is whether to count the streams, and the requests whose client has left.
        """
        busy = {c for c in self._server.running.copy() if streams or not (c.is_streaming or c.client_left)}
        for channel in list(self._server.active_channels.values()):
            if channel.will_close or channel in self._server.running:
                continue
            if channel.requests or channel.request is not None or channel.total_outbufs_len:
                busy.add(channel)
            else:
                channel.will_close = True
        return len(busy)

    def stop_threads(self, timeout: float) -> None:
        """End the worker threads; gives up after `timeout` seconds."""
        for lane in self._server.lanes.values():
            lane.set_thread_count(0)
        self._server.task_dispatcher.shutdown(timeout=timeout)


def _dispatcher(threads: int) -> Any:
    dispatcher = ThreadedTaskDispatcher()
    # One line for each request that waits makes an overload worse; `Owner.watch` has one line a minute.
    dispatcher.queue_logger = logging.Logger("waitress.queue", logging.ERROR)
    dispatcher.set_thread_count(threads)
    return dispatcher


class _Server(TcpWSGIServer):  # type: ignore[misc]
    """Gives probes and refusals threads of their own, and makes room for new connections."""

    def __init__(self, app: Callable[..., Iterable[bytes]], http: HttpServer, adj: Any) -> None:
        self.http = http
        # The requests that hold one of the app's threads, by connection, with the time at which they got it.
        self.running: dict[Channel, tuple[Any, float]] = {}
        self._extra_threads = 0
        self.channel_class = Channel
        # Listen first: without the address there are no threads to end.
        super().__init__(app, {}, dispatcher=ThreadedTaskDispatcher(), adj=adj, sockinfo=adj.listen[0])
        self.task_dispatcher = _dispatcher(http.threads)
        self.lanes = {path: _dispatcher(1) for path in PROBE_PATHS}
        self._refusals = self.lanes[""] = _dispatcher(1)

    def lane(self, request: Any) -> Any:
        """Return the reserved thread of a probe or scrape, or None."""
        lane = self.lanes.get(request.path)
        return lane if lane is not None and request.command in ("GET", "HEAD") else None

    def add_task(self, channel: Channel) -> None:
        request = channel.requests[0]
        error = request.error
        if isinstance(error, RequestEntityTooLarge):
            # What follows in this connection is the rest of the body.
            channel.refused = True
            if self.http.body_limit is None:
                error = request.error = None
                request.body_rcv = UnreadBody(request.body_rcv)
            else:
                error.body = f"the body exceeds {self.http.body_limit} bytes (VANTAGE_MAX_BODY_BYTES)"
        if error is None:
            lane = self.lane(request)
            if lane is not None:
                lane.add_task(channel)
                return
            if request.headers.get("UPGRADE", "").lower() == "websocket":
                reason = (
                    "vantage-serve (waitress) serves no WebSockets. "
                    "Serve the app with a server that does, e.g. gunicorn -k gthread in a Dockerfile"
                )
                request.error = make_error(501, "Not Implemented", reason)
            elif channel.is_extra and len(self.active_channels) > self.http.connection_limit:
                reason = f"{self.http.connection_limit} requests are being answered (VANTAGE_CONNECTION_LIMIT)"
                request.error = make_error(503, "Service Unavailable", reason)
            else:
                self.task_dispatcher.add_task(channel)
                return
        self._refusals.add_task(channel)

    def handle_accept(self) -> None:
        before = len(self.active_channels)
        super().handle_accept()
        if len(self.active_channels) > max(before, min(MAX_CONNECTIONS_WITH_IDLE, self.http.connection_limit)):
            self._make_room(next(reversed(self.active_channels.values())))

    def _make_room(self, newest: Channel) -> None:
        """Close the connection that is least worth keeping: idle the longest, else the slowest to send its request."""
        now = time.time()
        idle: Channel | None = None
        stalled: Channel | None = None
        for channel in self.active_channels.values():
            if channel.requests or channel.total_outbufs_len or channel.will_close or channel.close_when_flushed:
                continue
            if channel.request is None:
                if idle is None or channel.last_activity < idle.last_activity:
                    idle = channel
            elif stalled is None or channel.last_activity < stalled.last_activity:
                stalled = channel
        if idle is not None and idle.last_activity < now - MIN_IDLE_SECONDS:
            idle.will_close = True
        elif len(self.active_channels) <= self.http.connection_limit:
            return
        elif stalled is not None and stalled.last_activity < now - MIN_STALLED_SECONDS:
            limit = f"{self.http.connection_limit} connections are open (VANTAGE_CONNECTION_LIMIT)"
            stalled.refuse(make_error(408, "Request Timeout", f"the request came too slowly, and {limit}"))
        else:
            newest.is_extra = True
            newest.will_close = len(self.active_channels) > self.http.connection_limit + MAX_EXTRA_CONNECTIONS

    def replace_left_threads(self) -> None:
        """Start a thread for each one whose client has left: nothing ends a thread that waits inside the app."""
        running = self.running.copy()
        for channel in running:
            # Once a second, not by polling: waitress would wake up for each request that a client sends early.
            channel.look_for_client()
        left = sum(channel.client_left for channel in running)
        extra = min(left, MAX_EXTRA_THREADS)
        if extra != self._extra_threads:
            self._extra_threads = extra
            # The container or the host may allow no further thread.
            with suppress(RuntimeError):
                self.task_dispatcher.set_thread_count(self.http.threads + extra)
