"""The private interfaces of waitress that `vantage-serve` uses, and why.

waitress' own `run()` ends at once on an exception and answers nothing more, so the event loop is driven here. One
thread runs the loop: it accepts connections and parses requests; a request that is complete waits for one of the app's
threads. tests/test_private.py looks up every attribute that is used here.
"""

from __future__ import annotations

import errno
import io
import logging
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from waitress import wasyncore  # type: ignore[import-untyped]
from waitress.adjustments import Adjustments  # type: ignore[import-untyped]
from waitress.channel import ClientDisconnected, HTTPChannel  # type: ignore[import-untyped]
from waitress.server import TcpWSGIServer  # type: ignore[import-untyped]
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask  # type: ignore[import-untyped]
from waitress.utilities import Error, RequestEntityTooLarge  # type: ignore[import-untyped]
from werkzeug import exceptions

from flask_vantage.busy import Running
from flask_vantage.settings import ALIVE_PATH, METRICS_PATH, READY_PATH

# Probes and scrapes. Each path has a thread of its own, so that a slow readiness check delays no scrape.
PROBE_PATHS = (ALIVE_PATH, READY_PATH, METRICS_PATH)

# How long a refused client may go on sending before its connection is closed.
DISCARD_SECONDS = 5.0
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
# A part of a body up to this size is copied, to be sent together with the header.
MAX_JOINED_BYTES = 64 * 1024


@dataclass(frozen=True)
class Refusal:
    """A request that the server answers itself; `seconds` is the age of its connection or request."""

    status: int
    title: str
    reason: str
    method: str
    path: str
    client_address: str
    seconds: float


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
                channel.refuse(_error(503, "Service Unavailable", "the server is stopping"))

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


def _error(status: int, title: str, reason: str) -> Any:
    error = Error(reason)
    error.code, error.reason = status, title
    return error


class _Server(TcpWSGIServer):  # type: ignore[misc]
    """Gives probes and refusals threads of their own, and makes room for new connections."""

    def __init__(self, app: Callable[..., Iterable[bytes]], http: HttpServer, adj: Any) -> None:
        self.http = http
        # The requests that hold one of the app's threads, by connection, with the time at which they got it.
        self.running: dict[_Channel, tuple[Any, float]] = {}
        self._extra_threads = 0
        self.channel_class = _Channel
        # Listen first: without the address there are no threads to end.
        super().__init__(app, {}, dispatcher=ThreadedTaskDispatcher(), adj=adj, sockinfo=adj.listen[0])
        self.task_dispatcher = _dispatcher(http.threads)
        self.lanes = {path: _dispatcher(1) for path in PROBE_PATHS}
        self._refusals = self.lanes[""] = _dispatcher(1)

    def lane(self, request: Any) -> Any:
        """Return the reserved thread of a probe or scrape, or None."""
        lane = self.lanes.get(request.path)
        return lane if lane is not None and request.command in ("GET", "HEAD") else None

    def add_task(self, channel: _Channel) -> None:
        request = channel.requests[0]
        error = request.error
        if isinstance(error, RequestEntityTooLarge):
            # What follows in this connection is the rest of the body.
            channel.refused = True
            if self.http.body_limit is None:
                error = request.error = None
                request.body_rcv = _UnreadBody(request.body_rcv)
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
                request.error = _error(501, "Not Implemented", reason)
            elif channel.is_extra and len(self.active_channels) > self.http.connection_limit:
                reason = f"{self.http.connection_limit} requests are being answered (VANTAGE_CONNECTION_LIMIT)"
                request.error = _error(503, "Service Unavailable", reason)
            else:
                self.task_dispatcher.add_task(channel)
                return
        self._refusals.add_task(channel)

    def handle_accept(self) -> None:
        before = len(self.active_channels)
        super().handle_accept()
        if len(self.active_channels) > max(before, min(MAX_CONNECTIONS_WITH_IDLE, self.http.connection_limit)):
            self._make_room(next(reversed(self.active_channels.values())))

    def _make_room(self, newest: _Channel) -> None:
        """Close the connection that is least worth keeping: idle the longest, else the slowest to send its request."""
        now = time.time()
        idle: _Channel | None = None
        stalled: _Channel | None = None
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
            stalled.refuse(_error(408, "Request Timeout", f"the request came too slowly, and {limit}"))
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


def _close_after(task: Any) -> None:
    """Close the connection after the response of `task`, and say so in it; waitress 2 has no method for this."""
    if not any(name.lower() == "connection" for name, _ in task.response_headers):
        task.response_headers.append(("Connection", "close"))
    task.close_on_finish = True


class _Task(WSGITask):  # type: ignore[misc]
    """One request to the app."""

    wrote_header: bool

    def service(self) -> None:
        self.channel.task = self
        started = time.monotonic()
        try:
            super().service()
        except ClientDisconnected:
            raise
        # SystemExit too: waitress would neither answer nor close the connection.
        except BaseException as error:  # noqa: BLE001
            self.channel.server.http.owner.report_exception(self.request.command, self.request.path, error)
            self.close_on_finish = True
            if not self.wrote_header:
                self.request.error = _error(500, "Internal Server Error", "")
                _ErrorTask(self.channel, self.request).service()
        finally:
            if self.wrote_header and self.channel.server.lane(self.request) is None:
                self.channel.server.http.owner.report_response(
                    self.request.command,
                    self.request.path,
                    self.environ,
                    self.status,
                    self.content_length,
                    time.monotonic() - started,
                )

    def write(self, data: bytes) -> None:
        # Header and body in one send: each one hands Python's lock to another thread and back.
        if self.complete and not self.wrote_header and self.has_body and 0 < len(data) <= MAX_JOINED_BYTES:
            self.channel.header = self.build_response_header()
            self.wrote_header = True
        super().write(data)
        if self.channel.header:
            # `Content-Length: 0`, and a body all the same.
            self.channel.write_soon(b"")

    def build_response_header(self) -> bytes:
        if self.channel.refused or self.channel.server.http.is_draining:
            _close_after(self)
        header: bytes = super().build_response_header()
        return header


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    """Answers a request that the server rejects, or that the app failed, with the server's own response."""

    def execute(self) -> None:
        channel, request, error = self.channel, self.request, self.request.error
        headers, body = channel.server.http.owner.refuse(
            Refusal(
                status=error.code,
                title=error.reason,
                reason=error.body,
                # Unknown if the first line could not be parsed.
                method=getattr(request, "command", ""),
                path=getattr(request, "path", ""),
                client_address=channel.addr[0],
                seconds=max(0.0, time.time() - channel.last_activity),
            )
        )
        self.status = f"{error.code} {error.reason}"
        self.response_headers = headers
        channel.refused = True
        _close_after(self)
        self.content_length = len(body)
        self.write(b"" if getattr(request, "command", "") == "HEAD" else body)


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection. After a refusal it stays half open until the client has read why."""

    task_class = _Task
    error_task_class = _ErrorTask
    # The request that is being received.
    request: Any
    # The task that is running or ran last.
    task: _Task | None = None
    # Nothing more is parsed: what the client sends belongs to a request that is refused.
    refused = False
    # The connection is closed; or the client has closed its end, and its request is still being answered.
    client_left = False
    # Above the limit: only a probe is answered.
    is_extra = False
    # The header of a response whose body follows.
    header = b""

    @property
    def is_streaming(self) -> bool:
        """Whether the app sends a response of unknown length: events, or an export."""
        task = self.task
        return task is not None and task.complete and task.content_length is None

    def look_for_client(self) -> None:
        """Find out whether the client has left; for the thread of the event loop, while a request is answered.

        The response is still sent: a client may close only its sending half.
        """
        if not self.client_left:
            try:
                self.client_left = not self.socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                pass
            except OSError:
                self.client_left = True

    def check_client_disconnected(self) -> bool:
        return self.client_left or not self.connected

    def received(self, data: bytes) -> bool:
        if self.refused:
            return False
        try:
            return bool(super().received(data))
        except OSError as error:
            # A large body goes to a temporary file.
            if self.request is None:
                raise
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            room = f"{tempfile.gettempdir()} is full" if full else f"no temporary file: {error}"
            reason = f"no room for a body of this size: {room}. Set TMPDIR to a directory with more room"
            self.refuse(_error(507, "Insufficient Storage", reason))
            return False

    def write_soon(self, data: Any) -> int:
        if self.header:
            data, self.header = self.header + data, b""
        written: int = super().write_soon(data)
        return written

    def refuse(self, error: Any) -> None:
        """Answer the request that is being received with `error`; for the thread of the event loop."""
        with self.requests_lock:
            request, self.request = self.request, None
            # Frees the temporary file. Where there is no room, it writes what it has buffered, and fails again.
            with suppress(OSError):
                request.close()
            request.body_rcv = None
            request.error = error
            self.refused = True
            self.requests.append(request)
            if len(self.requests) == 1:
                self.server.add_task(self)

    def send_continue(self) -> None:
        # waitress invites the body of a request that is already refused.
        if self.request.error is None:
            super().send_continue()

    def service(self) -> None:
        request = self.requests[0]
        if request.error is not None or self.server.lane(request) is not None:
            super().service()
            return
        running = self.server.running
        running[self] = (request, time.monotonic())
        try:
            super().service()
        finally:
            del running[self]

    def handle_close(self) -> None:
        self.client_left = True
        if self.refused and self.connected:
            # A client that is still sending gets a reset when the socket is closed, and loses the response.
            with suppress(OSError):
                _Discard(self.socket.dup(), self._map)
        super().handle_close()


class _UnreadBody:
    """Replaces a body above the app's limit: reading it raises the exception of Werkzeug."""

    def __init__(self, receiver: Any) -> None:
        self._receiver = receiver

    def getfile(self) -> io.RawIOBase:
        return _UnreadStream()

    def getbuf(self) -> Any:
        return self._receiver.getbuf()


class _UnreadStream(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def readinto(self, _: Any) -> int:
        raise exceptions.RequestEntityTooLarge


class _Discard(wasyncore.dispatcher):  # type: ignore[misc]
    """Reads and drops what a refused client still sends, for a while."""

    def __init__(self, connection: socket.socket, socket_map: dict[int, Any]) -> None:
        connection.shutdown(socket.SHUT_WR)
        self._deadline = time.monotonic() + DISCARD_SECONDS
        super().__init__(connection, socket_map)

    def writable(self) -> bool:
        return time.monotonic() > self._deadline

    def handle_read(self) -> None:
        if not self.recv(65536):
            self.handle_close()

    def handle_write(self) -> None:
        self.handle_close()
