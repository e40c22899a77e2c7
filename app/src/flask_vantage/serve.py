"""`vantage-serve`: waitress with bounds, and a SIGTERM that loses neither request nor span."""

from __future__ import annotations

import argparse
import gc
import importlib
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from flask import Flask
from loguru import logger
from waitress import create_server, wasyncore  # type: ignore[import-untyped]
from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.task import ErrorTask, WSGITask  # type: ignore[import-untyped]

from flask_vantage import logs, tracing
from flask_vantage.context import choose_request_id
from flask_vantage.extension import Vantage
from flask_vantage.problems import CONTENT_TYPE
from flask_vantage.settings import Settings, SettingsError

# After SIGTERM, /readyz says 503 for this long while everything else is still served, so that
# whoever asks for readiness can look elsewhere before connections are refused.
GRACE_SECONDS = 0.5
# What is kept of the stop timeout for exporting the last spans and leaving.
FLUSH_SECONDS = 4.0
_CHANNEL_TIMEOUT_SECONDS = 60
_LINGER_SECONDS = 5.0
_MAX_HEADER_BYTES = 64 * 1024


class TargetError(ValueError):
    """The application cannot be found; the text says what to write instead."""


def load_app(target: str) -> Flask:
    """Return the app that `module:attribute` names, called first when it is a factory.

    Raises `TargetError`; what the application's own code raises passes unchanged.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise TargetError(
            f"{target!r} is not module:attribute. Use e.g. shop.storefront:create_app"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # An import that fails inside the application is another error, with a traceback to show.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise TargetError(
            f"there is no module {error.name!r}. Install it, or set PYTHONPATH to its folder"
        ) from None
    found: object = getattr(module, attribute, None)
    if found is None:
        raise TargetError(f"the module {module_name!r} has no {attribute!r}")
    if not isinstance(found, Flask) and callable(found):
        found = found()
    if not isinstance(found, Flask):
        raise TargetError(f"{target} is a {type(found).__name__}, not a Flask app or its factory")
    return found


class Server:
    """Serves one app until `stop` is called or a signal comes."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._vantage: Vantage | None = app.extensions.get("vantage")
        self._settings = settings
        self._signals = 0
        self._server = create_server(
            app,
            host=settings.host,
            port=settings.port,
            threads=settings.threads,
            connection_limit=settings.connection_limit,
            # Waitress refuses what reaches the limit, the setting names the largest body allowed.
            max_request_body_size=settings.max_body_bytes + 1,
            max_request_header_size=_MAX_HEADER_BYTES,
            channel_timeout=_CHANNEL_TIMEOUT_SECONDS,
            ident=None,
            clear_untrusted_proxy_headers=True,
        )
        self._server.channel_class = _Channel
        self._server.vantage_draining = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the server listens on."""
        return self._server.effective_host, int(self._server.effective_port)

    def run(self) -> None:
        """Serve, then stop: say not ready, finish what was begun, export the last spans."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        # What is loaded stays; the collector need not look at it again and again. Requests leave
        # few cycles behind, so it may also come less often than every 700 objects.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 50, 50)
        host, port = self.address
        logger.info("Listening on http://{}:{}", host, port)
        self._loop(until=lambda: self._signals > 0)
        started = time.monotonic()
        deadline = started + self._settings.stop_timeout - FLUSH_SECONDS
        logger.info("Stopping: not ready any more, finishing the requests in flight.")
        if self._vantage is not None:
            self._vantage.health.draining = True
        self._server.vantage_draining = True
        grace = min(started + GRACE_SECONDS, deadline)
        self._loop(until=lambda: time.monotonic() >= grace or self._signals > 1)
        # Only the listening socket: the channels of the requests in flight live on.
        wasyncore.dispatcher.close(self._server)
        self._loop(
            until=lambda: not self._busy() or time.monotonic() >= deadline or self._signals > 1
        )
        unfinished = self._busy()
        if unfinished:
            logger.warning("Stopping with {} requests unfinished.", unfinished)
        self._server.task_dispatcher.shutdown(timeout=0.5)
        if not tracing.shut_down(FLUSH_SECONDS - 1.0):
            logger.warning("The last spans were not exported in time.")
        logger.info("Stopped after {:.1f} s.", time.monotonic() - started)
        logs.flush(0.5)

    def stop(self) -> None:
        """Begin to stop, as SIGTERM does. May be called from any thread."""
        self._signals += 1
        self._server.pull_trigger()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # No logging here: the handler may interrupt a log call that holds its lock.
        self.stop()

    def _loop(self, until: Callable[[], bool]) -> None:
        # poll2 uses poll(), which knows no limit of 1024 file descriptors.
        while not until():
            wasyncore.poll2(0.05 if self._signals else 1.0, self._server._map)

    def _busy(self) -> int:
        """Count the connections with a request begun or a response unsent; close the idle ones."""
        busy = 0
        for channel in list(self._server.active_channels.values()):
            if channel.requests or channel.request is not None or channel.total_outbufs_len:
                busy += 1
            else:
                channel.will_close = True
        return busy


class _Task(WSGITask):  # type: ignore[misc]
    """Closes the connection after the response once the server is stopping."""

    def build_response_header(self) -> bytes:
        if self.channel.server.vantage_draining:
            self.set_close_on_finish()
        header: bytes = super().build_response_header()
        return header


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    """Answers what waitress itself refuses (malformed, too large) as problem+json too."""

    def execute(self) -> None:
        error = self.request.error
        request_id = choose_request_id(None)
        title = error.reason
        body = (
            f'{{"type": "about:blank", "title": "{title}", "status": {error.code}, '
            f'"detail": "The request was refused before it reached the application.", '
            f'"request_id": "{request_id}"}}\n'
        ).encode()
        logger.bind(request_id=request_id, http_response_status_code=error.code).info(
            "A request was refused: {} ({})", title, error.body
        )
        self.status = f"{error.code} {title}"
        self.response_headers.extend([("Content-Type", CONTENT_TYPE), ("X-Request-ID", request_id)])
        self.channel.refused = True
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection whose client gets to read why it was refused.

    A client that still sends its body when the connection is closed sees a reset, and the answer
    is lost. So after a refusal only our side is closed, and what comes is thrown away for a while.
    """

    task_class = _Task
    error_task_class = _ErrorTask
    refused = False

    will_close: bool

    def handle_write(self) -> None:
        if not self.refused or not self.close_when_flushed or self.will_close:
            super().handle_write()
            return
        self._flush_exception(self._flush_some)
        if not self.total_outbufs_len and not self.will_close:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.will_close = True
            else:
                # Another class and not another state: the loop asks every connection at each turn
                # whether it is readable and writable, and a test there costs a tenth of all.
                self.__class__ = _LingeringChannel
                self.linger_until = time.monotonic() + _LINGER_SECONDS


class _LingeringChannel(_Channel):
    """A connection whose answer is sent, and whose remaining input goes nowhere."""

    linger_until: float

    def readable(self) -> bool:
        if time.monotonic() > self.linger_until:
            self.will_close = True
        return not self.will_close

    def writable(self) -> bool:
        return bool(self.will_close)

    def handle_read(self) -> None:
        try:
            gone = not self.recv(65536)
        except OSError:
            gone = True
        if gone:
            self.handle_close()

    def handle_write(self) -> None:
        self.handle_close()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status is 0 after a clean stop and 2 for a wrong setting."""
    parser = argparse.ArgumentParser(
        prog="vantage-serve",
        description="Serve a Flask app with waitress. Settings come from the environment: "
        "PORT, VANTAGE_THREADS, VANTAGE_CONNECTION_LIMIT, VANTAGE_MAX_BODY_BYTES, …",
    )
    parser.add_argument("target", help="module:app or module:factory")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment()
        server = Server(load_app(options.target), settings)
    except (SettingsError, TargetError) as error:
        print(f"vantage-serve: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"vantage-serve: {_explain(error)}", file=sys.stderr)
        return 2
    server.run()
    return 0


def _explain(error: OSError) -> str:
    text: Any = error.strerror or error
    return f"cannot start: {text}. Check PORT, VANTAGE_HOST and the folders the app writes to."


if __name__ == "__main__":
    sys.exit(main())
