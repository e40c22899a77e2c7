"""The private interfaces of other packages that flask_vantage uses, and why.

tests/test_private.py looks up every attribute that is used here, so an upgrade that removes one fails by name.
The upper bounds in pyproject.toml keep untested versions out.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flask import Flask
from loguru import logger
from waitress import create_server, wasyncore  # type: ignore[import-untyped]
from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.server import MultiSocketServer  # type: ignore[import-untyped]
from waitress.task import ErrorTask, WSGITask  # type: ignore[import-untyped]
from werkzeug.wrappers import Response
from werkzeug.wsgi import ClosingIterator

# How long a refused client may go on sending before its connection is closed.
DISCARD_SECONDS = 5.0

# From the status code, its title and waitress' reason to the response's headers and body.
RefusalResponse = Callable[[int, str, str], tuple[list[tuple[str, str]], bytes]]


def is_complete(response: Response) -> bool:
    """Tell whether nothing of the app is left to run once `response` is returned.

    werkzeug: `_on_close`. There is no public way to ask for the functions of `call_on_close`.
    """
    if not response.is_sequence:
        # What Flask makes of an HTTPException, by calling it.
        return type(response.response) is ClosingIterator and "Content-Length" in response.headers
    return not response._on_close


def loguru_has_only(handler_id: int | None) -> bool:
    """Tell whether loguru would do nothing with a record but pass it to the handler `handler_id`.

    loguru: `_core`. There is no public way to list handlers, patchers, extra fields and disabled loggers. False is the
    safe answer: the record then takes the usual way through loguru.
    """
    core = getattr(logger, "_core", None)
    return (
        core is not None
        and len(core.handlers) == 1
        and handler_id in core.handlers
        and core.patcher is None
        and not core.extra
        and not core.activation_list
    )


class HttpServer:
    """A waitress server that is stopped in steps, so that no request in flight is lost.

    waitress: its own `run()` ends at once on an exception and answers nothing more, so the event loop is driven here.
    """

    def __init__(self, app: Flask, refusal_response: RefusalResponse, **adjustments: Any) -> None:
        """Listen; raises OSError when the address is taken. `adjustments` are waitress' own."""
        self._server = create_server(app, **adjustments)
        if isinstance(self._server, MultiSocketServer):
            self._server.close()
            raise OSError(f"host with several addresses: {adjustments['host']!r} (one address)")
        self._server.channel_class = _Channel
        self._server.vantage = self
        self.refusal_response = refusal_response
        # While true, every response has `Connection: close`.
        self.is_draining = False
        self.address: tuple[str, int] = (self._server.effective_host, int(self._server.effective_port))

    def loop(self, until: Callable[[], bool], poll_seconds: float) -> None:
        """Serve until `until` is true; it is asked at least every `poll_seconds`."""
        # poll2 uses poll(), which has no limit of 1024 file descriptors.
        while not until():
            wasyncore.poll2(poll_seconds, self._server._map)

    def wake(self) -> None:
        """Let `loop` ask `until` now. May be called from any thread and from a signal handler."""
        self._server.pull_trigger()

    def close_listener(self) -> None:
        """Accept no more connections; those that are open stay open."""
        wasyncore.dispatcher.close(self._server)

    def count_busy(self) -> int:
        """Return the number of connections with an unfinished request or response; close the idle ones."""
        busy = 0
        for channel in list(self._server.active_channels.values()):
            if channel.requests or channel.request is not None or channel.total_outbufs_len:
                busy += 1
            else:
                channel.will_close = True
        return busy

    def stop_threads(self, timeout: float) -> None:
        """End the worker threads; gives up after `timeout` seconds."""
        self._server.task_dispatcher.shutdown(timeout=timeout)


class _Task(WSGITask):  # type: ignore[misc]
    """Closes the connection after the response once the server is stopping."""

    def build_response_header(self) -> bytes:
        if self.channel.server.vantage.is_draining:
            self.set_close_on_finish()
        header: bytes = super().build_response_header()
        return header


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    """Answers a request that waitress rejects (malformed, too large) with the server's own response."""

    def execute(self) -> None:
        error = self.request.error
        headers, body = self.channel.server.vantage.refusal_response(error.code, error.reason, error.body)
        self.status = f"{error.code} {error.reason}"
        self.response_headers.extend(headers)
        self.channel.refused = True
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection that stays half open after a refusal until the client has read why."""

    task_class = _Task
    error_task_class = _ErrorTask
    refused = False

    def handle_close(self) -> None:
        if self.refused and self.connected:
            # A client that is still sending gets a reset when the socket is closed, and loses the response.
            with suppress(OSError):
                _Discard(self.socket.dup(), self._map)
        super().handle_close()


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
