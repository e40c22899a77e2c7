"""`vantage-serve`: waitress with limits, and a stop on SIGTERM that loses no request and no span."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import signal
import sys
import time
from types import FrameType

from flask import Flask
from loguru import logger

from flask_vantage import logs, tracing
from flask_vantage._private import HttpServer
from flask_vantage.context import choose_request_id
from flask_vantage.extension import Vantage
from flask_vantage.problems import CONTENT_TYPE
from flask_vantage.settings import Settings, SettingsError

# After SIGTERM, /readyz answers 503 for this long while everything else is still served, so that a load balancer
# can send requests elsewhere before connections are refused.
GRACE_SECONDS = 0.5
# The part of the stop timeout that is kept for exporting the last spans.
FLUSH_SECONDS = 4.0


class TargetError(ValueError):
    """The target names no Flask app; the text gives the value and the fix."""


def load_app(target: str) -> Flask:
    """Return the app that `module:attribute` names; a factory is called without arguments.

    The attribute may have dots: `web:dashboard.server` for Dash.

    Raises `TargetError`; exceptions of the application's own code pass unchanged.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise TargetError(f"invalid target: {target!r} (module:attribute). Use e.g. mypackage:create_app.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # An import that fails inside the application is another error, with a traceback to show.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        fix = "Install it, or add its directory to PYTHONPATH."
        raise TargetError(f"module not found: {error.name!r}. {fix}") from None
    found: object = module
    for name in attribute.split("."):
        found = getattr(found, name, None)
    if found is None:
        raise TargetError(f"attribute not found: {attribute!r} in module {module_name!r}. Name an app or a factory.")
    if not isinstance(found, Flask) and callable(found):
        found = found()
    if not isinstance(found, Flask):
        kind = type(found).__name__
        raise TargetError(f"not a Flask app or a factory of one: {target!r} ({kind}). Name one that is.")
    return found


class Server:
    """Serves one app until SIGTERM or SIGINT; a second signal skips waiting for requests.

    Raises OSError when the address cannot be listened on.
    """

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._vantage: Vantage | None = app.extensions.get("vantage")
        self._settings = settings
        self._signals = 0
        self._server = HttpServer(
            app,
            refusal_response,
            host=settings.host,
            port=settings.port,
            threads=settings.threads,
            connection_limit=settings.connection_limit,
            # Waitress refuses a body that reaches the limit; the setting is the largest body allowed.
            max_request_body_size=settings.max_body_bytes + 1,
            max_request_header_size=64 * 1024,
            # Seconds that a connection may be idle.
            channel_timeout=60,
            ident=None,
            clear_untrusted_proxy_headers=True,
        )

    def run(self) -> None:
        """Serve, then stop: report not ready, finish the requests in flight, export the last spans."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self._settings.tune_gc:
            # What is loaded at the start stays, so the collector need not scan it again. Requests leave few cycles
            # behind, so it may also run less often than every 700 objects.
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 50, 50)
        logger.info("Listening on http://{}:{}", *self._server.address)
        self._server.loop(lambda: self._signals > 0, 1.0)
        started = time.monotonic()
        deadline = started + self._settings.stop_timeout - FLUSH_SECONDS
        logger.info("Stopping: not ready, finishing the requests in flight.")
        if self._vantage is not None:
            self._vantage.health.draining = True
        self._server.is_draining = True
        grace = min(started + GRACE_SECONDS, deadline)
        self._server.loop(lambda: time.monotonic() >= grace or self._signals > 1, 0.05)
        self._server.close_listener()
        self._server.loop(
            lambda: not self._server.count_busy() or time.monotonic() >= deadline or self._signals > 1, 0.05
        )
        if unfinished := self._server.count_busy():
            logger.bind(requests_unfinished=unfinished).warning("Stopping with {} requests unfinished.", unfinished)
        self._server.stop_threads(0.5)
        if not tracing.shut_down(FLUSH_SECONDS - 1.0):
            logger.warning("The last spans were not exported in time.")
        logger.info("Stopped after {:.1f} s.", time.monotonic() - started)
        logs.flush(0.5)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # No logging here: the handler may interrupt a log call that holds its lock.
        self._signals += 1
        self._server.wake()


def refusal_response(code: int, title: str, reason: str) -> tuple[list[tuple[str, str]], bytes]:
    """Return headers and body (problem+json) for a request that the server rejects before the app sees it."""
    request_id = choose_request_id(None)
    body = {
        "type": "about:blank",
        "title": title,
        "status": code,
        "detail": "The server rejected the request before it reached the application.",
        "request_id": request_id,
    }
    logger.bind(request_id=request_id, http_response_status_code=code).info("Request rejected: {} ({})", title, reason)
    return [("Content-Type", CONTENT_TYPE), ("X-Request-ID", request_id)], json.dumps(body).encode() + b"\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 after a clean stop and 2 for an invalid setting or target."""
    parser = argparse.ArgumentParser(
        prog="vantage-serve",
        description="Serve a Flask app with waitress. Settings come from environment variables: "
        "PORT, VANTAGE_HOST, VANTAGE_THREADS, VANTAGE_CONNECTION_LIMIT, VANTAGE_MAX_BODY_BYTES, …",
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
        fix = "Check PORT, VANTAGE_HOST and the directories the app writes to."
        print(f"vantage-serve: cannot start: {error.strerror or error}. {fix}", file=sys.stderr)
        return 2
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
