"""One connection of `vantage-serve` and its requests, on private interfaces of waitress.

Requests that the server refuses get a response that the client can read, whatever it still sends.
"""

from __future__ import annotations

import errno
import io
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from waitress import wasyncore  # type: ignore[import-untyped]
from waitress.channel import ClientDisconnected, HTTPChannel  # type: ignore[import-untyped]
from waitress.task import ErrorTask, WSGITask  # type: ignore[import-untyped]
from waitress.utilities import Error  # type: ignore[import-untyped]
from werkzeug import exceptions

# How long a refused client may go on sending before its connection is closed.
DISCARD_SECONDS = 5.0
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


def make_error(status: int, title: str, reason: str) -> Any:
    error = Error(reason)
    error.code, error.reason = status, title
    return error


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
                self.request.error = make_error(500, "Internal Server Error", "")
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


class Channel(HTTPChannel):  # type: ignore[misc]
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
            self.refuse(make_error(507, "Insufficient Storage", reason))
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


class UnreadBody:
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
